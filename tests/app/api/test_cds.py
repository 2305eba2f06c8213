"""CDS Hooks: what came along or the operator's server is read, and no other address."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.api.cds import CDS_PATH
from app.audit import CARDS_FOLDER
from app.audit_chain import log_files, verify
from app.domain.heatmaps import encode_png
from app.main import create_app
from app.settings import Settings
from tests.fhir_checks import resources
from tests.fhir_peers import scripted

GREEN = encode_png(np.full((240, 320, 3), (10, 240, 10), np.uint8))
"""What is rejected."""


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def served(ruled_models: Path, fhir_server: str, audit: Path) -> Iterator[TestClient]:
    settings = Settings(
        models_dir=ruled_models,
        runtime="openvino",
        cds_hooks=True,
        public_url="https://derm.hospital.example/",
        fhir_server_url=fhir_server,
        audit_dir=audit,
    )
    app = create_app(settings)
    with TestClient(app, raise_server_exceptions=False, client=("192.0.2.7", 50000)) as client:
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


def card_records(audit: Path) -> list[dict[str, Any]]:
    lines = [p.read_text().splitlines() for p in log_files(audit / CARDS_FOLDER)]
    return [json.loads(line) for several in lines for line in several]


def test_the_servers_newest_answer_is_found(
    served: TestClient, lesion_png: bytes, caplog: pytest.LogCaptureFixture, audit: Path
) -> None:
    before = card_records(audit)
    assert call(served, "Zzyzx").json() == {"cards": []}
    assert card_records(audit) == before
    conclusions, names = [], []
    for patient, image in (("Zzyzx", GREEN), ("Zzyzx", lesion_png), ("another", GREEN)):
        stored = served.post(
            "/predict",
            files={"image": image},
            params={"format": "fhir", "store": True, "model": "light"},
            headers={"X-FHIR-Subject": f"Patient/{patient}"},
        )
        assert stored.status_code == 200
        (report,) = resources(stored.json(), "DiagnosticReport")
        conclusions.append(report["conclusion"].split(".")[0])
        names.append(report["identifier"][0]["value"])
    assert conclusions[0] == conclusions[2] != conclusions[1]
    with caplog.at_level("INFO"):
        (card,) = call(served, "Zzyzx").json()["cards"]
    assert conclusions[1] in card["detail"]
    assert conclusions[0] not in card["detail"]
    assert card["links"][0]["url"] == "https://derm.hospital.example/"
    (record,) = card_records(audit)[len(before) :]
    assert record["card"] == card["uuid"]
    assert record["caller"] == "192.0.2.7"
    assert record["shown"]["name"] == names[1]
    assert record["shown"]["action"] in {"report", "refer", "reject"}
    assert list(verify(audit / CARDS_FOLDER)) == []
    logged = json.dumps([entry.__dict__ for entry in caplog.records], default=str)
    assert "Zzyzx" not in str(record)
    assert "Zzyzx" not in logged + served.get("/metrics").text


def test_what_came_along_is_read_in_place_of_the_server(served: TestClient) -> None:
    tag = {"system": "urn:dermhybrid:decision", "code": "refer"}
    code = {"system": "urn:dermhybrid:code", "code": "lesion-classification"}
    report = {
        "resourceType": "DiagnosticReport",
        "status": "preliminary",
        "meta": {"tag": [tag]},
        "code": {"coding": [code]},
        "subject": {"reference": "Patient/1"},
        "issued": "2026-01-01T00:00:00Z",
        "conclusion": "A specialist has to look at this picture.",
    }
    bundle = {"resourceType": "Bundle", "entry": [{"resource": report}]}
    (card,) = call(served, prefetch={"reports": bundle}).json()["cards"]
    assert card["indicator"] == "warning"
    withdrawn = [{"resource": report | {"status": s}} for s in ("entered-in-error", "cancelled")]
    others: list[Any] = [None, "x", 5, [1, {}], withdrawn]
    for nothing in others:
        sent = {"resourceType": "Bundle", "entry": nothing}
        response = call(served, prefetch={"reports": sent})
        assert response.status_code == 200
        assert response.json() == {"cards": []}


@pytest.mark.parametrize("required", [True, False])
def test_a_card_is_recorded_before_it_is_shown(
    ruled_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, required: bool
) -> None:
    report = {
        "resourceType": "DiagnosticReport",
        "status": "preliminary",
        "meta": {"tag": [{"system": "urn:dermhybrid:decision", "code": "refer"}]},
        "code": {"coding": [{"system": "urn:dermhybrid:code", "code": "lesion-classification"}]},
        "subject": {"reference": "Patient/1"},
        "issued": "2026-01-01T00:00:00Z",
    }
    sent = {"reports": {"resourceType": "Bundle", "entry": [{"resource": report}]}}
    settings = Settings(
        models_dir=ruled_models,
        runtime="openvino",
        cds_hooks=True,
        audit_dir=tmp_path,
        audit_required=required,
    )

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        with monkeypatch.context() as disk:
            disk.setattr("app.audit.os.write", full)
            shown = call(client, prefetch=sent)
        assert "dermhybrid_audit_failures_total 1.0" in client.get("/metrics").text
        assert shown.status_code == (503 if required else 200)
        assert len(call(client, prefetch=sent).json()["cards"]) == 1
    assert len(card_records(tmp_path)) == 1


@pytest.mark.parametrize(
    "failed",
    [None, [], {}, "x", {"resourceType": "OperationOutcome", "issue": [{"code": "timeout"}]}],
)
def test_a_prefetch_that_failed_is_not_a_record_without_answers(
    ruled_models: Path, failed: Any
) -> None:
    settings = Settings(models_dir=ruled_models, runtime="openvino", cds_hooks=True)
    with TestClient(create_app(settings)) as client:
        assert call(client, prefetch={"reports": failed}).status_code == 412


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
