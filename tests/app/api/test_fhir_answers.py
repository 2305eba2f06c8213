"""`/predict` in FHIR: a Bundle that says what the plain answer says, and OperationOutcomes."""

import asyncio
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from starlette.types import Message

from app.access.scopes import Scope
from app.api.errors import client_closed, domain_problem
from app.api.fhir_errors import SpeakFhir
from app.api.guard import requires
from app.domain.errors import DermHybridError
from app.domain.heatmaps import encode_png
from app.interop.fhir_outcome import make_outcome
from app.main import create_app
from app.settings import Settings
from tests.app.api.test_errors import descendants
from tests.fhir_checks import assert_valid, definitions, resources

FHIR = "application/fhir+json"
GREEN = encode_png(np.full((240, 320, 3), (10, 240, 10), np.uint8))
"""Far from grey, which is all that the tiny models' training images span."""


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def served(ruled_models: Path, audit: Path) -> Iterator[TestClient]:
    settings = Settings(
        models_dir=ruled_models, runtime="openvino", max_image_bytes=200_000, audit_dir=audit
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def ask(client: TestClient, image: bytes, headers: dict[str, str] | None = None, **params: Any):  # type: ignore[no-untyped-def]
    return client.post(
        "/predict",
        files={"image": image},
        params=params,
        headers={"Accept": FHIR, **(headers or {})},
    )


@pytest.mark.parametrize("model", ["light", "ensemble"])
def test_the_bundle_says_what_the_plain_answer_says(
    served: TestClient, lesion_png: bytes, model: str
) -> None:
    plain = served.post(
        "/predict",
        files={"image": lesion_png},
        params={"model": model, "heatmap_method": "grad-cam"},
    ).json()
    response = ask(served, lesion_png, model=model, tta=True)
    assert response.status_code == 200
    assert response.headers["content-type"] == FHIR
    assert response.headers["vary"] == "Accept"
    bundle = response.json()
    assert_valid(bundle)
    predicted, probabilities, decision = resources(bundle, "Observation")
    label = plain["predicted_class"]["label"]
    assert predicted["valueCodeableConcept"]["coding"][0]["code"] == label
    assert predicted["component"][0]["valueQuantity"]["value"] == plain["confidence"]
    components = probabilities["component"]
    assert plain["probabilities"] == {
        c["code"]["coding"][0]["code"]: c["valueQuantity"]["value"] for c in components[:7]
    }
    assert len(components) == 14  # and the deviations over the symmetries
    assert decision["valueCodeableConcept"]["text"] == plain["decision"]["sentence"]
    (device,) = resources(bundle, "Device")
    assert device["identifier"][0]["value"] == plain["model"]["digest"]
    assert len(device.get("property", [])) == (2 if model == "ensemble" else 0)
    (media,) = resources(bundle, "Media")
    assert media["content"]["data"] == plain["heatmap"]["overlay"]
    (provenance,) = resources(bundle, "Provenance")
    upload = provenance["entity"][0]["what"]["identifier"]["value"]
    assert upload == sha256(lesion_png).hexdigest()


def test_attention_is_in_a_record_only_where_it_was_asked_for(
    served: TestClient, lesion_png: bytes
) -> None:
    plain = served.post("/predict", files={"image": lesion_png}, params={"model": "heavy"}).json()
    assert plain["heatmap"]["method"] == "attention"
    (unasked,) = resources(ask(served, lesion_png, model="heavy").json(), "Media")
    label = plain["predicted_class"]["label"]
    assert unasked["content"]["title"].startswith(f"Heatmap (grad-cam of {label}) of heavy@1")
    asked = ask(served, lesion_png, model="heavy", heatmap_method="attention")
    (media,) = resources(asked.json(), "Media")
    assert media["content"]["title"].startswith("Heatmap (attention) of heavy@1")
    assert media["content"]["data"] == plain["heatmap"]["overlay"]


def test_a_rejected_answer_is_a_report_without_a_class(served: TestClient) -> None:
    bundle = ask(served, GREEN, model="light").json()
    assert_valid(bundle)
    predicted, decision = resources(bundle, "Observation")
    assert predicted["dataAbsentReason"]["text"].startswith("No answer is given")
    assert decision["valueCodeableConcept"]["coding"][0]["code"] == "reject"
    assert "urn:dermhybrid:class" not in json.dumps(bundle)


@pytest.mark.parametrize(
    ("accept", "query", "fhir"),
    [
        (None, "fhir", True),
        (FHIR, "json", False),
        (FHIR, None, True),
        ("application/json, application/fhir+json", None, True),
        ("application/fhir+json;q=0.5, application/json", None, False),
        ("application/fhir+json;q=0", None, False),
        ("application/fhir+json;q=high", None, False),
        ("*/*", None, False),
        ("", None, False),
    ],
)
def test_who_asks_for_fhir_gets_it(
    served: TestClient, lesion_png: bytes, accept: str | None, query: str | None, fhir: bool
) -> None:
    for image, failed in ((lesion_png, False), (b"no image", True)):
        response = served.post(
            "/predict",
            files={"image": image},
            params={"heatmap": False} | ({"format": query} if query else {}),
            headers={"Accept": accept} if accept is not None else {},
        )
        assert (response.status_code == 415) == failed
        kinds = {False: "application/json", True: "application/problem+json"}
        assert response.headers["content-type"] == (FHIR if fhir else kinds[failed])


def test_references_are_where_fhir_has_them(served: TestClient, lesion_png: bytes) -> None:
    headers = {
        "X-FHIR-Subject": "Patient/a-1.b",
        "X-FHIR-Encounter": "Encounter/2",
        "X-FHIR-Imaging-Study": "ImagingStudy/3",
        "X-FHIR-Based-On": "ServiceRequest/4",
    }
    bundle = ask(served, lesion_png, headers).json()
    assert_valid(bundle)
    for kind in ("DiagnosticReport", "Observation", "Media"):
        for resource in resources(bundle, kind):
            assert resource["subject"]["reference"] == "Patient/a-1.b"
            assert resource["encounter"]["reference"] == "Encounter/2"
            assert resource["basedOn"] == [{"reference": "ServiceRequest/4"}]


@pytest.mark.parametrize(
    "subject",
    [
        "Practitioner/1",
        "Patient/%20",
        "Patient/" + "a" * 65,
        "Patient/1/_history/2",
        "Patient/1?x=y",
        "http://elsewhere/Patient/1",
        "Patient/Zzyzx Quux",
        'Patient/1","status":"final',
    ],
)
def test_what_is_no_reference_is_refused_and_not_repeated(
    served: TestClient, lesion_png: bytes, subject: str
) -> None:
    response = ask(served, lesion_png, {"X-FHIR-Subject": subject})
    assert response.status_code == 422
    outcome = response.json()
    assert_valid(outcome)
    assert outcome["issue"][0]["code"] == "invalid"
    assert "x-fhir-subject" in outcome["issue"][0]["diagnostics"]
    assert subject not in response.text


def test_nobody_else_learns_whom_it_is_about(
    served: TestClient, audit: Path, lesion_png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        response = ask(served, lesion_png, {"X-FHIR-Subject": "Patient/Zzyzx-Quux"})
    assert "Patient/Zzyzx-Quux" in response.text
    logged = json.dumps([record.__dict__ for record in caplog.records], default=str)
    records = "".join(path.read_text() for path in audit.rglob("*.json*"))
    assert response.headers["x-request-id"] in records
    for elsewhere in (logged, records, served.get("/metrics").text):
        assert "Zzyzx" not in elsewhere


@pytest.mark.parametrize(
    ("image", "params", "status", "code"),
    [
        (b"", {}, 422, "invalid"),
        (b"no image", {}, 415, "not-supported"),
        (b"x" * 300_000, {}, 413, "too-long"),
        (GREEN, {"model": "none"}, 404, "not-found"),
        (GREEN, {"heatmap_class": "?"}, 422, "invalid"),
        (GREEN, {"model": "light", "heatmap_method": "attention"}, 422, "not-supported"),
    ],
)
def test_a_failure_is_an_outcome_of_the_same_status(
    served: TestClient, image: bytes, params: dict[str, Any], status: int, code: str
) -> None:
    response = ask(served, image, **params)
    plain = served.post("/predict", files={"image": image}, params=params)
    assert response.status_code == plain.status_code == status
    assert response.headers["content-type"] == FHIR
    outcome = response.json()
    assert_valid(outcome)
    (issue,) = outcome["issue"]
    assert issue["code"] == code
    assert issue["details"]["text"] == plain.json()["title"]
    assert response.headers["x-request-id"] in issue["diagnostics"]


@pytest.mark.parametrize("error", descendants(DermHybridError), ids=lambda e: e.__name__)
def test_every_failure_has_a_code_of_the_standard(error: type[DermHybridError]) -> None:
    failure = error.__new__(error)
    for name, value in (("retry_after_seconds", 1.0), ("invalid", True), ("scope", "predict")):
        setattr(failure, name, value)
    outcome = make_outcome(json.loads(bytes(domain_problem(failure).body)))
    system = definitions("valuesets")["http://hl7.org/fhir/issue-type"]
    known = {
        child["code"]
        for concept in system["concept"]
        for child in [concept, *concept.get("concept", [])]
    }
    assert outcome["issue"][0]["code"] in known - {"processing"}


def test_a_busy_service_keeps_its_retry_after(ruled_models: Path, lesion_png: bytes) -> None:
    app = create_app(
        Settings(models_dir=ruled_models, runtime="openvino", max_predictions_in_progress=1)
    )

    async def scenario() -> list[httpx2.Response]:
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app=app), base_url="http://service"
            ) as client,
        ):
            requests = [
                client.post("/predict", files={"image": lesion_png}, headers={"Accept": FHIR})
                for _ in range(5)
            ]
            return await asyncio.gather(*requests)

    answers = asyncio.run(scenario())
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(refused) == 4
    for answer in refused:
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["issue"][0]["code"] == "throttled"


