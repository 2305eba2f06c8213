"""Every item that stands in line ends exactly once, whatever happens around it.

Time is simulated: a second costs nothing, and nothing happens between two events.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import async_solipsism
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import ServiceBusyError, ServiceStoppingError
from app.inference.batcher import Batcher, BatchLimits, BatchReport

BAD = -1


@dataclass
class Model:
    """Doubles numbers, a second a batch; notes when it was asked what."""

    seconds: float = 1.0
    calls: list[tuple[float, list[int]]] = field(default_factory=list)

    async def answer(self, items: list[int]) -> list[int]:
        self.calls.append((now(), list(items)))
        await asyncio.sleep(self.seconds)
        if any(item <= BAD for item in items):
            raise ArithmeticError("bad item")
        return [2 * item for item in items]


def now() -> float:
    return round(asyncio.get_running_loop().time(), 6)


def simulate(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = async_solipsism.EventLoop()
    try:
        loop.run_until_complete(scenario())
    finally:
        loop.close()


def at(seconds: float, batcher: Batcher[int, int], item: int) -> "asyncio.Task[int]":
    async def submit() -> int:
        await asyncio.sleep(seconds)
        return await batcher.submit(item)

    return asyncio.ensure_future(submit())


def test_a_failure_beside_the_items_ends_no_line() -> None:
    def broken(_report: BatchReport) -> None:
        raise MemoryError

    async def scenario() -> None:
        batcher = Batcher(Model().answer, BatchLimits(max_items=1), broken)
        tasks = [at(0, batcher, item) for item in range(3)]
        assert await asyncio.gather(*tasks) == [0, 2, 4]
        assert await batcher.submit(3) == 6
        await batcher.close(1.0)

    simulate(scenario)


def test_a_failure_before_the_answer_is_every_items_end_and_not_the_lines() -> None:
    class Starved(Batcher[int, int]):
        failures = [MemoryError()]  # noqa: RUF012

        async def _settle(self, futures: list["asyncio.Future[int]"]) -> bool:
            if self.failures:
                raise self.failures.pop()
            return await super()._settle(futures)

    async def scenario() -> None:
        batcher = Starved(Model().answer, BatchLimits())
        tasks = [at(0, batcher, item) for item in range(2)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} <= {MemoryError, int}
        assert MemoryError in {type(result) for result in results}
        assert await batcher.submit(3) == 6
        await batcher.close(1.0)

    simulate(scenario)


@pytest.mark.parametrize("cancelled_at", [0.5, 1.5], ids=["in line", "in the running batch"])
def test_a_cancelled_caller_does_not_harm_its_batch_mates(cancelled_at: float) -> None:
    async def scenario() -> None:
        model = Model()
        batcher = Batcher(model.answer, BatchLimits())
        first = at(0, batcher, 0)
        four = [at(item / 10, batcher, item) for item in (1, 2, 3, 4)]
        await asyncio.sleep(cancelled_at)
        four[1].cancel()
        assert await first == 0
        results = await asyncio.gather(*four, return_exceptions=True)
        assert [results[0], results[2], results[3]] == [2, 6, 8]
        assert isinstance(results[1], asyncio.CancelledError)
        computed = [1, 3, 4] if cancelled_at < 1.0 else [1, 2, 3, 4]
        assert model.calls == [(0.0, [0]), (1.0, computed)]
        await batcher.close(1.0)

    simulate(scenario)


def test_an_idle_line_adds_no_wait_and_a_busy_one_fills_batches_for_a_moment() -> None:
    async def scenario() -> None:
        model = Model()
        batcher = Batcher(model.answer, BatchLimits(max_items=3, max_wait_seconds=0.5))
        arrivals = {1: 0.0, 2: 0.9, 3: 1.3, 4: 1.45, 5: 2.0, 6: 2.1, 7: 2.2, 8: 7.0}
        await asyncio.gather(*(at(time, batcher, item) for item, time in arrivals.items()))
        assert model.calls == [
            (0.0, [1]),  # idle: at once
            (1.4, [2, 3]),  # half a second after 2 arrived
            (2.4, [4, 5, 6]),  # full
            (3.4, [7]),  # has waited long enough
            (7.0, [8]),  # idle again
        ]
        await batcher.close(1.0)

    simulate(scenario)


def test_a_bad_item_fails_alone() -> None:
    async def scenario() -> None:
        model = Model()
        batcher = Batcher(model.answer, BatchLimits())
        tasks = [
            at(0, batcher, 0),
            *(at(0.1 + t, batcher, i) for t, i in ((0.1, 1), (0.2, BAD), (0.3, 3))),
        ]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[:2] == [0, 2]
        assert results[3] == 6
        assert isinstance(results[2], ArithmeticError)
        assert [items for _, items in model.calls] == [[0], [1, BAD, 3], [1], [BAD], [3]]
        await batcher.close(1.0)

    simulate(scenario)


@pytest.mark.parametrize("surplus", [-1, 1])
def test_a_wrong_number_of_answers_is_never_dealt_out(surplus: int) -> None:
    async def miscount(items: list[int]) -> Sequence[int]:
        if len(items) == 1 and items != [5]:
            return items
        return [99] * (len(items) + surplus)

    async def scenario() -> None:
        batcher = Batcher(miscount, BatchLimits())
        results = await asyncio.gather(
            *(batcher.submit(item) for item in (4, 5, 6)), return_exceptions=True
        )
        assert results[0] == 4
        assert results[2] == 6
        assert isinstance(results[1], RuntimeError)
        await batcher.close(1.0)

    simulate(scenario)


def test_a_full_line_refuses_at_once_and_tells_when_to_return() -> None:
    async def scenario() -> None:
        batcher = Batcher(Model(4.0).answer, BatchLimits(max_items=2, max_waiting=3))
        await asyncio.gather(batcher.submit(1), batcher.submit(2))
        tasks = [at(item / 100, batcher, item) for item in (0, 1, 2, 3)]
        await asyncio.sleep(0.1)  # one runs, three wait
        with pytest.raises(ServiceBusyError, match="3 images are in line") as refusal:
            await batcher.submit(9)
        assert now() == 4.1
        assert refusal.value.retry_after_seconds == pytest.approx(4 * 4.0 / 2)
        assert await asyncio.gather(*tasks) == [0, 2, 4, 6]
        await batcher.close(1.0)

    simulate(scenario)


def test_an_item_whose_caller_has_left_is_not_computed() -> None:
    async def scenario() -> None:
        model = Model()
        batcher = Batcher(model.answer, BatchLimits())
        first = at(0, batcher, 1)
        await asyncio.sleep(0.2)
        hurried = asyncio.wait_for(batcher.submit(2), 0.5)
        patient = at(0.1, batcher, 3)
        with pytest.raises(TimeoutError):
            await hurried
        assert now() == 0.7
        assert batcher.num_waiting == 1
        assert await first == 2
        assert await patient == 6
        assert [items for _, items in model.calls] == [[1], [3]]
        await batcher.close(1.0)

    simulate(scenario)


def test_closing_answers_what_is_inside_and_takes_nothing_more() -> None:
    async def scenario() -> None:
        batcher = Batcher(Model().answer, BatchLimits(max_items=2, max_wait_seconds=9.0))
        tasks = [at(0, batcher, item) for item in range(5)]
        await asyncio.sleep(0.1)
        closing = asyncio.ensure_future(batcher.close(10.0))
        await asyncio.sleep(0)
        with pytest.raises(ServiceStoppingError):
            await batcher.submit(9)
        await closing
        assert now() == 3.0
        assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8]

    simulate(scenario)


def test_what_is_inside_when_the_grace_ends_is_told_so() -> None:
    async def scenario() -> None:
        batcher = Batcher(Model().answer, BatchLimits(max_items=1))
        tasks = [at(0, batcher, item) for item in range(3)]
        await asyncio.sleep(0.1)
        await batcher.close(1.5)
        assert now() == 1.6
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[0] == 0
        assert [type(result) for result in results[1:]] == [ServiceStoppingError] * 2

    simulate(scenario)


def test_reports_say_how_long_each_item_waited_and_its_batch_took() -> None:
    async def scenario() -> None:
        reports: list[BatchReport] = []
        batcher = Batcher(Model().answer, BatchLimits(), reports.append)
        await asyncio.gather(at(0, batcher, 1), at(0.25, batcher, 2), at(0.5, batcher, 3))
        assert [report.seconds for report in reports] == [1.0, 1.0]
        assert reports[0].waited == (0.0,)
        assert reports[1].waited == pytest.approx((0.75, 0.5))
        assert batcher.num_waiting == 0
        await batcher.close(1.0)

    simulate(scenario)


@pytest.mark.parametrize(
    "limits", [{"max_items": 0}, {"max_waiting": 0}, {"max_wait_seconds": -0.1}]
)
def test_bounds_that_nothing_fits_into_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        BatchLimits(**limits)


@dataclass(frozen=True)
class Request:
    arrives: float
    bad: bool
    leaves_after: float | None


# Sums of eighths are exact, so that no two moments differ by a rounding error.
EIGHTHS = st.integers(0, 48).map(lambda eighths: eighths / 8)
REQUESTS = st.lists(
    st.builds(
        Request,
        arrives=EIGHTHS,
        bad=st.booleans(),
        leaves_after=st.none() | EIGHTHS,
    ),
    max_size=30,
)
LIMITS = st.builds(
    BatchLimits,
    max_items=st.integers(1, 5),
    max_wait_seconds=EIGHTHS,
    max_waiting=st.integers(1, 10),
)


def possible_ends(
    request: Request, num_requests: int, limits: BatchLimits, closes: float | None
) -> dict[type, bool]:
    return {
        int: not request.bad,
        ArithmeticError: request.bad,
        asyncio.CancelledError: request.leaves_after is not None,
        ServiceStoppingError: closes is not None,
        ServiceBusyError: num_requests > limits.max_waiting,
    }


@settings(deadline=None)
@given(requests=REQUESTS, limits=LIMITS, closes=st.none() | EIGHTHS, grace=EIGHTHS)
def test_every_request_ends_exactly_once_and_as_it_deserves(
    requests: list[Request], limits: BatchLimits, closes: float | None, grace: float
) -> None:
    async def scenario() -> None:
        model = Model()
        batcher = Batcher(model.answer, limits)

        async def send(number: int, request: Request) -> int:
            await asyncio.sleep(request.arrives)
            return await batcher.submit(BAD - number if request.bad else number)

        async def leave(task: "asyncio.Task[int]", request: Request) -> None:
            assert request.leaves_after is not None
            await asyncio.sleep(request.arrives + request.leaves_after)
            task.cancel()

        tasks = [asyncio.ensure_future(send(n, request)) for n, request in enumerate(requests)]
        leaving = [
            asyncio.ensure_future(leave(task, request))
            for task, request in zip(tasks, requests, strict=True)
            if request.leaves_after is not None
        ]
        if closes is not None:
            await asyncio.sleep(closes)
            await batcher.close(grace)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*leaving)
        await batcher.close(0.0)

        for number, (request, result) in enumerate(zip(requests, results, strict=True)):
            assert possible_ends(request, len(requests), limits, closes)[type(result)]
            assert not isinstance(result, int) or result == 2 * number
        assert all(len(items) <= limits.max_items for _, items in model.calls)
        assert batcher.num_waiting == 0

    simulate(scenario)
