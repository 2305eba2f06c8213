"""No route answers a caller that it should not, those of tomorrow included."""

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI, Response
from fastapi.testclient import TestClient
from prometheus_client import generate_latest
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Message

from app.access.keys import create_key
from app.access.scopes import OPERATIONS, Scope
from app.api.guard import (
    OPERATORS_PREFIXES,
    PUBLIC_PATHS,
    Requirements,
    check_requirements,
    requires,
)
from app.api.secure_headers import SECURITY_HEADERS, SecureHeaders
from app.interop.dicom_jobs import State
from app.main import create_app
from app.settings import Settings
from tests.conftest import PLAIN_MODEL
from tests.dicom_photographs import make_dataset, to_bytes
from tests.issuer import AUDIENCE, ISSUER, Issuer, write_jwks
from tests.tiny_artifact import write_tiny_artifact

PAGES = ("/", "/viewer/settings.json", "/smart", "/smart/launch", "/smart/settings.json")
"""What has a policy of its own, since a browser shows it."""


@dataclass
class Secured:
    """The service with every route that it can have, and who calls it."""

    client: TestClient
    routes: list[Requirements]
    issuer: Issuer
    folder: Path
    expired: str

    def key(self, name: str, *scopes: Scope) -> dict[str, str]:
        return bearer(create_key(self.folder / "keys.jsonl", name, list(scopes), None))


def kind(answer: httpx2.Response) -> str:
    """The last part of a problem's type, or what a FHIR OperationOutcome has of it."""
    body = answer.json()
    if body.get("resourceType") == "OperationOutcome":
        (coding,) = body["issue"][0]["details"]["coding"]
        return str(coding["code"])
    return str(body["type"]).removeprefix("urn:dermhybrid:problem:")


def bearer(credential: str) -> dict[str, str]:
    return {"authorization": f"Bearer {credential}"}


@pytest.fixture(scope="module")
def secured(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    issuer = Issuer()
    keys = folder / "keys.jsonl"
    for scope in Scope:
        (folder / scope).write_text(create_key(keys, scope.replace(":", "-"), [scope], None))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    expired = create_key(keys, "expired", list(Scope), yesterday)
    settings = Settings(
        models_dir=tiny_models,
        runtime="openvino",
        audit_dir=folder / "audit",
        cds_hooks=True,
        smart_client_id="viewer",
        smart_issuers="https://ehr.example/fhir",
        dicom_queue_dir=folder / "jobs",
        dicom_store_url="http://127.0.0.1:9/dicom-web",  # nobody listens there
        api_keys_file=keys,
        oauth_issuer=ISSUER,
        oauth_audience=AUDIENCE,
        oauth_jwks=str(write_jwks(folder / "jwks.json", issuer)),
    )
    app = create_app(settings)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Secured(client, check_requirements(app), issuer, folder, expired)


def guarded(secured: Secured) -> list[tuple[str, str, Scope]]:
    """Method, path and scope of every route that is not public."""
    found = [
        (method, re.sub(r"\{[^}]+\}", "x", route.path), route.scope)
        for route in secured.routes
        if route.scope is not None
        for method in route.methods
    ]
    assert len(found) >= 8
    return found


def test_the_table_has_what_the_api_describes(secured: Secured) -> None:
    documented = {
        (method.upper(), path)
        for path, methods in secured.client.get("/openapi.json").json()["paths"].items()
        for method in methods
    }
    operations = secured.client.get("/openapi.json").json()["paths"]
    for route in secured.routes:
        for method in route.methods if route.path in operations else ():
            described = operations[route.path][method.lower()]
            needed = [{"credential": [route.scope]}] if route.scope else None
            assert described.get("security") == needed, route
            assert ({"401", "403", "429"} <= set(described["responses"])) == bool(needed)
    table = {(method, route.path) for route in secured.routes for method in route.methods}
    assert documented <= table
    assert {route.path for route in secured.routes if route.scope is None} == set(PUBLIC_PATHS)
    assert {scope for _, _, scope in guarded(secured)} == set(Scope)


def test_who_sent_photographs_sees_their_own_jobs_and_an_administrator_all(
    secured: Secured,
) -> None:
    archive = secured.key("archive", Scope.REPORTS_WRITE)
    camera = secured.key("camera", Scope.REPORTS_WRITE)
    operator = secured.key("operator", Scope.REPORTS_WRITE, Scope.ADMIN)
    sent = [
        secured.client.post(
            "/dicom/studies",
            content=to_bytes(make_dataset()),
            headers={"Content-Type": "application/dicom", **sender},
        ).json()["jobs"][0]["id"]
        for sender in (archive, camera)
    ]

    def listed(credential: dict[str, str]) -> set[str]:
        return {
            job["id"]
            for state in State
            for job in secured.client.get(
                "/dicom/jobs", params={"state": state}, headers=credential
            ).json()["jobs"]
        }

    assert (listed(archive), listed(camera)) == ({sent[0]}, {sent[1]})
    assert listed(operator) >= set(sent)


def test_every_route_refuses_whoever_is_not_known(secured: Secured) -> None:
    every = " ".join(Scope)
    past = datetime.now(UTC) - timedelta(minutes=5)
    credentials = {
        "nothing": {},
        "another scheme": {"authorization": "Basic ZG9jdG9yOnNlY3JldA=="},
        "an empty one": {"authorization": "Bearer "},
        "a wrong key": bearer("dhk_predict_" + "0" * 64),
        "an expired key": bearer(secured.expired),
        "nonsense": bearer("let-me-in"),
        "an expired token": bearer(secured.issuer.token(every, exp=past)),
        "a token for others": bearer(secured.issuer.token(every, aud="billing")),
        "a token of others": bearer(secured.issuer.token(every, iss="https://example.org")),
        "a forged token": bearer(Issuer().token(every)),
    }
    for method, path, _ in guarded(secured):
        for name, headers in credentials.items():
            answer = secured.client.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path, name)
            assert kind(answer) == "not-authenticated"
            challenge = answer.headers["www-authenticate"]
            assert challenge.startswith('Bearer realm="dermhybrid"')
            known_scheme = name not in {"nothing", "another scheme", "an empty one"}
            assert ("invalid_token" in challenge) == known_scheme


