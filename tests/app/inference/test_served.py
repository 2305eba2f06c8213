"""A model at fault answers nobody in its line; an ensemble leaves nothing in its members' lines."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import anyio
import numpy as np
import pytest

from app.domain.errors import ModelFaultError, ServiceBusyError
from app.domain.images import RgbImage
from app.inference.batcher import BatchLimits
from app.inference.ensembles import LoadedEnsemble
from app.inference.models import LoadedModel
from app.inference.served import ServedEnsemble, ServedModel
from app.metrics import Metrics
from app.tracing import Tracing

LIMITS = BatchLimits(max_items=1, max_waiting=1)


@dataclass
class Loaded:
    """Answers with its name and an image's value, once it may; notes what it was asked."""

    name: str
    is_busy: Event = field(default_factory=Event)
    may_answer: Event = field(default_factory=Event)
    asked: list[int] = field(default_factory=list)

    @property
    def manifest(self) -> SimpleNamespace:
        return SimpleNamespace(name=self.name, version=1)

    def predict_batch(self, images: RgbImage) -> list[tuple[str, int]]:
        values = [int(image.flat[0]) for image in images]
        self.asked += values
        self.is_busy.set()
        assert self.may_answer.wait(10)
        return [(self.name, value) for value in values]

    def self_test(self) -> None:
        raise ModelFaultError("another answer than the golden one")


class Combined:
    """An ensemble whose answer is its members' own."""

    def combine(self, answers: list[Any]) -> list[Any]:
        return answers


def image(value: int) -> RgbImage:
    return np.full((2, 2, 3), value, np.uint8)


Scenario = Callable[[ServedEnsemble, ServedModel, ServedModel], Awaitable[None]]


def with_ensemble(scenario: Scenario) -> tuple[Loaded, Loaded]:
    """Run with an ensemble of two members that are busy with image 1; what they were asked."""
    one, two = Loaded("one"), Loaded("two")

    async def run() -> None:
        threads = anyio.CapacityLimiter(2)
        members = [
            ServedModel(cast(LoadedModel, loaded), LIMITS, threads, Metrics(), Tracing())
            for loaded in (one, two)
        ]
        busy = [asyncio.create_task(member.predict(image(1))) for member in members]
        for loaded in (one, two):
            assert await asyncio.to_thread(loaded.is_busy.wait, 10)
        await scenario(ServedEnsemble(cast(LoadedEnsemble, Combined()), members), *members)
        for loaded in (one, two):
            loaded.may_answer.set()
        answers: list[Any] = await asyncio.gather(*busy)
        assert answers == [("one", 1), ("two", 1)]
        for member in members:
            await member.close(5.0)

    asyncio.run(run())
    return one, two


@pytest.mark.parametrize("full", [0, 1])
def test_a_member_whose_line_is_full_leaves_no_image_with_the_others(full: int) -> None:
    async def scenario(ensemble: ServedEnsemble, *members: ServedModel) -> None:
        last = asyncio.create_task(members[full].predict(image(2)))
        await asyncio.sleep(0)
        with pytest.raises(ServiceBusyError):
            await ensemble.predict(image(3))
        assert members[full].num_waiting == 1
        assert members[1 - full].num_waiting == 0
        last.cancel()

    for loaded in with_ensemble(scenario):
        assert loaded.asked == [1]


def test_a_caller_who_leaves_takes_the_image_out_of_every_line() -> None:
    async def scenario(ensemble: ServedEnsemble, *members: ServedModel) -> None:
        caller = asyncio.create_task(ensemble.predict(image(3)))
        await asyncio.sleep(0.01)
        assert [member.num_waiting for member in members] == [1, 1]
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert [member.num_waiting for member in members] == [0, 0]

    for loaded in with_ensemble(scenario):
        assert loaded.asked == [1]


def test_whoever_is_in_line_when_a_self_test_fails_gets_no_answer() -> None:
    loaded = Loaded("one")

    async def run() -> list[Any]:
        threads = anyio.CapacityLimiter(2)
        model = ServedModel(cast(LoadedModel, loaded), LIMITS, threads, Metrics(), Tracing())
        busy = asyncio.create_task(model.predict(image(1)))
        assert await asyncio.to_thread(loaded.is_busy.wait, 10)
        waiting = asyncio.create_task(model.predict(image(2)))
        await asyncio.sleep(0)
        assert await model.self_test() is False
        loaded.may_answer.set()
        outcomes: list[Any] = [*await asyncio.gather(busy, waiting, return_exceptions=True)]
        await model.close(5.0)
        return outcomes

    outcomes = asyncio.run(run())
    assert [type(outcome) for outcome in outcomes] == [ModelFaultError, ModelFaultError]
    assert loaded.asked == [1]


def test_members_answer_in_their_order() -> None:
    async def scenario(ensemble: ServedEnsemble, *members: ServedModel) -> None:
        answer = asyncio.create_task(ensemble.predict(image(3)))
        await asyncio.sleep(0.01)
        assert [member.num_waiting for member in members] == [1, 1]
        cast(Loaded, members[1].loaded).may_answer.set()
        await asyncio.sleep(0.01)
        cast(Loaded, members[0].loaded).may_answer.set()
        assert cast(Any, await answer) == [("one", 3), ("two", 3)]

    for loaded in with_ensemble(scenario):
        assert loaded.asked == [1, 3]
