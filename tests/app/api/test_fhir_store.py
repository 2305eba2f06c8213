"""An answer that is to be stored is on the FHIR server before it is given, or it is not given."""

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from app.interop.fhir_codes import FHIR_MEDIA_TYPE as FHIR
from app.main import create_app
from app.settings import Settings
from tests.fhir_checks import assert_valid, resources
from tests.fhir_peers import running, scripted, write_key


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Settings for a real FHIR server that wants tokens of a real authorization server."""
    key = tmp_path_factory.mktemp("key") / "key.pem"
    with (
        running("token_server.mjs", CLIENT_KEY=write_key(key)) as issuer,
        running("fhir_server.mjs", TOKEN_ISSUER=issuer) as server,
    ):
        yield {
            "fhir_server_url": server,
            "fhir_token_url": f"{issuer}/token",
            "fhir_client_id": "dermhybrid",
            "fhir_private_key_file": key,
            "fhir_key_id": "key-1",
        }


@pytest.fixture(scope="module")
def served(ruled_models: Path, guarded: dict[str, Any]) -> Iterator[TestClient]:
    settings = Settings(models_dir=ruled_models, runtime="openvino", **guarded)
    with TestClient(create_app(settings)) as client:
        yield client


def ask(client: TestClient, image: bytes, request_id: str = "r", **params: Any) -> httpx2.Response:
    response: httpx2.Response = client.post(
        "/predict",
        files={"image": image},
        params={"format": "fhir", "store": True, "model": "light", **params},
        headers={"X-FHIR-Subject": "Patient/Zzyzx", "X-Request-ID": request_id},
    )
    return response


def test_a_stored_answer_is_on_the_server_once(
    served: TestClient,
    guarded: dict[str, Any],
    lesion_png: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO"):
        response = ask(served, lesion_png)
    assert response.status_code == 200
    assert_valid(response.json())
    place = response.headers["x-fhir-stored"]
    assert place.startswith("DiagnosticReport/")
    assert ask(served, lesion_png).headers["x-fhir-stored"] == place
    assert ask(served, lesion_png, "another").headers["x-fhir-stored"] != place
    text = served.get("/metrics").text
    assert 'dermhybrid_fhir_stored_total{outcome="stored"} 3.0' in text
    assert 'dermhybrid_stage_duration_seconds_count{model="light",stage="store",' in text
    logged = json.dumps([record.__dict__ for record in caplog.records], default=str)
    assert "Zzyzx" not in logged + text
    assert httpx2.get(f"{guarded['fhir_server_url']}/{place}").status_code == 401


def test_the_operation_stores_too(served: TestClient, lesion_png: bytes) -> None:
    attachment = {"contentType": "image/png", "data": base64.b64encode(lesion_png).decode()}
    body = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "image", "valueAttachment": attachment},
            {"name": "store", "valueBoolean": True},
        ],
    }
    headers = {"Content-Type": FHIR}
    nobody = served.post("/fhir/$classify-lesion", content=json.dumps(body), headers=headers)
    assert nobody.status_code == 422
    subject = {"name": "subject", "valueReference": {"reference": "Patient/1"}}
    body["parameter"].append(subject)  # type: ignore[attr-defined]
    response = served.post("/fhir/$classify-lesion", content=json.dumps(body), headers=headers)
    assert response.headers["x-fhir-stored"].startswith("DiagnosticReport/")


def test_an_answer_that_is_not_stored_is_not_given(ruled_models: Path, lesion_png: bytes) -> None:
    with scripted((422, b"Zzyzx")) as server:
        settings = Settings(
            models_dir=ruled_models,
            runtime="openvino",
            fhir_server_url=server.address,
        )
        with TestClient(create_app(settings)) as client:
            response = ask(client, lesion_png)
            text = client.get("/metrics").text
            assert ask(client, lesion_png, store=False).status_code == 200
    assert response.status_code == 502
    outcome = response.json()
    assert_valid(outcome)
    assert outcome["issue"][0]["code"] == "transient"
    assert "Zzyzx" not in response.text
    assert 'dermhybrid_fhir_stored_total{outcome="failed"} 1.0' in text
    assert len(server.received) == 1
    assert resources(json.loads(server.received[0][1]), "DiagnosticReport")


@pytest.mark.parametrize(
    ("params", "headers", "expected"),
    [
        ({"format": "json"}, {"X-FHIR-Subject": "Patient/1"}, "format=fhir"),
        ({"format": "fhir"}, {}, "Expected a subject"),
        (
            {"format": "fhir"},
            {"X-FHIR-Subject": "Patient/1", "X-Request-ID": "urn:uuid:4711"},
            "Expected an X-Request-ID of 1 to 64",
        ),
    ],
)
def test_what_cannot_be_stored_is_refused_before_the_upload_is_read(
    served: TestClient, params: dict[str, str], headers: dict[str, str], expected: str
) -> None:
    response = served.post(
        "/predict", content=b"", params={"store": True, **params}, headers=headers
    )
    assert response.status_code == 422
    assert expected in response.text


def test_without_a_server_nothing_is_stored(ruled_models: Path, lesion_png: bytes) -> None:
    settings = Settings(models_dir=ruled_models, runtime="openvino")
    with TestClient(create_app(settings)) as client:
        response = ask(client, lesion_png)
    assert response.status_code == 422
    assert "FHIR_SERVER_URL" in response.json()["issue"][0]["diagnostics"]


def test_a_server_that_is_silent_for_longer_than_the_request_has_is_a_failure(
    ruled_models: Path, lesion_png: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = Settings(
            models_dir=ruled_models,
            runtime="openvino",
            fhir_server_url=f"http://127.0.0.1:{silent.getsockname()[1]}",
            request_timeout_seconds=3.0,
        )
        with TestClient(create_app(settings)) as client:
            response = ask(client, lesion_png)
            text = client.get("/metrics").text
    assert response.status_code == 504
    assert 'dermhybrid_fhir_stored_total{outcome="failed"} 1.0' in text
