"""Models are replaced as a whole, under load, or not at all."""

import asyncio
import re
import shutil
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.domain.errors import (
    ArtifactDigestError,
    ArtifactError,
    ModelFaultError,
    ModelNotFoundError,
    ServiceStoppingError,
)
from app.domain.golden import Outputs
from app.domain.images import RgbImage
from app.inference.batcher import BatchLimits
from app.inference.explain import explain
from app.inference.fleet import Fleet
from app.inference.registry import load_registry
from app.inference.served import ServedModel
from app.inference.tensorflow_engine import TensorFlowEngine
from app.metrics import Metrics
from app.tracing import Tracing
from tests.conftest import ATTENTION_MODEL, PLAIN_MODEL
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


def with_fleet(
    models: Path,
    scenario: Callable[[Fleet], Coroutine[Any, Any, None]],
    shadow_name: str | None = None,
) -> Metrics:
    metrics = Metrics()

    async def run() -> None:
        Engine.made.clear()
        load = partial(load_registry, models, PLAIN_MODEL, Engine, shadow_name=shadow_name)
        fleet = Fleet(load, LIMITS, metrics, Tracing())
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
            alone = model.loaded.predict_batch(image[None])[0]
            np.testing.assert_allclose(answer.probabilities, alone.probabilities, atol=1e-6)
            np.testing.assert_allclose(explain(answer).values, explain(alone).values, atol=1e-6)
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
    labels = f'model="{PLAIN_MODEL}",role="serving",runtime="tensorflow",version="3"'
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


@pytest.mark.parametrize("leaves", ["2", "1"], ids=["at work", "in line"])
def test_nothing_is_published_of_a_model_that_leaves_during_a_self_test(
    own_models: Path, monkeypatch: pytest.MonkeyPatch, leaves: str
) -> None:
    tested, reloaded = threading.Event(), threading.Event()

    async def scenario(fleet: Fleet) -> None:
        models = {version: fleet.get(f"{PLAIN_MODEL}@{version}") for version in ("2", "1")}

        def fail(_images: RgbImage) -> Outputs:
            tested.set()
            assert reloaded.wait(60)
            raise RuntimeError("broken")

        monkeypatch.setattr(models["2"].loaded.drawn.engine, "predict", fail)
        testing = asyncio.create_task(fleet.self_test())
        assert await asyncio.to_thread(tested.wait, 60)
        shutil.rmtree(own_models / PLAIN_MODEL / leaves)
        engine = models["1"].loaded.drawn.engine
        assert isinstance(engine, Engine)
        calls = len(engine.batch_sizes)
        reloading = asyncio.create_task(fleet.reload())
        while f"{PLAIN_MODEL}@{leaves}" in fleet.registry.names():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        reloaded.set()
        await asyncio.gather(testing, reloading)
        assert len(engine.batch_sizes) - calls == (2 if leaves == "2" else 0)
        assert fleet.serves(models["1"].loaded) is (leaves == "2")

    text = with_fleet(own_models, scenario).render().decode()
    stays = {"2": "1", "1": "2"}[leaves]
    for name in ("passed", "timestamp_seconds"):
        series = f'dermhybrid_self_test_{name}{{model="{PLAIN_MODEL}",version='
        assert f'{series}"{stays}"}}' in text
        assert f'{series}"{leaves}"}}' not in text


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


