"""`POST /predict/batch`: each image has its own fate, and its line comes when it is ready."""

import asyncio
import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response

from app.api import answering
from app.domain.heatmaps import encode_png
from app.interop.uploads import read_any_upload
from app.main import create_app
from app.settings import Settings
from tests.app.api.hanging import hanging_service
from tests.conftest import ATTENTION_MODEL, PLAIN_MODEL
from training.synthetic import draw_lesion


def files(*images: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", ("lesion.png", image)) for image in images]


def lines(answer: Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.text.endswith("\n")
    found = [json.loads(line) for line in answer.text.splitlines()]
    return sorted(found, key=lambda line: line["index"])


def counted(client: TestClient) -> Counter[str]:
    """Images of batches so far, by the status of their lines."""
    assert isinstance(client.app, FastAPI)
    (family,) = client.app.state.services.metrics.batch_images.collect()
    return Counter(
        {
            sample.labels["status"]: int(sample.value)
            for sample in family.samples
            if sample.name.endswith("_total")
        }
    )


def test_each_image_is_answered_as_predict_does(client: TestClient) -> None:
    images = [encode_png(draw_lesion(seed, 2, 160, 120 + seed)) for seed in range(20)]
    found = lines(client.post("/predict/batch", files=files(*images)))
    assert [line["index"] for line in found] == list(range(20))
    for line, image in zip(found, images, strict=True):
        alone = client.post("/predict", files={"image": image}).json()
        assert line["status"] == 200
        assert "problem" not in line
        answer = line["answer"]
        assert answer["image"] == alone["image"]
        assert answer["heatmap"]["overlay"] == alone["heatmap"]["overlay"]
        assert answer["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-6)
        assert "Not a medical device" in answer["notice"]


def test_a_bad_image_fails_alone(client: TestClient, lesion_png: bytes) -> None:
    tiny = encode_png(draw_lesion(1, 2, 50, 50))
    uploads = files(lesion_png, b"Dear colleague", tiny, b"", lesion_png)
    before = counted(client)
    answer = client.post(
        "/predict/batch", files=uploads, params={"model": ATTENTION_MODEL, "heatmap": "false"}
    )
    found = lines(answer)
    assert [line["status"] for line in found] == [200, 415, 422, 422, 200]
    assert found[0]["answer"]["model"]["name"] == ATTENTION_MODEL
    assert found[0]["answer"]["heatmap"] is None
    kinds = [line["problem"]["type"].rsplit(":", 1)[1] for line in found[1:4]]
    assert kinds == ["image-format", "image-too-small", "image-empty"]
    assert found[1]["problem"]["request_id"] == answer.headers["x-request-id"]
    assert counted(client) - before == Counter({"200": 2, "422": 2, "415": 1})


def test_a_batchs_heatmaps_are_of_the_class_and_method_asked_for(
    client: TestClient, lesion_png: bytes
) -> None:
    params = {"model": ATTENTION_MODEL, "heatmap_class": "mel"}
    answer = client.post("/predict/batch", files=files(lesion_png, lesion_png), params=params)
    alone = client.post("/predict", files={"image": lesion_png}, params=params).json()["heatmap"]
    assert (alone["method"], alone["explained_class"]) == ("grad-cam", "mel")
    assert [line["answer"]["heatmap"]["overlay"] for line in lines(answer)] == [
        alone["overlay"]
    ] * 2
    assert {line["answer"]["heatmap"]["explained_class"] for line in lines(answer)} == {"mel"}


def test_lines_come_in_order_of_completion_and_time_is_counted_for_each_image(
    tiny_models: Path, lesion_png: bytes
) -> None:
    async def scenario() -> None:
        async with hanging_service(Settings(models_dir=tiny_models)) as (_, http, engine):
            answer = await http.post(
                "/predict/batch",
                files=files(lesion_png, b"no image"),
                headers={"x-request-timeout": "0.5"},
            )
            engine.release.set()
            in_order = [json.loads(line) for line in answer.text.splitlines()]
            assert [(line["index"], line["status"]) for line in in_order] == [(1, 415), (0, 504)]
            assert "0.5 s" in in_order[1]["problem"]["detail"]

    asyncio.run(scenario())


def test_pictures_whose_time_has_passed_keep_their_threads(
    tiny_models: Path, lesion_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(models_dir=tiny_models, image_workers=2)
    at_once, most, lock = 0, 0, threading.Lock()

    def slow_read(*arguments: Any) -> Any:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(2.5)
        with lock:
            at_once -= 1
        return read_any_upload(*arguments)

    monkeypatch.setattr(answering, "read_any_upload", slow_read)

    async def scenario() -> None:
        async with hanging_service(settings) as (_, http, engine):
            engine.release.set()
            answer = await http.post(
                "/predict/batch",
                files=files(*[lesion_png] * 8),
                headers={"x-request-timeout": "2"},
            )
            assert [line["status"] for line in lines(answer)] == [504] * 8

    asyncio.run(scenario())
    assert most <= 2


def test_batches_have_a_door_of_their_own(tiny_models: Path, lesion_png: bytes) -> None:
    settings = Settings(models_dir=tiny_models, max_batches_in_progress=1, max_batch_size=2)

    async def scenario() -> None:
        async with hanging_service(settings) as (app, http, engine):
            upload = files(*[lesion_png] * 5)
            held = asyncio.create_task(http.post("/predict/batch", files=upload))
            await asyncio.to_thread(engine.started.wait, 30)
            refused = await http.post("/predict/batch", files=upload)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
            assert app.state.services.num_in_progress == 1
            single = asyncio.create_task(http.post("/predict", files=files(lesion_png)))
            await asyncio.sleep(0.1)
            engine.release.set()
            assert [line["status"] for line in lines(await held)] == [200] * 5
            assert (await single).status_code == 200
            assert max(engine.batch_sizes) <= 2
            assert app.state.services.num_in_progress == 0

    asyncio.run(scenario())


FORM = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nx\r\n--x--\r\n'
FORM_TYPE = "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"content": b"x", "headers": {"content-type": "image/png"}}, 415),
        ({"data": {"image": "text"}}, 415),
        ({"content": FORM, "headers": {"content-type": FORM_TYPE + "; charset=undefined"}}, 415),
        ({"files": [("picture", ("a.png", b"x"))]}, 422),
        ({"data": {"image": "text"}, "files": files(b"x")}, 422),
        ({"files": files(*[b"x"] * 65)}, 400),
        ({"files": files(b"x"), "params": {"model": "unknown"}}, 404),
        ({"files": files(b"x"), "params": {"heatmap": "perhaps"}}, 422),
    ],
)
def test_what_is_no_batch_is_refused_as_a_whole(
    client: TestClient, form: dict[str, Any], status: int
) -> None:
    answer = client.post("/predict/batch", **form)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_batch_may_be_longer_than_an_image_and_is_bounded_too(tiny_models: Path) -> None:
    settings = Settings(
        models_dir=tiny_models,
        default_model=PLAIN_MODEL,
        max_image_bytes=100_000,
        max_batch_bytes=300_000,
    )
    image = encode_png(draw_lesion(1, 2, 160, 120))
    padded = image + b"\0" * (99_000 - len(image))
    with TestClient(create_app(settings)) as client:
        found = lines(client.post("/predict/batch", files=files(padded, padded, image)))
        assert [line["status"] for line in found] == [200] * 3
        refused = client.post("/predict/batch", files=files(*[padded] * 4))
        assert refused.status_code == 413
        assert "300,000 bytes" in refused.json()["detail"]
        over = lines(client.post("/predict/batch", files=files(padded + padded, image)))
        assert [line["status"] for line in over] == [413, 200]


def test_openapi_describes_the_lines(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/predict/batch"]["post"]
    schema = operation["responses"]["200"]["content"]["application/x-ndjson"]["schema"]
    assert schema == {"$ref": "#/components/schemas/BatchLine"}
    assert "422" in operation["responses"]
