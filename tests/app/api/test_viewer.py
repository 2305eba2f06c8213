"""The page's files as the service sends them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from app.domain.decision import Action, Reason
from app.domain.feedback import DiagnosisSource
from app.domain.heatmap_checks import HeatmapFlag
from app.domain.heatmaps import HeatmapMethod
from app.domain.labels import LABELS, Malignancy
from app.domain.notice import RESEARCH_USE_NOTICE
from app.domain.quality import QualityIssue
from app.main import create_app
from app.settings import Settings
from tests.conftest import REPOSITORY

VIEWER = REPOSITORY / "app" / "viewer"
SERVED = sorted(path for path in VIEWER.rglob("*") if path.is_file())
FILES = [path for path in SERVED if path.relative_to(VIEWER).parts[0] != "smart"]
"""Of the plain page: what a launched one has more is in `test_smart.py`."""
LANGUAGES = sorted((VIEWER / "texts").glob("*.json"))
MAX_BYTES = 75_000


@pytest.fixture(scope="module")
def open_client(tiny_models: Path) -> Iterator[TestClient]:
    """A service whose page two origins may embed."""
    settings = Settings(
        models_dir=tiny_models,
        runtime="openvino",
        viewer_frame_ancestors="https://ehr.example http://localhost:8080",
    )
    with TestClient(create_app(settings)) as client:
        yield client


def test_the_page_and_all_its_files_are_served(client: TestClient) -> None:
    assert client.get("/").text == (VIEWER / "index.html").read_text(encoding="utf-8")
    for path in SERVED:
        answer = client.get(f"/viewer/{path.relative_to(VIEWER)}")
        assert answer.content == path.read_bytes()
        assert client.head(f"/viewer/{path.relative_to(VIEWER)}").status_code == 200
    assert "javascript" in client.get("/viewer/scripts/main.js").headers["content-type"]


def test_little_is_sent_for_the_whole_page(client: TestClient) -> None:
    paths = [f"/viewer/{path.relative_to(VIEWER)}" for path in FILES]
    answers = [client.get(path, headers={"Accept-Encoding": "gzip"}) for path in paths]
    assert sum(int(answer.headers["content-length"]) for answer in answers) <= MAX_BYTES


def test_a_file_is_sent_as_it_is_to_whoever_takes_no_gzip(client: TestClient) -> None:
    path = "/viewer/scripts/main.js"
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    packed = client.get(path, headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"
    assert plain.content == packed.content == (VIEWER / "scripts" / "main.js").read_bytes()
    picture = client.get("/viewer/examples/drawn-mel.jpg", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in picture.headers  # a JPEG becomes no smaller


def test_headers_let_the_page_load_nothing_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/viewer/scripts/main.js", "/viewer/settings.json"):
        headers = client.get(path).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-cache"


def test_unchanged_files_are_not_sent_again(client: TestClient) -> None:
    tag = client.get("/viewer/scripts/main.js").headers["etag"]
    again = client.get("/viewer/scripts/main.js", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == tag
    assert tag.startswith('W/"')


@pytest.mark.parametrize(
    "path",
    ["nothing.js", "", "%2e%2e/main.py", "..%2f..%2fpyproject.toml", "%2fetc%2fpasswd", "a%00b"],
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    answer = client.get(f"/viewer/{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_requests_for_files_are_counted_by_template(client: TestClient) -> None:
    client.get("/viewer/scripts/main.js")
    assert 'route="/viewer/{path:path}"' in client.get("/metrics").text
    assert "main.js" not in client.get("/metrics").text


def test_who_may_embed_the_page(open_client: TestClient) -> None:
    policy = open_client.get("/").headers["content-security-policy"]
    assert "frame-ancestors https://ehr.example http://localhost:8080;" in policy
    assert open_client.get("/viewer/settings.json").json() == {
        "embedders": ["https://ehr.example", "http://localhost:8080"],
        "feedback": False,
        "authentication": False,
        "max_image_bytes": Settings().max_image_bytes,
    }


@pytest.mark.parametrize(
    "origins",
    ["*", "https://*.example", "https://a.example; script-src *", "https://a.example/x", "ehr"],
)
def test_what_is_no_origin_is_no_setting(origins: str) -> None:
    with pytest.raises(ValidationError):
        Settings(viewer_frame_ancestors=origins)


def test_the_page_has_no_inline_code_and_names_no_other_host() -> None:
    page = (VIEWER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\son\w+=|style=|<script(?![^>]* src=)", page)
    for path in FILES:
        if path.suffix != ".jpg":
            found = set(re.findall(r"https?://[^\"'\s<>]+", path.read_text(encoding="utf-8")))
            assert found <= {"http://www.w3.org/2000/svg"}, path


@pytest.mark.parametrize("path", LANGUAGES, ids=lambda path: path.stem)
def test_every_language_has_every_text(path: Path) -> None:
    english = json.loads((VIEWER / "texts" / "en.json").read_text(encoding="utf-8"))
    texts = json.loads(path.read_text(encoding="utf-8"))
    assert texts.keys() == english.keys()
    for key, text in texts.items():
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", english[key])), key
    groups = {
        "decision": Action,
        "reason": Reason,
        "issue": QualityIssue,
        "flag": HeatmapFlag,
        "method": HeatmapMethod,
        "malignancy": Malignancy,
        "source": DiagnosisSource,
        "class": LABELS,
        "target": ("melanoma", "malignancy"),
    }
    for group, codes in groups.items():
        for code in codes:
            assert texts[f"{group}.{code}"].strip()
    assert english["notice"] == RESEARCH_USE_NOTICE


def test_every_text_that_is_asked_for_is_there() -> None:
    english = json.loads((VIEWER / "texts" / "en.json").read_text(encoding="utf-8"))
    sources = "".join(
        path.read_text(encoding="utf-8") for path in FILES if path.suffix in (".js", ".html")
    )
    asked = set(re.findall(r'\bt\("([^"]+)"', sources))
    asked |= set(re.findall(r'data-(?:text|label)="([^"]+)"', sources))
    assert len(asked) > 50
    assert asked <= english.keys()