def test_a_machine_without_memory_is_no_fault_of_a_model(
    tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starve(_images: RgbImage) -> Outputs:
        raise MemoryError

    async def scenario(fleet: Fleet) -> None:
        model = fleet.get(f"{PLAIN_MODEL}@2")
        with monkeypatch.context() as patch:
            patch.setattr(model.loaded.drawn.engine, "predict", starve)
            fleet._metrics.self_tested_at.clear()
            await fleet.self_test()
        tested = f'self_test_timestamp_seconds{{model="{PLAIN_MODEL}",version="2"}} 0.0'
        assert tested in fleet._metrics.render().decode()  # an alert on its age sees that
        fleet.check()
        assert (await model.predict(IMAGES[0])).confidence > 0

    with_fleet(tiny_models, scenario)


def test_a_reload_that_fails_leaves_a_trace_though_nobody_waits(
    tiny_models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(fleet: Fleet) -> None:
        def fail(_known: object) -> None:
            raise RuntimeError("no device left")

        monkeypatch.setattr(fleet, "_load", fail)
        with pytest.raises(RuntimeError):
            await fleet.reload()
        assert (await fleet.get(None).predict(IMAGES[0])).confidence > 0

    with_fleet(tiny_models, scenario)
    (record,) = [record for record in caplog.records if record.message == "reload failed"]
    assert vars(record)["reason"] == "RuntimeError"


def test_a_model_that_drifts_does_not_answer_until_it_passes_again(tiny_models: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        model = fleet.get(f"{PLAIN_MODEL}@2")
        engine = model.loaded.drawn.engine
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
        engine = model.loaded.drawn.engine
        assert isinstance(engine, Engine)
        engine.factor = float("nan")
        with pytest.raises(ModelFaultError, match="not finite"):
            await model.predict(IMAGES[0])

    with_fleet(tiny_models, scenario)


SHADOW = f"{PLAIN_MODEL}@2"


async def answer_with_shadow(fleet: Fleet, image: RgbImage, name: str | None = None) -> None:
    model = fleet.get(name)
    fleet.shadow(model, image, await model.predict(image))
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "shadow"))


def shadow_samples(metrics: Metrics) -> dict[str, float]:
    """Every sample of the shadow's metrics that is not zero, by name and labels but the model's."""
    text = metrics.render().decode()
    found = re.findall(r"^(dermhybrid_shadow_\w+_total)\{(.*)\} (.*)$", text, re.MULTILINE)
    samples = {}
    for name, labels, value in found:
        assert f'model="{PLAIN_MODEL}"' in labels
        assert 'version="2"' in labels
        own = re.findall(r'(?:reason|served_class|shadow_class)="(\w+)"', labels)
        samples[" ".join([name.removeprefix("dermhybrid_shadow_"), *own])] = float(value)
    return samples


def test_the_shadow_scores_what_the_default_answers_and_answers_nobody(tiny_models: Path) -> None:
    expected: dict[str, float] = {}

    async def scenario(fleet: Fleet) -> None:
        assert fleet.get(None).manifest.version == fleet.get(PLAIN_MODEL).manifest.version == 1
        with pytest.raises(ModelNotFoundError):
            fleet.get(SHADOW)
        assert SHADOW not in fleet.registry.names()
        shadow = fleet.registry.shadow
        assert shadow is not None
        for image in IMAGES:
            await answer_with_shadow(fleet, image)
            classes = [
                m.predict_batch(image[None])[0].predicted.label
                for m in (fleet.get(None).loaded, shadow)
            ]
            key = " ".join(["predictions_total", *classes])
            expected[key] = expected.get(key, 0.0) + 1.0
        await answer_with_shadow(fleet, IMAGES[0], ATTENTION_MODEL)

    metrics = with_fleet(tiny_models, scenario, SHADOW)
    assert shadow_samples(metrics) == expected
    text = metrics.render().decode()
    assert f'shadow_probability_change_count{{model="{PLAIN_MODEL}",version="2"}} 5.0' in text
    assert re.search(r'model_info\{.*role="shadow".*version="2"\} 1', text)


def test_the_shadow_gives_way_to_images_that_somebody_waits_for(tiny_models: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        model = fleet.get(None)
        answer = await model.predict(IMAGES[0])
        waiting = [asyncio.create_task(model.predict(image)) for image in IMAGES]
        await asyncio.sleep(0)
        assert isinstance(model, ServedModel)
        assert model.num_waiting
        fleet.shadow(model, IMAGES[0], answer)
        await asyncio.gather(*waiting)

    assert shadow_samples(with_fleet(tiny_models, scenario, SHADOW)) == {"missed_total busy": 1.0}


def test_a_shadow_that_fails_harms_nobody(tiny_models: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        shadow = fleet.registry.shadow
        assert shadow is not None
        shadow.engine.factor = 0.5  # type: ignore[attr-defined]
        await fleet.self_test()
        fleet.check()
        await answer_with_shadow(fleet, IMAGES[0])

    metrics = with_fleet(tiny_models, scenario, SHADOW)
    assert shadow_samples(metrics) == {"missed_total error": 1.0}
    passed = f'self_test_passed{{model="{PLAIN_MODEL}",version="2"}} 0.0'
    assert passed in metrics.render().decode()


def test_without_a_shadow_nothing_is_scored_twice(tiny_models: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        await answer_with_shadow(fleet, IMAGES[0])

    assert shadow_samples(with_fleet(tiny_models, scenario)) == {}


@pytest.mark.parametrize("name", [f"{PLAIN_MODEL}@7", "another@1"])
def test_a_shadow_that_is_not_there_is_refused(tiny_models: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match=f"shadow {name} is not among the models"):
        load_registry(tiny_models, PLAIN_MODEL, Engine, shadow_name=name)


def test_a_shadow_alone_serves_nobody(tmp_path: Path) -> None:
    write_tiny_artifact(tmp_path, "tiny")
    with pytest.raises(ArtifactError, match="no model to serve"):
        load_registry(tmp_path, None, Engine, shadow_name="tiny@1")
