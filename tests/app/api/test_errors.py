"""Every failure has a status and a shape."""

import json
import logging

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api.errors import install_error_handlers, status_of
from app.domain.errors import DermHybridError


def descendants(error: type[DermHybridError]) -> list[type[DermHybridError]]:
    children = error.__subclasses__()
    return children + [d for child in children for d in descendants(child)]


@pytest.mark.parametrize("error", descendants(DermHybridError), ids=lambda e: e.__name__)
def test_every_domain_error_has_a_status(error: type[DermHybridError]) -> None:
    assert 400 <= status_of(error("x")) < 600


def test_an_unlisted_branch_is_noticed() -> None:
    class StrangeError(DermHybridError):
        pass

    with pytest.raises(LookupError, match="StrangeError"):
        status_of(StrangeError())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/predict", 405), ("DELETE", "/models", 405)],
)
def test_http_errors_are_problems_too(
    client: TestClient, method: str, path: str, status: int
) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert set(response.json()) == {"type", "title", "status", "detail", "request_id"}
    if status == 405:
        assert response.headers["allow"]


def test_unexpected_error_reveals_nothing(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/boom")
    def boom() -> None:
        raise RuntimeError("patient Jane Roe")

    with caplog.at_level(logging.ERROR):
        response = TestClient(app, raise_server_exceptions=False).get("/boom")
    assert response.status_code == 500
    assert response.json()["type"] == "urn:dermhybrid:problem:internal-error"
    logged = json.dumps([record.__dict__ for record in caplog.records], default=str)
    assert "Jane" not in response.text
    assert "RuntimeError" in logged
