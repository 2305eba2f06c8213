"""Settings reach what they are for."""

import asyncio
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.domain.errors import GoldenExampleError
from app.inference.batcher import BatchLimits
from app.main import create_app
from app.settings import Settings
from tests.app.api.hanging import hanging_service


def test_models_are_tested_again_at_the_interval(
    tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(models_dir=tiny_models, self_test_interval_seconds=0.05)
    with TestClient(create_app(settings)) as client:
        model = client.app.state.services.fleet.registry.default  # type: ignore[attr-defined]
        working = model.engine.predict

        def broken(_images: object) -> None:
            raise GoldenExampleError("broken")

        for predict, status in ((broken, 503), (working, 200)):
            monkeypatch.setattr(model.engine, "predict", predict)
            give_up = time.monotonic() + 30
            while client.get("/health/ready").status_code != status:
                assert time.monotonic() < give_up


@pytest.mark.parametrize("threads", [1, 2])
def test_the_model_has_so_many_threads(tiny_models: Path, threads: int) -> None:
    settings = Settings(models_dir=tiny_models, runtime="openvino", model_threads=threads)
    with TestClient(create_app(settings)) as client:
        model = client.app.state.services.fleet.registry.default  # type: ignore[attr-defined]
        assert model.engine._model.get_property("INFERENCE_NUM_THREADS") == threads


def test_the_line_has_the_bounds_of_the_settings(tiny_models: Path) -> None:
    settings = Settings(
        models_dir=tiny_models,
        max_batch_size=3,
        max_batch_wait_seconds=0.25,
        max_predictions_in_progress=5,
        max_batches_in_progress=2,
    )
    with TestClient(create_app(settings)) as client:
        fleet = client.app.state.services.fleet  # type: ignore[attr-defined]
        # Whoever was let in finds a place in line: 5, and 2 batches of 3 at a time.
        assert fleet.limits == BatchLimits(max_items=3, max_wait_seconds=0.25, max_waiting=11)


def test_what_is_not_answered_within_the_grace_time_is_told_so(
    tiny_models: Path, lesion_png: bytes
) -> None:
    async def scenario() -> None:
        settings = Settings(models_dir=tiny_models, shutdown_grace_seconds=0.2)
        async with hanging_service(settings) as (_, http, engine):
            held = asyncio.create_task(http.post("/predict", files={"image": lesion_png}))
            await asyncio.to_thread(engine.started.wait, 30)
        answer = await held
        engine.release.set()
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:dermhybrid:problem:service-stopping"

    asyncio.run(scenario())
