"""Traces reach a real OTLP receiver, whole, without a patient; and no answer waits for them."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi.testclient import TestClient
from opentelemetry import trace
from pydantic import ValidationError

from app.main import create_app
from app.settings import Settings
from app.trace_export import MAX_SPANS_OF_REQUEST, MAX_WAITING_SPANS, TraceExport
from app.tracing import caller_context
from tests.app.api.hanging import hanging_service
from tests.app.api.test_load import in_line, until
from tests.app.test_privacy import MARKER, holds_marker, uploads
from tests.collector import Collector, ReceivedSpan, collecting
from tests.conftest import ATTENTION_MODEL, PLAIN_MODEL, REPOSITORY
from tests.ports import free_port
from tests.service_process import openvino_service

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"

ATTRIBUTES = {
    "http.request.method",
    "http.route",
    "http.response.status_code",
    "error.type",
    "dermhybrid.problem",
    "dermhybrid.model",
    "dermhybrid.model.version",
    "dermhybrid.batch.id",
    "dermhybrid.batch.size",
    "dermhybrid.image.index",
}

INVALID = [
    "",
    "nonsense",
    TRACEPARENT.upper(),
    TRACEPARENT + "-more",  # version 00 has no more
    TRACEPARENT.replace("00-", "ff-", 1),
    f"00-{'0' * 32}-{SPAN_ID}-01",
    f"00-{TRACE_ID}-{'0' * 16}-01",
    f"00-{TRACE_ID[:-1]}-{SPAN_ID}-01",
    f"00-{TRACE_ID}-{SPAN_ID}-0١",
    f"01-{TRACE_ID}-{SPAN_ID}-01-{'x' * 100}",
]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def served(
    tiny_models: Path, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """The service as a process that sends to the collector: its address, and its log."""
    folder = tmp_path_factory.mktemp("traced")
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        "FASTAPI_OTEL_AUTO_CONFIGURE": "true",  # FastAPI's own, which would send paths and queries
        "AUDIT_DIR": str(folder / "audit"),
        "MAX_IMAGE_BYTES": "2000000",
    }
    with openvino_service(tiny_models, folder / "log", **settings) as (_, address):
        yield address, folder / "log"


def predict(address: str, image: bytes, path: str = "/predict", **headers: str) -> httpx2.Response:
    files = {"image": ("lesion.png", image)}
    return httpx2.post(f"{address}{path}", files=files, headers=headers, timeout=60)


def test_a_request_is_one_trace_of_all_its_stages(
    served: tuple[str, Path], collector: Collector, lesion_png: bytes
) -> None:
    address, log = served
    answer = predict(address, lesion_png, traceparent=TRACEPARENT, **{"x-request-id": "r-1"})
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "r-1"
    spans = collector.trace(TRACE_ID, "POST /predict")
    (request,) = [span for span in spans if span.name == "POST /predict"]
    assert request.parent_id == SPAN_ID
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
    }
    stages = [span for span in spans if span is not request]
    # For a thread to decode in, for the model, and for a thread to draw in.
    queues = ["queue"] * 3
    expected = sorted([*queues, "receive", "audit", "decode", "encode", "explain", "inference"])
    assert sorted(span.name for span in stages) == expected
    assert {span.parent_id for span in stages} == {request.span_id}
    model = {"dermhybrid.model": PLAIN_MODEL, "dermhybrid.model.version": 2}
    for span in stages:
        assert request.start <= span.start <= span.end <= request.end
        assert not span.failed
        assert span.name == "audit" or model.items() <= span.attributes.items()
    begun = [span.name for span in sorted(stages, key=lambda span: span.start)]
    order = ["receive", "decode", "inference", "audit", "explain", "encode"]
    assert [name for name in begun if name != "queue"] == order
    (inference,) = [span for span in stages if span.name == "inference"]
    assert inference.attributes["dermhybrid.batch.size"] == 1
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == "r-1"]
    assert (line["trace_id"], line["span_id"]) == (TRACE_ID, request.span_id)


def test_each_image_of_a_batch_has_its_own_stages(
    served: tuple[str, Path], collector: Collector, lesion_png: bytes
) -> None:
    address, _ = served
    trace_id = "1" * 32
    answer = httpx2.post(
        f"{address}/predict/batch",
        files=[("image", lesion_png), ("image", b"no picture"), ("image", lesion_png)],
        headers={"traceparent": f"00-{trace_id}-{SPAN_ID}-01"},
        timeout=60,
    )
    assert answer.status_code == 200
    spans = collector.trace(trace_id, "POST /predict/batch")
    (request,) = [span for span in spans if span.name == "POST /predict/batch"]
    images = {s.attributes["dermhybrid.image.index"]: s for s in spans if s.name == "image"}
    assert {image.parent_id for image in images.values()} == {request.span_id}
    assert [images[index].failed for index in range(3)] == [False, True, False]
    assert images[1].attributes["error.type"] == "ImageFormatError"
    for index in (0, 2):
        inner = {span.name for span in spans if span.parent_id == images[index].span_id}
        assert inner == {"audit", "decode", "encode", "explain", "inference", "queue"}


def test_requests_of_one_model_call_name_the_same_batch(
    tiny_models: Path, collector: Collector, lesion_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    settings = Settings(models_dir=tiny_models, otel_exporter_otlp_endpoint=collector.address)
    trace_ids = [f"{number:032x}" for number in range(1, 5)]

    async def scenario() -> None:
        async with hanging_service(settings) as (app, http, engine):

            def post(trace_id: str) -> "asyncio.Task[httpx2.Response]":
                headers = {"traceparent": f"00-{trace_id}-{SPAN_ID}-01"}
                files = {"image": lesion_png}
                return asyncio.create_task(http.post("/predict", files=files, headers=headers))

            held = [post(trace_ids[0])]
            await until(engine)
            held += [post(trace_id) for trace_id in trace_ids[1:]]
            await in_line(app, 3)
            engine.release.set()
            assert {(await answer).status_code for answer in held} == {200}

    asyncio.run(scenario())
    batches: dict[str, list[ReceivedSpan]] = {}
    for trace_id in trace_ids:
        spans = collector.trace(trace_id, "POST /predict")
        (inference,) = [span for span in spans if span.name == "inference"]
        batches.setdefault(inference.attributes["dermhybrid.batch.id"], []).append(inference)
    assert sorted(len(batch) for batch in batches.values()) == [1, 3]
    for batch in batches.values():
        assert {span.attributes["dermhybrid.batch.size"] for span in batch} == {len(batch)}
        # One call: nobody's ended before another's began.
        assert max(span.start for span in batch) <= min(span.end for span in batch)


def test_what_is_refused_is_traced_with_its_kind(
    served: tuple[str, Path], collector: Collector
) -> None:
    address, _ = served
    trace_id = "2" * 32
    answer = predict(address, b"no picture", traceparent=f"00-{trace_id}-{SPAN_ID}-01")
    assert answer.status_code == 415
    spans = collector.trace(trace_id, "POST /predict")
    (request,) = [span for span in spans if span.name == "POST /predict"]
    assert request.attributes["dermhybrid.problem"] == "image-format"
    assert not request.failed  # the caller's mistake, not the service's
    (decode,) = [span for span in spans if span.name == "decode"]
    assert decode.failed
    assert decode.attributes["error.type"] == "ImageFormatError"


def test_what_the_caller_does_not_sample_is_not_sent(
    served: tuple[str, Path], collector: Collector, lesion_png: bytes
) -> None:
    address, log = served
    trace_id = "3" * 32
    headers = {"traceparent": f"00-{trace_id}-{SPAN_ID}-00", "x-request-id": "unsampled"}
    assert predict(address, lesion_png, **headers).status_code == 200
    after = "4" * 32
    predict(address, lesion_png, traceparent=f"00-{after}-{SPAN_ID}-01")
    collector.trace(after, "POST /predict")
    assert not [span for span in collector.spans() if span.trace_id == trace_id]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == "unsampled"]
    assert line["trace_id"] == trace_id  # the caller's own log can still be joined


@pytest.mark.parametrize("header", INVALID)
def test_an_invalid_traceparent_is_ignored(header: str) -> None:
    assert trace.get_current_span(caller_context([header])) is trace.INVALID_SPAN


def test_a_valid_traceparent_is_taken_once() -> None:
    for header in (TRACEPARENT, TRACEPARENT.replace("00-", "cc-", 1) + "-what-the-future-adds"):
        context = trace.get_current_span(caller_context([header])).get_span_context()
        assert trace.format_trace_id(context.trace_id) == TRACE_ID
        assert trace.format_span_id(context.span_id) == SPAN_ID
        assert context.is_remote
    twice = caller_context([TRACEPARENT, TRACEPARENT])
    assert trace.get_current_span(twice) is trace.INVALID_SPAN


def test_a_request_with_an_invalid_traceparent_begins_a_trace(
    served: tuple[str, Path], collector: Collector
) -> None:
    address, _ = served
    before = len(collector.spans())
    answer = httpx2.get(f"{address}/models", headers={"traceparent": f"00-{'0' * 32}-1-01"})
    assert answer.status_code == 200
    received = collector.wait_for(lambda spans: len(spans) > before)[before:]
    (request,) = [span for span in received if span.name == "GET /models"]
    assert request.parent_id == ""


def test_probes_and_scrapes_are_not_traced(served: tuple[str, Path], collector: Collector) -> None:
    address, _ = served
    trace_id = "5" * 32
    with httpx2.Client(base_url=address, headers={"traceparent": TRACEPARENT}) as client:
        for path in ("/health/live", "/health/ready", "/metrics"):
            assert client.get(path).status_code == 200
        client.get("/models", headers={"traceparent": f"00-{trace_id}-{SPAN_ID}-01"})
    collector.trace(trace_id, "GET /models")
    routes = {span.attributes.get("http.route") for span in collector.spans()}
    assert not routes & {"/health/live", "/health/ready", "/metrics"}


def test_nothing_of_a_patient_is_sent(served: tuple[str, Path], collector: Collector) -> None:
    address, log = served
    trace_id = "6" * 32
    headers = {
        "traceparent": f"00-{trace_id}-{SPAN_ID}-01",
        "tracestate": f"patient={MARKER}",
        "baggage": f"patient={MARKER}",
        "X-FHIR-Subject": f"Patient/{MARKER}",
        "User-Agent": MARKER,
        "Cookie": MARKER,
    }
    query = {"model": ATTENTION_MODEL, MARKER: MARKER, "format": "fhir"}
    with httpx2.Client(base_url=address, timeout=60, headers=headers) as client:
        statuses = Counter(
            client.post(path, files={"image": (MARKER, data)}, params=query).status_code
            for data in uploads().values()
            for path in ("/predict", "/predict/batch")
        )
        client.post("/predict", params={"model": MARKER})
        client.get(f"/{MARKER}")
        client.get(f"/models/{MARKER}")
        client.request("PROPFIND", "/predict")
        client.get("/last")
    assert statuses[200] > 10
    assert set(statuses) > {200, 422}
    collector.wait_for(lambda spans: sum(s.name == "GET unmatched" for s in spans) >= 2)
    for body in collector.bodies:
        assert not holds_marker(body), body
    spans = [span for span in collector.spans() if span.trace_id == trace_id]
    assert {"HTTP /predict", "GET /models/{name}"} <= {span.name for span in spans}
    for span in collector.spans():
        assert span.attributes.keys() <= ATTRIBUTES
        assert span.scope == "dermhybrid"
    assert set(collector.paths) == {"/v1/traces"}
    assert not holds_marker(log.read_bytes())


def test_a_collector_that_is_down_is_noticed_by_nobody_but_the_metrics(
    tiny_models: Path, lesion_png: bytes, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
    }
    with openvino_service(tiny_models, log, **settings) as (process, address):
        give_up = time.monotonic() + 60
        while (
            'spans_lost_total{reason="not-exported"}' not in httpx2.get(f"{address}/metrics").text
        ):
            assert predict(address, lesion_png).status_code == 200
            assert time.monotonic() < give_up
        assert httpx2.get(f"{address}/health/ready").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["message"] for line in lines].count(
        "traces are lost: the collector does not take them"
    ) == 1
    assert not [line for line in lines if line["logger"].startswith("opentelemetry")]


def test_a_collector_that_never_answers_holds_up_neither_answer_nor_stop(
    tiny_models: Path, lesion_png: bytes, tmp_path: Path
) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{deaf.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "600",
            "OTEL_BSP_SCHEDULE_DELAY": "20",
        }
        with openvino_service(tiny_models, tmp_path / "log", **settings) as (process, address):
            for _ in range(3):
                assert predict(address, lesion_png).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def test_what_does_not_fit_into_the_queue_is_counted() -> None:
    lost: Counter[str] = Counter()
    with collecting() as collector:
        collector.take.clear()
        export = TraceExport(
            collector.address, lambda reason, number: lost.update({reason: number})
        )
        number = MAX_WAITING_SPANS + MAX_SPANS_OF_REQUEST + 100
        for _ in range(number):
            with export.tracing.request([]):
                pass
        assert lost["queue-full"] >= 100
        collector.take.set()
        export.close()
        assert len(collector.spans()) == number - lost.total()
        assert set(lost) == {"queue-full"}


def test_a_collector_that_comes_back_is_noticed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    lost: Counter[str] = Counter()
    with collecting() as collector:
        export = TraceExport(
            collector.address, lambda reason, number: lost.update({reason: number})
        )
        for status, words in ((400, "traces are lost"), (200, "traces are taken again")):
            collector.status = status
            with export.tracing.request([]):
                pass
            give_up = time.monotonic() + 60
            while words not in caplog.text:
                assert time.monotonic() < give_up
                time.sleep(0.02)
        export.close()
    assert lost == {"not-exported": 1}


def test_without_the_extra_the_service_says_what_to_install(tiny_models: Path) -> None:
    program = (
        "import sys; sys.modules['opentelemetry.sdk'] = None; from app.cli import main; main()"
    )
    environment = {
        **os.environ,
        "MODELS_DIR": str(tiny_models),
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
    }
    ended = subprocess.run(
        [sys.executable, "-c", program, "serve", "--port", "0"],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert "extra `otel`" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_an_endpoint_nothing_is_traced(
    tiny_models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with TestClient(create_app(Settings(models_dir=tiny_models))) as client:
        services = client.app.state.services  # type: ignore[attr-defined]
        assert not services.tracing.enabled
        with caplog.at_level("INFO"):
            client.get("/models", headers={"traceparent": TRACEPARENT})
    assert TRACE_ID not in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:word@collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ],
)
def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()
