"""Models are replaced as a whole, under load, or not at all."""

import asyncio
import re
import shutil
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.domain.errors import (
    ArtifactDigestError,
    ModelFaultError,
    ModelNotFoundError,
    ServiceStoppingError,
)
from app.domain.golden import Outputs
from app.domain.images import RgbImage
from app.inference.batcher import BatchLimits
from app.inference.fleet import Fleet
from app.inference.registry import load_registry
from app.inference.tensorflow_engine import TensorFlowEngine
from app.telemetry import Metrics
from tests.conftest import PLAIN_MODEL
from tests.tiny_artifact import write_tiny_artifact

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3), np.uint8)
LIMITS = BatchLimits(max_items=3)


class Engine(TensorFlowEngine):
    """TensorFlow's, which notes its batches and can be made to answer something else."""

    made: list["Engine"] = []  # noqa: RUF012

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.batch_sizes: list[int] = []
        self.factor = 1.0
        self.made.append(self)

    def predict(self, images: RgbImage) -> Outputs:
        self.batch_sizes.append(len(images))
        outputs = super().predict(images)
        return {name: values * np.float32(self.factor) for name, values in outputs.items()}


def with_fleet(models: Path, scenario: Callable[[Fleet], Coroutine[Any, Any, None]]) -> Metrics:
    metrics = Metrics()

    async def run() -> None:
        Engine.made.clear()
        fleet = Fleet(partial(load_registry, models, PLAIN_MODEL, Engine), LIMITS, metrics)
        await fleet.reload()
        await scenario(fleet)
        await fleet.close(5.0)

    asyncio.run(run())
    return metrics


def test_every_batch_size_has_run_before_the_first_request(tiny_models: Path) -> None:
    async def scenario(_fleet: Fleet) -> None:
        for engine in Engine.made:
            assert set(engine.batch_sizes) == {1, 2, 3}

    with_fleet(tiny_models, scenario)


def test_an_answer_does_not_depend_on_its_batch(tiny_models: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        model = fleet.get(None)
        together = await asyncio.gather(*(model.predict(image) for image in IMAGES))
        assert Engine.made[0].batch_sizes[-2:] != [1, 1]
        for image, answer in zip(IMAGES, together, strict=True):
            alone = model.loaded.predict(image)
            np.testing.assert_allclose(answer.probabilities, alone.probabilities, atol=1e-6)
            np.testing.assert_allclose(answer.heatmap.values, alone.heatmap.values, atol=1e-6)
        assert len({answer.confidence for answer in together}) == len(IMAGES)

    with_fleet(tiny_models, scenario)


def test_reload_serves_what_was_added_and_keeps_what_is_the_same(own_models: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        before = fleet.get(f"{PLAIN_MODEL}@2")
        num_engines = len(Engine.made)
        write_tiny_artifact(own_models, PLAIN_MODEL, version=3, seed=9)
        await fleet.reload()
        assert fleet.get(None).manifest.version == 3
        assert fleet.get(f"{PLAIN_MODEL}@2") is before
        assert len(Engine.made) == num_engines + 1
        assert set(Engine.made[-1].batch_sizes) == {1, 2, 3}

    metrics = with_fleet(own_models, scenario).render().decode()
    labels = f'model="{PLAIN_MODEL}",runtime="tensorflow",version="3"'
    assert re.search(rf'dermhybrid_model_info{{digest="[0-9a-f]+",{labels}}} 1\.0', metrics)
    assert f'self_test_passed{{model="{PLAIN_MODEL}",version="3"}} 1.0' in metrics


def test_a_model_that_leaves_answers_whoever_already_uses_it(own_models: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        old = fleet.get(f"{PLAIN_MODEL}@2")
        with old.in_use():
            shutil.rmtree(own_models / PLAIN_MODEL / "2")
            await fleet.reload()
            with pytest.raises(ModelNotFoundError):
                fleet.get(f"{PLAIN_MODEL}@2")
            assert fleet.get(None).manifest.version == 1
            assert (await old.predict(IMAGES[0])).confidence > 0
        await asyncio.sleep(0.1)
        with pytest.raises(ServiceStoppingError):
            await old.predict(IMAGES[0])

    with_fleet(own_models, scenario)


def test_a_damaged_model_changes_nothing(own_models: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        before = fleet.registry
        write_tiny_artifact(own_models, PLAIN_MODEL, version=3, seed=9)
        damaged = own_models / PLAIN_MODEL / "3" / "saved_model.pb"
        damaged.write_bytes(damaged.read_bytes() + b"\0")
        with pytest.raises(ArtifactDigestError, match=r"3/saved_model\.pb"):
            await fleet.reload()
        assert fleet.registry is before
        assert (await fleet.get(None).predict(IMAGES[0])).confidence > 0

    with_fleet(own_models, scenario)


def test_reload_under_load_fails_no_request(own_models: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        done = asyncio.Event()

        async def caller() -> int:
            answers = 0
            while not done.is_set():
                model = fleet.get(None)
                with model.in_use():
                    await asyncio.sleep(0)
                    await model.predict(IMAGES[0])
                answers += 1
            return answers

        callers = [asyncio.create_task(caller()) for _ in range(6)]
        for version in (3, 4):
            write_tiny_artifact(own_models, PLAIN_MODEL, version=version, seed=version)
            await fleet.reload()
            shutil.rmtree(own_models / PLAIN_MODEL / str(version - 1))
        done.set()
        assert min(await asyncio.gather(*callers)) > 0
        assert fleet.get(None).manifest.version == 4

    with_fleet(own_models, scenario)


def test_a_model_that_drifts_does_not_answer_until_it_passes_again(tiny_models: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        model = fleet.get(f"{PLAIN_MODEL}@2")
        engine = model.loaded.engine
        assert isinstance(engine, Engine)
        for factor in (0.999, float("nan")):
            engine.factor = factor
            await fleet.self_test()
            with pytest.raises(ModelFaultError, match=f"{PLAIN_MODEL}@2 failed its self-test"):
                fleet.check()
            with pytest.raises(ModelFaultError):
                await model.predict(IMAGES[0])
        assert (await fleet.get(f"{PLAIN_MODEL}@1").predict(IMAGES[0])).confidence > 0
        assert fleet._metrics.self_test.labels(PLAIN_MODEL, "2")._value.get() == 0
        engine.factor = 1.0
        await fleet.self_test()
        fleet.check()
        assert (await model.predict(IMAGES[0])).confidence > 0
        assert fleet._metrics.self_test.labels(PLAIN_MODEL, "2")._value.get() == 1

    with_fleet(tiny_models, scenario)


def test_values_that_are_not_finite_are_no_answer(tiny_models: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        model = fleet.get(None)
        assert isinstance(model.loaded.engine, Engine)
        model.loaded.engine.factor = float("nan")
        with pytest.raises(ModelFaultError, match="not finite"):
            await model.predict(IMAGES[0])

    with_fleet(tiny_models, scenario)
