"""The DICOM worker of an application whose machine has nothing left for a moment."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.domain.errors import DicomQueueError
from app.interop.dicom_jobs import State
from app.interop.dicom_queue import JobQueue
from app.main import create_app
from app.settings import Settings
from tests.dicom_photographs import make_dataset, to_bytes


def settings_of(models: Path, folder: Path) -> Settings:
    """With an archive that nobody listens for."""
    return Settings(
        models_dir=models,
        dicom_queue_dir=folder / "queue",
        dicom_store_peer="ARCHIVE@127.0.0.1:1",
        dicom_retry_seconds=300,
    )


def send_photograph(client: TestClient) -> dict[str, Any]:
    """The job of one."""
    headers = {"Content-Type": "application/dicom"}
    taken = client.post("/dicom/studies", content=to_bytes(make_dataset()), headers=headers)
    assert taken.status_code == 202
    (job,) = taken.json()["jobs"]
    return dict(job)


def await_first_attempt(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    """The job when it has failed once."""
    give_up = time.monotonic() + 120
    while not job["attempts"]:
        assert time.monotonic() < give_up, job
        time.sleep(0.1)
        job = client.get(f"/dicom/jobs/{job['id']}").json()
    return job


def fails_once(real: Callable[..., Any], error: Exception) -> Callable[..., Any]:
    errors = [error]

    def method(*arguments: Any) -> Any:
        if errors:
            raise errors.pop()
        return real(*arguments)

    return method


@pytest.mark.parametrize(
    ("method", "error", "problem"),
    [
        ("start_next", MemoryError("Jane Roe"), "dicom-delivery"),
        ("start_next", RuntimeError("can't start new thread"), "dicom-delivery"),
        ("discard_dead", MemoryError(), "dicom-delivery"),
        ("photograph", MemoryError(), "resources-exhausted"),
        ("photograph", KeyError("Jane Roe"), "internal-error"),
    ],
)
def test_the_worker_goes_on(
    tiny_models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    method: str,
    error: Exception,
    problem: str,
) -> None:
    monkeypatch.setattr(JobQueue, method, fails_once(getattr(JobQueue, method), error))
    with (
        caplog.at_level(logging.ERROR),
        TestClient(create_app(settings_of(tiny_models, tmp_path))) as client,
    ):
        job = await_first_attempt(client, send_photograph(client))
    assert job["problem"] == problem
    assert f"unexpected {type(error).__name__}" in caplog.messages
    assert "Jane" not in str([record.__dict__ for record in caplog.records])


def test_a_queue_that_fails_makes_its_job_wait_and_not_die(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []

    def refuse(_queue: JobQueue, identifier: str, _results: object) -> None:
        starts.append(identifier)
        raise DicomQueueError("the disk is full")

    monkeypatch.setattr(JobQueue, "keep_results", refuse)
    with TestClient(create_app(settings_of(tiny_models, tmp_path))) as client:
        job = await_first_attempt(client, send_photograph(client))
        time.sleep(2.5)  # looks for work more than twice
        job = client.get(f"/dicom/jobs/{job['id']}").json()
    assert (job["state"], job["problem"], job["attempts"]) == ("waiting", "dicom-queue", 1)
    assert len(starts) == 1


def test_a_stop_waits_for_the_job_at_hand(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, begun = JobQueue.keep_results, Event()

    def slowly(queue: JobQueue, *arguments: Any) -> None:
        begun.set()
        time.sleep(1.0)
        keep(queue, *arguments)

    monkeypatch.setattr(JobQueue, "keep_results", slowly)
    with TestClient(create_app(settings_of(tiny_models, tmp_path))) as client:
        send_photograph(client)
        assert begun.wait(120)
    queue = JobQueue(tmp_path / "queue", max_waiting=1)
    assert queue.count()[State.ANSWERED] == 1
    queue.close()
