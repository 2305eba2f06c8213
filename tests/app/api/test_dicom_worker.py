"""The DICOM worker of an application whose machine has nothing left for a moment."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import ANY

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from app.domain.errors import DicomQueueError, ServiceBusyError
from app.interop.dicom_jobs import State
from app.interop.dicom_queue import MAX_STARTS, JobQueue
from app.main import create_app
from app.settings import Settings
from tests.dicom_photographs import make_dataset, to_bytes
from tests.ports import free_port


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


def await_first_end(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    """The job when it is given up."""
    give_up = time.monotonic() + 120
    while job["state"] != "dead":
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


def count(client: TestClient, name: str, **labels: str) -> float | None:
    """The value of a metric of DICOM; None where there is no such series."""
    assert isinstance(client.app, FastAPI)
    registry = client.app.state.services.metrics.registry
    found: float | None = registry.get_sample_value(f"dermhybrid_dicom_{name}", labels)
    return found


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
        before = count(client, "failures_total", kind=problem, outcome="postponed")
        job = await_first_attempt(client, send_photograph(client))
        after = count(client, "failures_total", kind=problem, outcome="postponed")
        exhausted = count(client, "worker_failures_total", kind="resources-exhausted")
    assert job["problem"] == problem
    assert (before, after) == (0, 1)
    assert exhausted == (method != "photograph")
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


def test_a_queue_that_no_start_can_be_written_to_is_counted_and_no_job_dies(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_queue: JobQueue) -> None:
        raise DicomQueueError("the disk is full")

    monkeypatch.setattr(JobQueue, "start_next", refuse)
    with TestClient(create_app(settings_of(tiny_models, tmp_path))) as client:
        job = send_photograph(client)
        give_up = time.monotonic() + 60
        while (count(client, "worker_failures_total", kind="dicom-queue") or 0) < 3:
            assert time.monotonic() < give_up
            time.sleep(0.1)
        job = client.get(f"/dicom/jobs/{job['id']}").json()
    assert (job["state"], job["attempts"]) == ("waiting", 0)


@pytest.mark.parametrize(
    ("step", "error", "kind"),
    [
        ("JobQueue.put", DicomQueueError("the disk is full"), "dicom-queue"),
        ("JobQueue.put", ServiceBusyError("too many", retry_after_seconds=60), "service-busy"),
        ("admit", MemoryError(), "resources-exhausted"),
    ],
)
def test_what_is_not_taken_is_counted_however_it_came(
    tiny_models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: Exception,
    kind: str,
) -> None:
    def refuse(*_arguments: Any) -> None:
        raise error

    monkeypatch.setattr(f"app.api.dicom_worker.{step}", refuse)
    port = free_port()
    settings = settings_of(tiny_models, tmp_path).model_copy(update={"dicom_listen_port": port})
    photograph = make_dataset()
    with TestClient(create_app(settings)) as client:
        counts = [count(client, "not_taken_total", kind=kind)]
        headers = {"Content-Type": "application/dicom"}
        answer = client.post("/dicom/studies", content=to_bytes(photograph), headers=headers)
        counts.append(count(client, "not_taken_total", kind=kind))
        status = store(port, photograph)
        counts.append(count(client, "not_taken_total", kind=kind))
    assert (answer.status_code, status) == (503, 0xA700)
    assert counts == [0, 1, 2]


def test_what_is_no_photograph_is_refused_and_counted_however_it_came(
    tiny_models: Path, tmp_path: Path
) -> None:
    port = free_port()
    settings = settings_of(tiny_models, tmp_path).model_copy(update={"dicom_listen_port": port})
    several = make_dataset(NumberOfFrames=2)
    with TestClient(create_app(settings)) as client:
        before = count(client, "refused_total", kind="dicom-frame")
        headers = {"Content-Type": "application/dicom"}
        answer = client.post("/dicom/studies", content=to_bytes(several), headers=headers)
        statuses = (answer.status_code, store(port, several))
        counted = count(client, "refused_total", kind="dicom-frame")
        jobs = client.app.state.services.dicom._queue.count()  # type: ignore[attr-defined]
    assert statuses == (422, 0xC000)
    assert (before, counted) == (0, 2)
    assert sum(jobs.values()) == 0


def store(port: int, dataset: Dataset) -> int | None:
    """The status of C-STORE to the service."""
    entity = AE(ae_title="CAMERA")
    entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title="DERMHYBRID")
    assert association.is_established
    try:
        status: int | None = association.send_c_store(dataset).get("Status")
    finally:
        association.release()
    return status


def test_dead_jobs_are_listed_and_tried_again(
    tiny_models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.api.dicom")
    settings = settings_of(tiny_models, tmp_path).model_copy(update={"dicom_max_attempts": 1})
    app = create_app(settings)
    with TestClient(app) as client:
        (job, other) = (await_first_end(client, send_photograph(client)) for _ in range(2))
        elsewhere = TestClient(app, client=("192.0.2.1", 1))
        listed = elsewhere.get("/dicom/jobs", params={"state": "dead"}).json()
        newest = client.get("/dicom/jobs", params={"state": "dead", "limit": 1}).json()
        none = client.get("/dicom/jobs", params={"state": "waiting"}).json()
        again = client.post(f"/dicom/jobs/{job['id']}/retry")
        dead = await_first_end(client, again.json())
        failed = count(client, "failures_total", kind="dicom-delivery", outcome="dead")
        unknown = client.post(f"/dicom/jobs/{'0' * 32}/retry")
        refused = [
            client.get(f"/dicom/jobs{query}").status_code
            for query in ("", "?state=gone", "?state=dead&limit=1001")
        ]
    assert listed["jobs"] == [other, job]
    assert "not a medical device" in listed["notice"].lower()
    assert (newest["jobs"], none["jobs"]) == ([other], [])
    assert again.status_code == 202
    (retried,) = [record for record in caplog.records if record.message == "dicom job retried"]
    assert (vars(retried)["job"], vars(retried)["caller"]) == (job["id"], "unknown")
    assert again.json() == {**job, "state": "answered", "attempts": 0, "updated": ANY}
    assert (dead["state"], dead["updated"] > job["updated"], failed) == ("dead", True, 3)
    assert unknown.status_code == 404
    assert refused == [422] * 3


def test_a_job_that_is_not_dead_is_not_tried_again(tiny_models: Path, tmp_path: Path) -> None:
    with TestClient(create_app(settings_of(tiny_models, tmp_path))) as client:
        job = await_first_attempt(client, send_photograph(client))
        answer = client.post(f"/dicom/jobs/{job['id']}/retry")
        assert client.get(f"/dicom/jobs/{job['id']}").json() == job
    assert (answer.status_code, answer.json()["type"]) == (
        409,
        "urn:dermhybrid:problem:dicom-job-not-dead",
    )


def test_what_ends_the_process_each_time_is_counted_and_logged(
    tiny_models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue = JobQueue(tmp_path / "queue", max_waiting=9)
    job = queue.put("1.2.3", to_bytes(make_dataset()), "key:pacs")
    for _ in range(MAX_STARTS):
        assert queue.start_next() is not None
    queue.close()
    with (
        caplog.at_level(logging.WARNING),
        TestClient(create_app(settings_of(tiny_models, tmp_path))) as client,
    ):
        found = await_first_end(client, {"id": job.id, "state": "waiting"})
        counted = count(client, "failures_total", kind="process-ended", outcome="dead")
    assert (found["state"], found["problem"], counted) == ("dead", "process-ended", 1)
    (line,) = [record for record in caplog.records if record.message == "dicom job"]
    assert {"state": "dead", "reason": "process-ended"}.items() <= line.__dict__.items()


def test_callers_that_the_listener_turns_away_are_counted(
    tiny_models: Path, tmp_path: Path
) -> None:
    port = free_port()
    update = {"dicom_listen_port": port, "dicom_calling_aes": "ARCHIVE"}
    settings = settings_of(tiny_models, tmp_path).model_copy(update=update)
    with TestClient(create_app(settings)) as client:
        camera = AE(ae_title="CAMERA")
        camera.add_requested_context(Verification)
        rejected = camera.associate("127.0.0.1", port, ae_title="DERMHYBRID")
        counts = [
            count(client, "associations_ended_total", reason=reason)
            for reason in ("rejected", "object-too-long")
        ]
    assert rejected.is_rejected
    assert counts == [1, 0]


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
