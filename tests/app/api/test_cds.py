"""CDS Hooks: what came along or the operator's server is read, and no other address."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from app.api.cds import CDS_PATH
from app.main import create_app
from app.settings import Settings
from tests.fhir_peers import scripted


@pytest.fixture(scope="module")
def served(ruled_models: Path, fhir_server: str) -> Iterator[TestClient]:
    settings = Settings(
        models_dir=ruled_models,
        runtime="openvino",
        cds_hooks=True,
        public_url="https://derm.hospital.example/",
        fhir_server_url=fhir_server,
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def call(client: TestClient, patient: str = "1", **others: Any) -> httpx2.Response:
    body = {
        "hook": "patient-view",
        "hookInstance": str(uuid.uuid4()),
        "context": {"userId": "Practitioner/1", "patientId": patient},
        **others,
    }
    response: httpx2.Response = client.post(CDS_PATH, json=body)
    return response


def test_discovery_names_the_service(served: TestClient) -> None:
    (service,) = served.get("/cds-services").json()["services"]
    assert service["hook"] == "patient-view"
    assert f"/cds-services/{service['id']}" == CDS_PATH
    assert "Not a medical device" in service["description"]
    (prefetch,) = service["prefetch"].values()
    assert "subject=Patient/{{context.patientId}}" in prefetch


def test_the_servers_newest_answer_is_found(
    served: TestClient, lesion_png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert call(served, "Zzyzx").json() == {"cards": []}
    for patient in ("Zzyzx", "another"):
        stored = served.post(
            "/predict",
            files={"image": lesion_png},
            params={"format": "fhir", "store": True, "model": "light"},
            headers={"X-FHIR-Subject": f"Patient/{patient}"},
        )
        assert stored.status_code == 200
    report = next(
        entry["resource"]
        for entry in stored.json()["entry"]
        if entry["resource"]["resourceType"] == "DiagnosticReport"
    )
    with caplog.at_level("INFO"):
        (card,) = call(served, "Zzyzx").json()["cards"]
    assert report["conclusion"].split(".")[0] in card["detail"]
    assert card["links"][0]["url"] == "https://derm.hospital.example/"
    logged = json.dumps([record.__dict__ for record in caplog.records], default=str)
    assert "Zzyzx" not in logged + served.get("/metrics").text


def test_what_came_along_is_read_in_place_of_the_server(served: TestClient) -> None:
    tag = {"system": "urn:dermhybrid:decision", "code": "refer"}
    code = {"system": "urn:dermhybrid:code", "code": "lesion-classification"}
    report = {
        "resourceType": "DiagnosticReport",
        "meta": {"tag": [tag]},
        "code": {"coding": [code]},
        "subject": {"reference": "Patient/1"},
        "issued": "2026-01-01T00:00:00Z",
        "conclusion": "A specialist has to look at this picture.",
    }
    bundle = {"resourceType": "Bundle", "entry": [{"resource": report}]}
    (card,) = call(served, prefetch={"reports": bundle}).json()["cards"]
    assert card["indicator"] == "warning"
    others: list[Any] = [
        None,
        [],
        {},
        {"entry": None},
        {"entry": "x"},
        {"entry": 5},
        {"entry": [1, {}]},
    ]
    for nothing in others:
        response = call(served, prefetch={"reports": nothing})
        assert response.status_code == 200
        assert response.json() == {"cards": []}


def test_no_address_of_a_caller_is_asked(ruled_models: Path) -> None:
    settings = Settings(models_dir=ruled_models, runtime="openvino", cds_hooks=True)
    with scripted((200, b"{}")) as elsewhere, TestClient(create_app(settings)) as client:
        response = call(client, fhirServer=elsewhere.address, fhirAuthorization={"x": "y"})
    assert response.status_code == 412
    assert "prefetch" in response.json()["detail"]
    assert not elsewhere.received


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[" * 100_000,
        b"{}",
        b'{"hook": "order-sign", "hookInstance": "Zzyzx", "context": {"patientId": "Zzyzx!"}}',
        b'{"hook": "patient-view", "context": {"patientId": "../Zzyzx"}}',
    ],
)
def test_what_is_no_call_is_refused_and_not_repeated(served: TestClient, body: bytes) -> None:
    response = served.post(CDS_PATH, content=body)
    assert response.status_code == 422
    assert "Zzyzx" not in response.text


def test_a_call_that_is_too_long_is_refused(served: TestClient) -> None:
    response = served.post(CDS_PATH, content=b" " * (1024 * 1024 + 1))
    assert response.status_code == 413


def test_without_the_setting_there_is_no_service(ruled_models: Path) -> None:
    with TestClient(create_app(Settings(models_dir=ruled_models, runtime="openvino"))) as client:
        assert client.get("/cds-services").status_code == 404
        assert call(client).status_code == 404
