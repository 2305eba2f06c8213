"""What callers get when there are more of them than the model can answer, or too few seconds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import admission
from app.api.admission import SLOW_BYTES_PER_SECOND, Admission
from app.api.errors import PROBLEM_KEY
from app.api.limits import PIECE_BYTES, Admit
from app.domain.errors import ServiceBusyError
from app.settings import Settings
from tests.app.api.hanging import HangingEngine, hanging_service


async def until(engine: HangingEngine) -> None:
    assert await asyncio.to_thread(engine.started.wait, 30)


async def in_line(app: FastAPI, num_images: int) -> None:
    model = app.state.services.fleet.get(None)
    for _ in range(3000):
        if model.num_waiting == num_images:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{model.num_waiting} images are in line, not {num_images}")


def test_the_model_does_not_block_the_event_loop(tiny_models: Path, lesion_png: bytes) -> None:
    async def scenario() -> None:
        async with hanging_service(Settings(models_dir=tiny_models)) as (_, http, engine):
            answer = asyncio.create_task(http.post("/predict", files={"image": lesion_png}))
            await until(engine)
            assert (await http.get("/health/live")).status_code == 200
            assert (await http.get("/health/ready")).status_code == 200
            metrics = (await http.get("/metrics")).text
            assert "dermhybrid_http_requests_in_flight 2.0" in metrics
            assert not answer.done()
            engine.release.set()
            assert (await answer).status_code == 200

    asyncio.run(scenario())


def test_more_predictions_than_places_are_refused_at_once(
    tiny_models: Path, lesion_png: bytes
) -> None:
    settings = Settings(models_dir=tiny_models, max_predictions_in_progress=2)

    async def scenario() -> None:
        async with hanging_service(settings) as (_, http, engine):
            files = {"image": lesion_png}
            held = [asyncio.create_task(http.post("/predict", files=files)) for _ in range(2)]
            await until(engine)
            refused = await http.post("/predict", files=files)
            assert refused.status_code == 503
            assert refused.json()["type"] == "urn:dermhybrid:problem:service-busy"
            assert refused.headers["retry-after"] == "1"
            await asyncio.sleep(1.2)
            engine.release.set()
            assert [(await answer).status_code for answer in held] == [200, 200]
            engine.started.clear()
            engine.release.clear()
            held = [asyncio.create_task(http.post("/predict", files=files)) for _ in range(2)]
            await until(engine)
            refused = await http.post("/predict", files=files)
            assert int(refused.headers["retry-after"]) >= 2  # the first two took 1.2 s
            metrics = (await http.get("/metrics")).text
            counted = 'http_requests_total{method="POST",route="/predict",status="503"} 2.0'
            assert counted in metrics
            engine.release.set()
            assert [(await answer).status_code for answer in held] == [200, 200]

    asyncio.run(scenario())


def test_in_a_full_house_the_slowest_body_makes_room(tiny_models: Path, lesion_png: bytes) -> None:
    settings = Settings(models_dir=tiny_models, max_predictions_in_progress=2)
    png = {"Content-Type": "image/png"}

    async def scenario() -> None:
        async with hanging_service(settings) as (_, http, engine):
            engine.release.set()
            go_on = asyncio.Event()

            async def slowly(num_bytes: int) -> AsyncIterator[bytes]:
                yield lesion_png[:num_bytes]
                await go_on.wait()
                yield lesion_png[num_bytes:]

            slow, slowest = (
                asyncio.create_task(http.post("/predict", content=slowly(n), headers=png))
                for n in (100, 10)
            )
            await asyncio.sleep(1.2)
            answered = await http.post("/predict", content=lesion_png, headers=png)
            assert answered.status_code == 200
            refused = await slowest
            assert refused.status_code == 408
            assert refused.json()["type"] == "urn:dermhybrid:problem:body-too-slow"
            assert refused.json()["request_id"] == refused.headers["x-request-id"]
            go_on.set()  # a slow one that is in nobody's way is answered
            assert (await slow).status_code == 200
            metrics = (await http.get("/metrics")).text
            assert 'http_requests_total{method="POST",route="/predict",status="408"} 1.0' in metrics
            assert 'problems_total{problem="body-too-slow",route="/predict"} 1.0' in metrics

    asyncio.run(scenario())


def test_only_a_body_that_comes_slowly_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("app.api.admission.monotonic", lambda: now)

    async def scenario() -> None:
        nonlocal now
        door = Admission(4)
        with ExitStack() as stack:
            without_body, whole, fast, slow = (stack.enter_context(door.enter()) for _ in range(4))
            for place in (whole, fast, slow):
                place.begin_body()
            now = 0.9
            with pytest.raises(ServiceBusyError):  # too early to tell
                stack.enter_context(door.enter())
            now = 2.0
            fast.receive(2 * SLOW_BYTES_PER_SECOND)
            slow.receive(2 * SLOW_BYTES_PER_SECOND - 2)
            whole.end_body()
            newcomer = stack.enter_context(door.enter())
            assert door.num_inside == 4
            assert slow.rate == SLOW_BYTES_PER_SECOND - 1
            assert [p.rate for p in (without_body, whole, fast, newcomer)] == [None] * 4
            assert slow.scope.cancel_called
            with pytest.raises(ServiceBusyError):
                stack.enter_context(door.enter())
        assert door.num_inside == 0

    asyncio.run(scenario())


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _answering(body: bytes) -> ASGIApp:
    async def answer(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})

    return answer


SCOPE: Scope = {"type": "http", "method": "POST", "path": "/predict"}


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 7])
def test_answers_are_given_in_pieces(size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    door = Admission(1)
    app = Admit(_answering(body[:size]), {"/predict": door})
    asyncio.run(app(dict(SCOPE), _nothing, send))
    assert sent[0]["type"] == "http.response.start"
    assert b"".join(message["body"] for message in sent[1:]) == body[:size] + b"end"
    assert max(len(message["body"]) for message in sent[1:]) <= PIECE_BYTES
    assert [message.get("more_body", False) for message in sent[1:]] == [True] * (len(sent) - 2) + [
        False
    ]
    assert door.num_inside == 0


@pytest.mark.parametrize("takes", [True, False])
def test_only_an_answer_that_is_taken_slowly_makes_room(
    monkeypatch: pytest.MonkeyPatch, *, takes: bool
) -> None:
    monkeypatch.setattr(admission, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(admission, "SLOW_BYTES_PER_SECOND", 0 if takes else 1 << 30)

    async def scenario() -> None:
        stuck, sent, scope = asyncio.Event(), list[Message](), dict(SCOPE)

        async def take_one(message: Message) -> None:
            sent.append(message)
            if len(sent) == 2:
                stuck.set()
                await asyncio.Event().wait()

        door = Admission(1)
        app = Admit(_answering(bytes(2 * PIECE_BYTES)), {"/predict": door})
        first = asyncio.create_task(app(scope, _nothing, take_one))
        await stuck.wait()
        if takes:
            with pytest.raises(ServiceBusyError), door.enter():
                pass
            first.cancel()
            return
        assert PROBLEM_KEY not in scope
        with door.enter():
            await first  # its answer ends where it was; nothing is added to it
            assert [message["type"] for message in sent] == [
                "http.response.start",
                "http.response.body",
            ]
            assert door.num_inside == 1
            assert scope[PROBLEM_KEY] == "answer-not-taken"  # what the metrics count it as

    asyncio.run(scenario())


def test_images_that_wait_together_are_answered_together_and_rightly(
    tiny_models: Path, lesion_png: bytes
) -> None:
    settings = Settings(models_dir=tiny_models, max_batch_size=3)

    async def scenario() -> None:
        async with hanging_service(settings) as (app, http, engine):
            files = {"image": lesion_png}
            first = asyncio.create_task(http.post("/predict", files=files))
            await until(engine)
            rest = [asyncio.create_task(http.post("/predict", files=files)) for _ in range(5)]
            await in_line(app, 5)
            engine.release.set()
            answers = [(await task).json() for task in (first, *rest)]
            assert engine.batch_sizes == [1, 3, 2]
            for answer in answers[1:]:
                assert answer["probabilities"] == pytest.approx(
                    answers[0]["probabilities"], abs=1e-5
                )
            metrics = (await http.get("/metrics")).text
            assert 'dermhybrid_batch_size_count{model="tiny_plain",version="2"} 3.0' in metrics
            assert 'dermhybrid_batch_size_sum{model="tiny_plain",version="2"} 6.0' in metrics

    asyncio.run(scenario())


def test_past_its_time_a_request_gets_504_and_leaves_the_line(
    tiny_models: Path, lesion_png: bytes
) -> None:
    async def scenario() -> None:
        async with hanging_service(Settings(models_dir=tiny_models)) as (_, http, engine):
            files = {"image": lesion_png}
            first = asyncio.create_task(http.post("/predict", files=files))
            await until(engine)
            late = await http.post("/predict", files=files, headers={"x-request-timeout": "0.4"})
            assert late.status_code == 504
            assert late.headers["content-type"] == "application/problem+json"
            assert late.json()["type"] == "urn:dermhybrid:problem:deadline-exceeded"
            assert "0.4 s" in late.json()["detail"]
            assert late.json()["request_id"] == late.headers["x-request-id"]
            engine.release.set()
            assert (await first).status_code == 200
            assert engine.batch_sizes == [1]
            assert (await http.post("/predict", files=files)).status_code == 200
            metrics = (await http.get("/metrics")).text
            assert 'route="/predict",status="504"} 1.0' in metrics

    asyncio.run(scenario())


def test_the_service_has_a_time_of_its_own(tiny_models: Path, lesion_png: bytes) -> None:
    settings = Settings(models_dir=tiny_models, request_timeout_seconds=0.3)

    async def scenario() -> None:
        async with hanging_service(settings) as (_, http, engine):
            late = await http.post("/predict", files={"image": lesion_png})
            engine.release.set()
            assert late.status_code == 504

    asyncio.run(scenario())


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "121", "soon", "", "1e400"])
def test_a_time_that_is_none_is_refused(
    client: TestClient, lesion_png: bytes, seconds: str
) -> None:
    headers = {"x-request-timeout": seconds}
    answer = client.post("/predict", files={"image": lesion_png}, headers=headers)
    assert answer.status_code == 422
    assert "at most 120" in answer.json()["detail"]


def test_a_caller_who_leaves_takes_its_image_out_of_the_line(
    tiny_models: Path, lesion_png: bytes
) -> None:
    async def scenario() -> None:
        async with hanging_service(Settings(models_dir=tiny_models)) as (app, http, engine):
            first = asyncio.create_task(http.post("/predict", files={"image": lesion_png}))
            await until(engine)
            leaves = asyncio.Event()
            body = [{"type": "http.request", "body": lesion_png, "more_body": False}]
            sent: list[Message] = []

            async def receive() -> Message:
                if body:
                    return body.pop()
                await leaves.wait()
                return {"type": "http.disconnect"}

            async def send(message: Message) -> None:
                sent.append(message)

            call = asyncio.create_task(app(raw_post(), receive, send))
            await in_line(app, 1)
            leaves.set()
            await call
            assert sent[0]["status"] == 499
            engine.release.set()
            assert (await first).status_code == 200
            assert engine.batch_sizes == [1]
            metrics = (await http.get("/metrics")).text
            assert 'route="/predict",status="499"} 1.0' in metrics
            assert 'problem="client-closed-request",route="/predict"} 1.0' in metrics

    asyncio.run(scenario())


def raw_post() -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/predict",
        "raw_path": b"/predict",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"image/png")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }


def test_while_it_stops_the_service_answers_what_it_began_and_nothing_else(
    tiny_models: Path, lesion_png: bytes
) -> None:
    async def scenario() -> None:
        async with hanging_service(Settings(models_dir=tiny_models)) as (app, http, engine):
            files = {"image": lesion_png}
            begun = asyncio.create_task(http.post("/predict", files=files))
            await until(engine)
            app.state.services.begin_to_stop()
            for refused in (
                await http.post("/predict", files=files),
                await http.get("/health/ready"),
            ):
                assert refused.status_code == 503
                assert refused.json()["type"] == "urn:dermhybrid:problem:service-stopping"
                assert refused.headers["retry-after"] == "1"
            assert (await http.get("/health/live")).status_code == 200
            assert "dermhybrid_ready 0.0" in (await http.get("/metrics")).text
            engine.release.set()
            assert (await begun).status_code == 200

    asyncio.run(scenario())