def test_every_route_refuses_whoever_lacks_its_scope(secured: Secured) -> None:
    for method, path, scope in guarded(secured):
        others = [other for other in Scope if other is not scope]
        credentials = [
            *(bearer((secured.folder / other).read_text()) for other in others),
            bearer(secured.issuer.token(" ".join(others))),
            bearer(secured.issuer.token("")),
        ]
        for headers in credentials:
            answer = secured.client.request(method, path, headers=headers)
            assert answer.status_code == 403, (method, path)
            assert kind(answer) == "not-authorized"
            assert (
                f'error="insufficient_scope", scope="{scope}"'
                in (answer.headers["www-authenticate"])
            )


def test_every_route_lets_in_whoever_may(secured: Secured) -> None:
    for method, path, scope in guarded(secured):
        for credential in ((secured.folder / scope).read_text(), secured.issuer.token(scope)):
            answer = secured.client.request(method, path, headers=bearer(credential))
            assert answer.status_code not in {401, 403}, (method, path)


def test_public_paths_are_open_and_nothing_like_them_is(secured: Secured) -> None:
    for path in PUBLIC_PATHS:
        if "{" in path:
            continue
        assert secured.client.get(path).status_code == 200
    for path in (
        "/nowhere",
        "/health",
        "/health/live/",
        "/health/live/../../metrics",
        "/health/live%2f..%2f..%2fmetrics",
        "http://testserver//metrics",
        "/METRICS",
        "/metrics/",
        "/models/",
    ):
        assert secured.client.get(path).status_code == 401, path


def test_health_says_whether_callers_are_told_apart(secured: Secured, client: TestClient) -> None:
    assert secured.client.get("/health/ready").json()["authentication"] == "required"
    assert client.get("/health/ready").json()["authentication"] == "off"


def test_the_audit_record_names_the_credential(secured: Secured, lesion_png: bytes) -> None:
    callers = {
        "key:predict": (secured.folder / "predict").read_text(),
        "oauth:ehr": secured.issuer.token("predict"),
    }
    for name, credential in callers.items():
        answer = secured.client.post(
            "/predict", files={"image": lesion_png}, headers=bearer(credential)
        )
        assert answer.status_code == 200
        records = "".join(path.read_text() for path in (secured.folder / "audit").glob("*.jsonl"))
        (record,) = [
            record
            for record in map(json.loads, records.splitlines())
            if record["request_id"] == answer.json()["request_id"]
        ]
        assert record["caller"] == name
        assert credential not in records


