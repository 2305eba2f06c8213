"""Settings reach what they are for."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.api import answering
from app.domain.errors import GoldenExampleError
from app.inference.batcher import BatchLimits
from app.interop.uploads import read_any_upload
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


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priorities of their own")
def test_models_and_pictures_work_behind_the_event_loop(
    tiny_models: Path, lesion_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def note(function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            return function(*arguments)

        return noted

    monkeypatch.setattr(answering, "read_any_upload", note(read_any_upload))
    with TestClient(create_app(Settings(models_dir=tiny_models))) as client:
        model = client.app.state.services.fleet.registry.default  # type: ignore[attr-defined]
        monkeypatch.setattr(model.engine, "predict", note(model.engine.predict))
        assert client.post("/predict", files={"image": lesion_png}).status_code == 200
    assert found == [os.getpriority(os.PRIO_PROCESS, 0) + 5] * 2


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
