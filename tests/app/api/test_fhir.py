"""`$classify-lesion` answers as `/predict` does, within the same bounds."""

import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.domain.heatmaps import encode_png
from app.interop.fhir_codes import FHIR_MEDIA_TYPE as FHIR
from app.interop.fhir_parameters import VALUE_TYPES
from app.main import create_app
from app.settings import Settings
from tests.fhir_checks import assert_valid, resources

OPERATION = "/fhir/$classify-lesion"
MAX_IMAGE_BYTES = 300_000


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def served(ruled_models: Path, audit: Path) -> Iterator[TestClient]:
    settings = Settings(
        models_dir=ruled_models,
        runtime="openvino",
        max_image_bytes=MAX_IMAGE_BYTES,
        audit_dir=audit,
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def parameters(image: bytes, **others: Any) -> dict[str, Any]:
    data = base64.b64encode(image).decode()
    attachment = {"contentType": "image/png", "data": data}
    given = [{"name": "image", "valueAttachment": attachment}]
    given += [{"name": name, VALUE_TYPES[name]: value} for name, value in others.items()]
    return {"resourceType": "Parameters", "parameter": given}


def classify(client: TestClient, body: Any, **headers: str) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response: httpx2.Response = client.post(
        OPERATION, content=content, headers={"Content-Type": FHIR, **headers}
    )
    return response


def test_it_answers_as_predict_does(
    served: TestClient, audit: Path, lesion_png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    body = parameters(lesion_png, subject={"reference": "Patient/Zzyzx"}, model="light")
    assert_valid(body)
    with caplog.at_level("DEBUG"):
        response = classify(served, body, **{"X-Request-ID": "request-1"})
    assert response.status_code == 200
    assert response.headers["content-type"] == FHIR
    bundle = response.json()
    assert_valid(bundle)
    other = served.post(
        "/predict",
        files={"image": lesion_png},
        params={"model": "light"},
        headers={"Accept": FHIR, "X-FHIR-Subject": "Patient/Zzyzx", "X-Request-ID": "request-1"},
    ).json()
    assert _timeless(bundle) == _timeless(other)
    records = [
        json.loads(line)
        for line in (audit / "audit-000001.jsonl").read_text().splitlines()
        if '"request-1"' in line
    ]
    assert records[0]["answer"] == records[1]["answer"]
    assert records[0]["upload_sha256"] == records[1]["upload_sha256"]
    logged = json.dumps([record.__dict__ for record in caplog.records], default=str)
    for elsewhere in (logged, json.dumps(records), served.get("/metrics").text):
        assert "Zzyzx" not in elsewhere
    assert 'route="/fhir/$classify-lesion"' in served.get("/metrics").text


def _timeless(bundle: dict[str, Any]) -> dict[str, Any]:
    del bundle["timestamp"]
    for entry in bundle["entry"]:
        for name in ("issued", "recorded"):
            entry["resource"].pop(name, None)
    return bundle


def test_without_a_heatmap(served: TestClient, lesion_png: bytes) -> None:
    bundle = classify(served, parameters(lesion_png, heatmap=False)).json()
    assert_valid(bundle)
    assert not resources(bundle, "Media")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 422, "invalid"),
        (parameters(b"no image"), 415, "not-supported"),
        (parameters(b"no image", model="none"), 404, "not-found"),
        (parameters(b"x" * (MAX_IMAGE_BYTES + 3)), 413, "too-long"),
        (parameters(b"x" * (2 * MAX_IMAGE_BYTES)), 413, "too-long"),
        (parameters(encode_png(np.zeros((20, 20, 3), np.uint8))), 422, "value"),
    ],
)
def test_failures_are_outcomes(served: TestClient, body: Any, status: int, code: str) -> None:
    response = classify(served, body)
    assert response.status_code == status
    assert response.headers["content-type"] == FHIR
    outcome = response.json()
    assert_valid(outcome)
    assert outcome["issue"][0]["code"] == code


def test_the_largest_image_fits_with_its_line_breaks(served: TestClient) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (290, 330, 3), np.uint8)
    image = encode_png(noise)
    assert 0.95 * MAX_IMAGE_BYTES < len(image) <= MAX_IMAGE_BYTES
    body = parameters(image)
    body["parameter"][0]["valueAttachment"]["data"] = base64.encodebytes(image).decode()
    assert classify(served, body).status_code == 200


def test_another_content_type_is_refused(served: TestClient, lesion_png: bytes) -> None:
    response = classify(served, lesion_png, **{"Content-Type": "image/png"})
    assert response.status_code == 415
    assert_valid(response.json())


def test_it_is_behind_the_door_of_predictions(ruled_models: Path, lesion_png: bytes) -> None:
    settings = Settings(models_dir=ruled_models, runtime="openvino", max_predictions_in_progress=1)
    app = create_app(settings)
    with TestClient(app) as client:
        (door,) = [d for d in app.state.services.doors if d._capacity == 1]

        @asynccontextmanager
        async def full() -> AsyncIterator[None]:
            with door.enter():
                yield

        assert client.portal is not None
        with client.portal.wrap_async_context_manager(full()):
            assert app.state.services.num_in_progress == 1
            refused = classify(client, parameters(lesion_png))
        assert refused.status_code == 503
        assert refused.json()["issue"][0]["code"] == "throttled"
        assert classify(client, parameters(lesion_png)).status_code == 200
        app.state.services.begin_to_stop()
        stopping = classify(client, parameters(lesion_png))
        assert stopping.json()["issue"][0]["code"] == "transient"


def test_it_says_what_it_can_do(served: TestClient) -> None:
    statement = served.get("/fhir/metadata")
    assert statement.headers["content-type"] == FHIR
    assert_valid(statement.json())
    (operation,) = statement.json()["rest"][0]["operation"]
    definition = served.get(f"/fhir/OperationDefinition/{operation['name']}").json()
    assert_valid(definition)
    assert definition["url"] == operation["definition"]
    inputs = [p for p in definition["parameter"] if p["use"] == "in"]
    assert {p["name"]: f"value{p['type'][0].upper()}{p['type'][1:]}" for p in inputs} == VALUE_TYPES
    assert_valid(served.get("/fhir/OperationDefinition/another").json())


def test_a_fhir_server_takes_what_the_operation_returns(
    served: TestClient, fhir_server: str, lesion_png: bytes
) -> None:
    bundle = classify(served, parameters(lesion_png, subject={"reference": "Patient/p"})).json()
    stored = httpx2.post(f"{fhir_server}/", json=bundle).json()
    assert {entry["response"]["status"] for entry in stored["entry"]} == {"201"}
    query = {"subject": "Patient/p", "_include": "DiagnosticReport:result"}
    found = httpx2.get(f"{fhir_server}/DiagnosticReport", params=query).json()
    assert len(resources(found, "DiagnosticReport")) == 1
