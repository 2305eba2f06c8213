"""The pages of a launch as the service sends them, and who may set what."""

import json
import re
from collections.abc import Iterator
from hashlib import sha256

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from app.main import create_app
from app.settings import Settings
from tests.app.api.test_viewer import VIEWER

SMART = VIEWER / "smart"
LIBRARY = SMART / "vendor" / "fhirclient"
SOURCES = sorted(path for path in SMART.glob("*") if path.suffix in (".js", ".html", ".css"))
ISSUERS = "https://ehr.example/fhir/r4/ https://other.example:8443"
ORIGINS = "https://ehr.example https://other.example:8443 https://login.example"


@pytest.fixture(scope="module")
def launched(tiny_models: object) -> Iterator[TestClient]:
    """A service that two records may launch."""
    settings = Settings.model_validate(
        {
            "models_dir": tiny_models,
            "runtime": "openvino",
            "smart_client_id": "dermhybrid",
            "smart_issuers": ISSUERS,
            "smart_authorization_origins": "https://login.example",
            "viewer_frame_ancestors": "https://ehr.example",
        }
    )
    with TestClient(create_app(settings)) as client:
        yield client


def test_the_pages_may_ask_the_named_servers_and_no_others(launched: TestClient) -> None:
    for path in ("/smart", "/smart/launch", "/smart/settings.json"):
        headers = launched.get(path).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["connect-src"] == f"'self' {ORIGINS}"
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["frame-ancestors"] == "https://ehr.example"
        assert policy["trusted-types"] == "'none'"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
    plain = launched.get("/").headers["content-security-policy"]
    assert "connect-src 'self';" in plain


def test_the_chart_page_is_the_viewer_itself(launched: TestClient) -> None:
    assert launched.get("/smart").text == launched.get("/").text
    assert launched.head("/smart/launch").status_code == 200
    assert launched.get("/smart/launch").text == (SMART / "launch.html").read_text("utf-8")


def test_what_the_page_is_told(launched: TestClient) -> None:
    assert launched.get("/smart/settings.json").json() == {
        "client_id": "dermhybrid",
        "issuers": ["https://ehr.example/fhir/r4", "https://other.example:8443"],
        "authorization_origins": ["https://login.example"],
        "scopes": Settings().smart_scopes,
    }


def test_a_launch_is_counted_without_its_address(launched: TestClient) -> None:
    launched.get("/smart/launch?iss=https://ehr.example/fhir/r4&launch=opaque4711")
    launched.get("/smart?code=code4711&state=state4711")
    metrics = launched.get("/metrics").text
    assert 'route="/smart/launch"' in metrics
    assert "4711" not in metrics


def test_without_settings_there_is_no_launch(client: TestClient) -> None:
    for path in ("/smart", "/smart/launch", "/smart/settings.json"):
        assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    "settings",
    [
        {"smart_client_id": "x"},
        {"smart_issuers": "https://ehr.example"},
        {"smart_authorization_origins": "https://login.example"},
        {"smart_client_id": "", "smart_issuers": "https://ehr.example"},
        *(
            {"smart_client_id": "x", "smart_issuers": issuers}
            for issuers in (
                "http://ehr.example",
                "ehr.example",
                "https://*.example",
                "https://ehr.example; script-src *",
                "https://ehr.example/a?b",
                "https://user:word@ehr.example",
                "https://ehr.example https://ehr.example/a;b",
                "https://ehr.example:443/fhir",
                "https://ehr.example:0444",
                "http://localhost:80",
            )
        ),
        {
            "smart_client_id": "x",
            "smart_issuers": "https://ehr.example",
            "smart_authorization_origins": "https://login.example/authorize",
        },
        {"viewer_frame_ancestors": "https://ehr.example https://ward.example:443"},
        *(
            {"smart_client_id": "x", "smart_issuers": "https://ehr.example", "smart_scopes": scopes}
            for scopes in ("patient/*.rs launch", "offline_access", "", 'a "b"')
        ),
    ],
)
def test_what_cannot_be_meant_stops_the_start(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(settings)


def test_a_server_on_this_machine_needs_no_encryption() -> None:
    Settings(smart_client_id="x", smart_issuers="http://localhost:8080/fhir http://127.0.0.1:1")


def test_the_library_is_the_one_that_its_readme_names() -> None:
    readme = (LIBRARY / "README.md").read_text("utf-8")
    named = dict(re.findall(r"^\| `([^`]+)` \| `([0-9a-f]{64})` \|$", readme, re.MULTILINE))
    files = {path.name: path for path in LIBRARY.iterdir() if path.name != "README.md"}
    assert named.keys() == files.keys()
    for name, path in files.items():
        assert sha256(path.read_bytes()).hexdigest() == named[name]


def test_the_pages_have_no_inline_code_and_name_no_other_host() -> None:
    page = (SMART / "launch.html").read_text("utf-8")
    assert not re.search(r"<style|\son\w+=|style=|<script(?![^>]* src=)", page)
    for path in SOURCES:
        assert not re.search(r"https?://[a-z]", path.read_text("utf-8")), path


def test_every_language_has_every_text() -> None:
    english, *others = (
        json.loads(path.read_text("utf-8"))
        for path in sorted((SMART / "texts").glob("*.json"))[::-1]
    )
    plain = json.loads((VIEWER / "texts" / "en.json").read_text("utf-8"))
    assert not english.keys() & plain.keys()
    sources = "".join(path.read_text("utf-8") for path in SOURCES)
    asked = set(re.findall(r'\bt\("([^"]+)"', sources))
    asked |= set(re.findall(r'\b(?:row|fact|offer|refusalNote)\("([^"]+)"', sources))
    asked |= set(re.findall(r'data-(?:text|label)="([^"]+)"', sources))
    asked |= {f"refused.{kind}" for kind in re.findall(r'new Refusal\("([^"]+)"', sources)}
    asked |= {f"sex.{sex}" for sex in ("male", "female", "other", "unknown")}
    assert len(asked) > 50
    assert asked <= english.keys() | plain.keys()
    for texts in others:
        assert texts.keys() == english.keys()
        for key, text in texts.items():
            assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", english[key])), key
