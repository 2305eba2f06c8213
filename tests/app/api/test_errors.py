"""Every failure has a status and a shape."""

import asyncio
import errno
import json
import logging
import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from starlette.types import Message

from app.access.scopes import Scope
from app.api.errors import kind_of, status_of
from app.api.guard import requires
from app.domain.errors import INTERNAL_ERROR, DermHybridError
from app.main import create_app
from app.settings import Settings
from tests.conftest import REPOSITORY


def descendants(error: type[DermHybridError]) -> list[type[DermHybridError]]:
    children = error.__subclasses__()
    return children + [d for child in children for d in descendants(child)]


@pytest.mark.parametrize("error", descendants(DermHybridError), ids=lambda e: e.__name__)
def test_every_domain_error_has_a_status(error: type[DermHybridError]) -> None:
    assert 400 <= status_of(error.__new__(error)) < 600


NEVER_ANSWERED = {
    *("settings-refused", "access-configuration", "tracing-unavailable"),  # they stop the start
    *("audit-damaged", "dicom-delivery"),  # a command's; a job's
}


def test_the_readme_has_every_problem_that_a_caller_may_meet() -> None:
    leaves = [e for e in descendants(DermHybridError) if not e.__subclasses__()]
    kinds = {kind_of(e.__new__(e)) for e in leaves if e.__module__ == DermHybridError.__module__}
    table = (REPOSITORY / "README.md").read_text(encoding="utf-8").split("`type` ends in")[1]
    documented = set(re.findall(r"`([a-z-]+)`", table.split("\n\n")[0]))
    assert kinds - documented == NEVER_ANSWERED
    # And those that no error of the domain has: the code's own words, and HTTP's.
    code = "".join(path.read_text() for path in (REPOSITORY / "app" / "api").glob("*.py"))
    words = set(re.findall(r'\bproblem\(\s*\d+,\s*"([a-z-]+)"', code))
    statuses = {int(status) for status in re.findall(r"\bHTTPException\(\s*(\d+)", code)}
    assert (len(words), len(statuses)) >= (2, 3)
    of_http = {HTTPStatus(s).phrase.lower().replace(" ", "-") for s in statuses | {400, 404, 405}}
    assert (words | of_http | {INTERNAL_ERROR}) - documented == set()


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


def internal_errors(app: FastAPI) -> dict[str, float]:
    """How many each route has had."""
    (family,) = app.state.services.metrics.problems.collect()
    return {
        sample.labels["route"]: sample.value
        for sample in family.samples
        if sample.labels["problem"] == "internal-error"
    }


def test_unexpected_error_reveals_nothing(
    tiny_models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(Settings(models_dir=tiny_models))

    @app.get("/boom", dependencies=[requires(Scope.PREDICT)])
    def boom() -> None:
        raise RuntimeError("patient Jane Roe")

    # The test client re-raises whatever a server would log with its message.
    with caplog.at_level(logging.DEBUG), TestClient(app) as client:
        before = internal_errors(app)
        response = client.get("/boom", headers={"x-request-id": "request-9"})
    # A series that only the first error made would show Prometheus no increase.
    assert {"/boom", "/predict", "/predict/batch", "/models/{name}", "unmatched"} <= set(before)
    assert not any(before.values())
    assert internal_errors(app) == {**before, "/boom": 1}
    body = response.json()
    assert response.status_code == 500
    assert body["type"] == "urn:dermhybrid:problem:internal-error"
    assert body["request_id"] == response.headers["x-request-id"] == "request-9"
    logged = json.dumps([record.__dict__ for record in caplog.records], default=str)
    assert "Jane" not in response.text
    assert "Jane" not in logged
    assert "RuntimeError" in logged


def test_an_error_in_the_middle_of_an_answer_is_counted(tiny_models: Path) -> None:
    app = create_app(Settings(models_dir=tiny_models))

    async def pieces() -> AsyncIterator[bytes]:
        yield b"the first"
        raise RuntimeError

    @app.get("/boom", dependencies=[requires(Scope.PREDICT)])
    def boom() -> StreamingResponse:
        return StreamingResponse(pieces())

    with TestClient(app) as client:
        client.get("/boom")
    assert internal_errors(app)["/boom"] == 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOSPC, "patient Jane Roe"),
        OSError(errno.EMFILE, "patient Jane Roe"),
        OSError("out of memory when reading image file"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
    ],
    ids=repr,
)
def test_a_machine_with_nothing_left_is_no_defect(tiny_models: Path, error: Exception) -> None:
    app = create_app(Settings(models_dir=tiny_models))

    @app.get("/boom", dependencies=[requires(Scope.PREDICT)])
    def boom() -> None:
        raise error

    with TestClient(app) as client:
        response = client.get("/boom")
    assert response.status_code == 503
    assert response.json()["type"] == "urn:dermhybrid:problem:resources-exhausted"
    assert response.headers["retry-after"] == "1"
    assert "Jane" not in response.text


def test_a_caller_that_leaves_is_no_error(
    tiny_models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(Settings(models_dir=tiny_models))
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "raw_path": b"/predict",
        "query_string": b"",
        "headers": [(b"content-type", b"image/png")],
    }
    messages: list[Message] = [
        {"type": "http.request", "body": b"half of an im", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(_message: Message) -> None:
        pass

    async def scenario() -> None:
        async with app.router.lifespan_context(app):
            await app(scope, receive, send)

    caplog.clear()  # of the warning that anybody may call it
    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    (line,) = [record for record in caplog.records if record.getMessage() == "request"]
    assert line.__dict__["status"] == 499
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