def test_an_unexpected_failure_is_an_outcome_without_a_word_of_it(ruled_models: Path) -> None:
    app = create_app(Settings(models_dir=ruled_models, runtime="openvino"))

    @app.get("/fhir/boom", dependencies=[requires(Scope.PREDICT)])
    def boom() -> None:
        raise RuntimeError("patient Jane Roe")

    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.get("/fhir/boom")
    assert response.status_code == 500
    assert response.json()["issue"][0]["code"] == "exception"
    assert "Jane" not in response.text


# A real server.


def test_a_fhir_server_takes_the_answer(
    served: TestClient, fhir_server: str, lesion_png: bytes
) -> None:
    patient = {"resourceType": "Patient", "name": [{"family": "Test"}]}
    with httpx2.Client(base_url=fhir_server) as server:
        number = server.post("/Patient", json=patient).json()["id"]
        subject = f"Patient/{number}"
        sent = {"X-FHIR-Subject": subject, "X-Request-ID": "request-1"}
        bundle = ask(served, lesion_png, sent, model="light").json()
        stored = server.post("/", json=bundle)
        assert stored.status_code == 200
        assert [entry["response"]["status"] for entry in stored.json()["entry"]] == ["201"] * 7
        found = server.get("/DiagnosticReport", params={"subject": subject}).json()
        (report,) = resources(found, "DiagnosticReport")
        assert report["status"] == "preliminary"
        for reference in [
            report["subject"],
            *report["result"],
            *(media["link"] for media in report["media"]),
        ]:
            assert server.get(f"/{reference['reference']}").status_code == 200
        of_report = server.get(
            "/Provenance", params={"target": f"DiagnosticReport/{report['id']}"}
        ).json()
        (provenance,) = resources(of_report, "Provenance")
        device = server.get(f"/{provenance['agent'][0]['who']['reference']}").json()
        assert device["modelNumber"] == "light"

        again = ask(served, lesion_png, sent, model="light").json()
        repeated = server.post("/", json=again).json()
        assert [entry["response"]["status"] for entry in repeated["entry"]] == ["200"] * 7
        assert server.get("/DiagnosticReport").json()["total"] == 1


def test_the_server_refuses_a_bundle_that_is_wrong(
    served: TestClient, fhir_server: str, lesion_png: bytes
) -> None:
    bundle = ask(served, lesion_png, {"X-Request-ID": "wrong"}, model="light").json()
    for resource in resources(bundle, "Observation"):
        del resource["code"]
    stored = httpx2.post(f"{fhir_server}/", json=bundle).json()
    statuses = {entry["response"]["status"] for entry in stored.get("entry", [])}
    assert stored["resourceType"] == "OperationOutcome" or "400" in statuses


def test_what_nobody_is_left_to_read_is_passed_on() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/fhir/metadata", "headers": [], "query_string": b""}
    asyncio.run(SpeakFhir(client_closed())(scope, None, send))  # type: ignore[arg-type]
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 499