def test_the_body_of_a_refused_request_is_not_read(secured: Secured) -> None:
    sent: list[Message] = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "raw_path": b"/predict",
        "query_string": b"",
        "headers": [(b"content-type", b"image/png")],
    }

    async def receive() -> Message:
        raise AssertionError("read")

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(secured.client.app(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 401


def test_every_answer_has_the_security_headers(secured: Secured, lesion_png: bytes) -> None:
    headers = bearer(secured.issuer.token("predict"))
    client = secured.client
    answers = [
        *(client.request(method, path) for method, path, _ in guarded(secured)),
        *(client.get(path) for path in PUBLIC_PATHS if path not in PAGES),
        client.post("/predict", files={"image": lesion_png}, headers=headers),
        client.post("/predict/batch", files={"image": lesion_png}, headers=headers),
        client.post("/predict", headers=headers),
        client.get("/nowhere", headers=headers),
        client.get("/predict", headers={**headers, "x-request-timeout": "never"}),
    ]
    assert {answer.status_code for answer in answers} == {200, 401, 404, 415, 422}
    for answer in answers:
        assert SECURITY_HEADERS.items() <= dict(answer.headers).items()
        assert "strict-transport-security" not in answer.headers
        assert not {"server", "x-powered-by"} & set(answer.headers)


@pytest.mark.parametrize("path", PAGES)
def test_the_pages_files_have_headers_of_their_own(secured: Secured, path: str) -> None:
    headers = secured.client.get(path).headers
    assert headers.keys() >= SECURITY_HEADERS.keys()
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")


def test_an_answer_keeps_its_own_policy() -> None:
    app = FastAPI()
    app.add_api_route("/page", lambda: Response(headers={"content-security-policy": "own"}))
    app.add_middleware(SecureHeaders, encrypted=True)
    answer = TestClient(app).get("/page")
    assert answer.headers.get_list("content-security-policy") == ["own"]
    assert answer.headers["strict-transport-security"] == "max-age=63072000"


def test_no_credential_is_logged(secured: Secured, caplog: pytest.LogCaptureFixture) -> None:
    credentials = [secured.issuer.token("predict"), secured.expired, "dhk_predict_" + "0" * 64]
    with caplog.at_level(logging.DEBUG):
        for credential in credentials:
            answer = secured.client.get("/metrics", headers=bearer(credential))
            assert credential not in answer.text
    logged = json.dumps([record.__dict__ for record in caplog.records], default=str)
    assert not [credential for credential in credentials if credential in logged]


def test_the_log_names_the_credential_or_the_address_of_who_is_refused(
    secured: Secured, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = TestClient(secured.client.app, client=("192.0.2.7", 50000))
    with caplog.at_level(logging.INFO):
        for credential in ((secured.folder / "metrics").read_text(), "dhk_metrics_" + "0" * 64):
            elsewhere.get("/metrics", headers=bearer(credential))
    lines = [record.__dict__ for record in caplog.records if record.message == "request"]
    assert [(line["caller"], line["status"]) for line in lines] == [
        ("key:metrics", 200),
        ("192.0.2.7", 401),
    ]


def test_a_refusal_of_a_prediction_is_counted_and_logged_as_one(
    tiny_models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nobody = "https://127.0.0.1:1/jwks"
    settings = Settings(
        models_dir=tiny_models, oauth_issuer=ISSUER, oauth_audience=AUDIENCE, oauth_jwks=nobody
    )
    credentials = bearer(Issuer().token("predict"))
    with TestClient(app := create_app(settings)) as client, caplog.at_level(logging.INFO):
        for path in ("/predict", "/predict/patient-a"):
            assert client.post(path, content=b"x", headers=credentials).status_code == 503
        text = generate_latest(app.state.services.metrics.registry).decode()
    problem = "identity-provider-unavailable"
    for route in ("/predict", "unmatched"):
        assert f'problems_total{{problem="{problem}",route="{route}"}} 1.0' in text
        assert f'method="POST",route="{route}",status="503"}} 1.0' in text
    assert "patient-a" not in text
    requests = [vars(record) for record in caplog.records if record.message == "request"]
    assert [line["problem"] for line in requests] == [problem, problem]


@pytest.mark.parametrize("kind", ["route", "mount"])
def test_a_route_that_was_forgotten_stops_the_start(tiny_models: Path, kind: str) -> None:
    app = create_app(Settings(models_dir=tiny_models, runtime="openvino"))
    if kind == "route":
        app.add_api_route("/new", lambda: None)
    else:
        app.router.routes.append(Mount("/new", StaticFiles(directory=tiny_models)))
    with pytest.raises(RuntimeError, match="/new must require one scope"), TestClient(app):
        pass


def test_a_public_path_that_covers_a_guarded_route_stops_the_start() -> None:
    app = FastAPI(openapi_url=None)
    app.add_api_route(PUBLIC_PATHS[0], lambda: None, dependencies=[requires(Scope.ADMIN)])
    with pytest.raises(RuntimeError, match="require none"):
        check_requirements(app)


def test_operators_routes_and_the_health_are_all_that_begins_as_their_ports_paths(
    secured: Secured,
) -> None:
    for route in secured.routes:
        on_their_port = route.scope in OPERATIONS or route.path.startswith("/health/")
        assert route.path.startswith(OPERATORS_PREFIXES) == on_their_port, route.path


def test_a_caller_gets_no_more_than_its_share(
    tiny_models: Path, tmp_path: Path, lesion_png: bytes
) -> None:
    keys = tmp_path / "keys.jsonl"
    one, two = (bearer(create_key(keys, name, [Scope.PREDICT], None)) for name in ("one", "two"))
    settings = Settings(
        models_dir=tiny_models,
        runtime="openvino",
        api_keys_file=keys,
        quota_per_minute=0.1,
        quota_burst=4,
    )
    with TestClient(create_app(settings)) as client:
        batch = [("image", lesion_png)] * 3
        assert client.post("/predict/batch", files=batch, headers=one).status_code == 200
        assert client.post("/predict", files={"image": lesion_png}, headers=one).status_code == 200
        refused = client.post("/predict", files={"image": lesion_png}, headers=one)
        assert refused.status_code == 429
        assert refused.json()["type"] == "urn:dermhybrid:problem:quota-exceeded"
        assert 590 <= int(refused.headers["retry-after"]) <= 600
        assert client.get("/health/ready", headers=one).status_code == 200
        assert client.post("/predict", files={"image": lesion_png}, headers=two).status_code == 200


def test_models_are_reloaded_by_administrators(own_models: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.jsonl"
    admin = bearer(create_key(keys, "admin", [Scope.ADMIN, Scope.MODELS_READ], None))
    settings = Settings(
        models_dir=own_models, default_model=PLAIN_MODEL, api_keys_file=keys, runtime="openvino"
    )
    with TestClient(create_app(settings)) as client:
        write_tiny_artifact(own_models, PLAIN_MODEL, version=3, seed=9)
        served = client.post("/admin/reload", headers=admin)
        assert served.status_code == 200
        assert [m["version"] for m in served.json()["models"] if m["default"]] == [3]
        assert client.get(f"/models/{PLAIN_MODEL}", headers=admin).json()["version"] == 3

        (own_models / PLAIN_MODEL / "1" / "golden_input.png").unlink()
        refused = client.post("/admin/reload", headers=admin)
        assert refused.status_code == 409
        assert refused.json()["type"] == "urn:dermhybrid:problem:artifact-incomplete"
        assert "golden_input.png" in refused.json()["detail"]
        assert client.get(f"/models/{PLAIN_MODEL}@1", headers=admin).status_code == 200


def test_where_nobody_is_told_apart_there_is_no_administration(client: TestClient) -> None:
    assert client.post("/admin/reload").status_code == 404
    assert "/admin/reload" not in client.get("/openapi.json").json()["paths"]


def test_who_may_ask_may_not_write_into_a_record(secured: Secured, lesion_png: bytes) -> None:
    answer = secured.client.post(
        "/predict",
        files={"image": lesion_png},
        params={"format": "fhir", "store": "true"},
        headers={**bearer((secured.folder / "predict").read_text()), "X-FHIR-Subject": "Patient/1"},
    )
    assert answer.status_code == 403
    assert kind(answer) == "not-authorized"


@pytest.mark.parametrize("path", ["/predict%0A", "/dicom/studies%0A", "/predict/batch%0a", "/%00"])
def test_a_path_that_only_looks_like_a_route_is_none(secured: Secured, path: str) -> None:
    key = bearer((secured.folder / "predict").read_text())
    assert secured.client.post(path, headers=key).status_code == 404
