"""Jobs stay on the disk, once each, through retries, deaths and restarts."""

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.domain.errors import (
    DicomJobNotDeadError,
    DicomJobNotFoundError,
    DicomQueueError,
    ServiceBusyError,
)
from app.interop.dicom_jobs import State
from app.interop.dicom_queue import DATABASE_NAME, MAX_STARTS, MAX_WAIT_SECONDS, JobQueue

CALLER = "key:pacs"
RESULTS = [("2.25.1", b"report"), ("2.25.2", b"heatmap")]


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[JobQueue]:
    opened = JobQueue(tmp_path / "queue", max_waiting=3)
    yield opened
    opened.close()


def test_a_job_goes_its_way(queue: JobQueue) -> None:
    job = queue.put("1.2.3", b"photograph", CALLER)
    assert (job.state, job.attempts, job.problem, job.result_uids) == ("waiting", 0, None, ())
    assert job.caller == CALLER
    assert queue.start_next() == job
    assert queue.photograph(job.id) == b"photograph"
    queue.keep_results(job.id, RESULTS)
    answered = queue.start_next()
    assert answered is not None
    assert (answered.state, answered.result_uids) == (State.ANSWERED, ("2.25.1", "2.25.2"))
    assert queue.results(job.id) == [b"report", b"heatmap"]
    queue.end(job.id, State.STORED)
    assert queue.start_next() is None
    assert queue.get(job.id).state is State.STORED
    assert queue.count()[State.STORED] == 1


def test_the_same_instance_is_the_same_job_whatever_its_state(queue: JobQueue) -> None:
    job = queue.put("1.2.3", b"photograph", CALLER)
    assert queue.put("1.2.3", b"photograph", CALLER) == job
    queue.end(job.id, State.STORED)
    assert queue.put("1.2.3", b"photograph", CALLER).state is State.STORED
    assert queue.start_next() is None
    assert queue.put("1.2.4", b"photograph", CALLER).id != job.id


def test_a_failure_is_counted_and_waited_for(queue: JobQueue) -> None:
    job = queue.put("1.2.3", b"photograph", CALLER)
    queue.postpone(job.id, MAX_WAIT_SECONDS, "model-fault")
    assert queue.start_next() is None
    assert (queue.get(job.id).attempts, queue.get(job.id).problem) == (1, "model-fault")
    other = queue.put("1.2.4", b"photograph", CALLER)
    assert queue.start_next() == other
    queue.postpone(job.id, 0, "model-fault")
    assert queue.get(job.id).attempts == 2


def test_a_job_does_not_wait_for_a_clock_that_was_set_back(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = queue.put("1.2.3", b"photograph", CALLER)
    queue.postpone(job.id, 5, "dicom-delivery")
    assert queue.start_next() is None
    yesterday = time.time() - 86_400
    monkeypatch.setattr("app.interop.dicom_queue.time.time", lambda: yesterday)
    assert queue.start_next() == queue.get(job.id)


@pytest.mark.parametrize("answered", [False, True])
def test_a_dead_job_keeps_what_it_has_until_it_is_sent_again(
    queue: JobQueue, answered: bool
) -> None:
    job = queue.put("1.2.3", b"photograph", CALLER)
    if answered:
        queue.keep_results(job.id, RESULTS)
    queue.postpone(job.id, 0, "dicom-delivery")
    queue.end(job.id, State.DEAD, "dicom-delivery")
    assert queue.start_next() is None
    revived = queue.put("1.2.3", b"photograph", CALLER)
    assert (revived.id, revived.attempts) == (job.id, 0)
    assert revived.state is (State.ANSWERED if answered else State.WAITING)
    assert queue.start_next() == revived
    assert queue.photograph(job.id) == b"photograph"
    assert queue.results(job.id) == ([b"report", b"heatmap"] if answered else [])


@pytest.mark.parametrize("problem", ["dicom-delivery", "process-ended"])
def test_a_dead_job_takes_another_file_of_its_instance(queue: JobQueue, problem: str) -> None:
    job = queue.put("1.2.3", b"ends the process", CALLER)
    queue.end(job.id, State.DEAD, problem)
    again = queue.put("1.2.3", b"mended", "key:other")
    assert (again.id, again.state, again.caller) == (job.id, State.WAITING, "key:other")
    assert again.problem is None
    assert queue.photograph(job.id) == b"mended"


def test_a_dead_job_that_was_answered_delivers_that_answer_whatever_is_sent(
    queue: JobQueue,
) -> None:
    job = queue.put("1.2.3", b"photograph", CALLER)
    queue.keep_results(job.id, RESULTS)
    queue.end(job.id, State.DEAD, "dicom-delivery")
    again = queue.put("1.2.3", b"with other attributes", "key:other")
    assert (again.state, again.caller) == (State.ANSWERED, CALLER)
    assert queue.results(job.id) == [b"report", b"heatmap"]


@pytest.mark.parametrize("answered", [False, True])
def test_dead_jobs_are_discarded_by_age_and_number(tmp_path: Path, answered: bool) -> None:
    queue = JobQueue(tmp_path, max_waiting=9)
    jobs = [queue.put(f"1.2.{number}", b"Roe^Jane" * 5000, CALLER) for number in range(4)]
    for job in jobs:
        if answered:
            queue.keep_results(job.id, [("2.25.1", b"Roe^Jane" * 5000)])
        queue.end(job.id, State.DEAD, "dicom-delivery")
    assert queue.discard_dead(max_age_seconds=3600, max_number=4) == 0
    assert queue.discard_dead(max_age_seconds=3600, max_number=3) == 1
    assert [queue.get(job.id).state for job in jobs] == ["discarded", "dead", "dead", "dead"]
    assert queue.discard_dead(max_age_seconds=0, max_number=3) == 3
    assert queue.discard_dead(max_age_seconds=0, max_number=3) == 0
    assert queue.count()[State.DISCARDED] == 4
    assert queue.get(jobs[0].id).problem == "dicom-delivery"
    assert queue.start_next() is None
    again = queue.put("1.2.0", b"new photograph", "key:other")
    assert (again.id, again.state, again.problem) == (jobs[0].id, State.WAITING, None)
    assert (again.caller, again.result_uids) == ("key:other", ())
    assert queue.start_next() == again
    assert queue.photograph(again.id) == b"new photograph"
    files = [path.read_bytes() for path in tmp_path.iterdir()]
    assert not any(b"Roe" in content for content in files)
    queue.close()


@pytest.mark.parametrize("state", [State.DEAD, State.DISCARDED])
def test_one_that_was_given_up_needs_a_place_as_a_new_one_does(
    queue: JobQueue, state: State
) -> None:
    job = queue.put("1.2.9", b"photograph", CALLER)
    queue.end(job.id, State.DEAD, "dicom-delivery")
    if state is State.DISCARDED:
        queue.discard_dead(0, 0)
    for number in range(3):
        queue.put(f"1.2.{number}", b"photograph", CALLER)
    with pytest.raises(ServiceBusyError):
        queue.put("1.2.9", b"photograph", CALLER)
    assert queue.get(job.id).state is state


def test_a_queue_from_before_callers_were_kept_goes_on(tmp_path: Path) -> None:
    queue = JobQueue(tmp_path, max_waiting=3)
    job = queue.put("1.2.3", b"photograph", CALLER)
    queue.close()
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as database:
        database.execute("ALTER TABLE jobs DROP COLUMN caller")
    queue = JobQueue(tmp_path, max_waiting=3)
    assert queue.get(job.id).caller == ""
    assert queue.put("1.2.4", b"photograph", CALLER).caller == CALLER
    queue.close()


def test_a_job_that_ends_the_process_each_time_is_given_up(tmp_path: Path) -> None:
    queue = JobQueue(tmp_path, max_waiting=3)
    job = queue.put("1.2.3", b"photograph", CALLER)
    for _ in range(MAX_STARTS):
        assert queue.end_crashing() == []
        assert queue.start_next() is not None
        queue.close()
        queue = JobQueue(tmp_path, max_waiting=3)
    (dead,) = queue.end_crashing()
    assert (dead.id, dead.state, dead.problem) == (job.id, State.DEAD, "process-ended")
    assert queue.start_next() is None
    assert queue.end_crashing() == []
    again = queue.put("1.2.3", b"photograph", "key:other")  # what ends the process is not revived
    assert (again.state, again.caller) == (State.DEAD, CALLER)
    assert queue.retry(job.id).state is State.WAITING  # and it has all of its starts again
    assert queue.end_crashing() == []
    queue.close()


@pytest.mark.parametrize("answered", [False, True])
def test_a_dead_job_can_be_tried_again_and_no_other(queue: JobQueue, answered: bool) -> None:
    job = queue.put("1.2.3", b"photograph", CALLER)
    if answered:
        queue.keep_results(job.id, RESULTS)
    with pytest.raises(DicomJobNotDeadError, match=r"answered|waiting"):
        queue.retry(job.id)
    queue.end(job.id, State.DEAD, "dicom-delivery")
    revived = queue.retry(job.id)
    assert (revived.attempts, revived.caller) == (0, CALLER)
    assert revived.state is (State.ANSWERED if answered else State.WAITING)
    assert queue.start_next() == revived
    assert queue.photograph(job.id) == b"photograph"
    assert queue.results(job.id) == ([b"report", b"heatmap"] if answered else [])
    queue.end(job.id, State.DEAD, "dicom-delivery")
    queue.discard_dead(max_age_seconds=0, max_number=9)
    with pytest.raises(DicomJobNotDeadError, match="sent again"):
        queue.retry(job.id)
    with pytest.raises(DicomJobNotFoundError):
        queue.retry("0" * 32)


def test_a_dead_job_waits_for_a_place_to_be_tried_again(queue: JobQueue) -> None:
    job = queue.put("1.2.0", b"photograph", CALLER)
    queue.end(job.id, State.DEAD, "dicom-delivery")
    for number in range(1, 4):
        queue.put(f"1.2.{number}", b"photograph", CALLER)
    with pytest.raises(ServiceBusyError):
        queue.retry(job.id)
    assert queue.get(job.id).state is State.DEAD


def test_jobs_are_listed_by_state_the_newest_change_first(tmp_path: Path) -> None:
    queue = JobQueue(tmp_path, max_waiting=9)
    jobs = [queue.put(f"1.2.{number}", b"photograph", CALLER) for number in range(4)]
    queue.keep_results(jobs[2].id, RESULTS)
    for number in (3, 0, 2):
        queue.end(jobs[number].id, State.DEAD, "dicom-delivery")
    listed = queue.list_newest(State.DEAD, 9, None)
    assert [job.id for job in listed] == [jobs[number].id for number in (2, 0, 3)]
    assert [len(job.result_uids) for job in listed] == [2, 0, 0]
    assert queue.list_newest(State.DEAD, 2, None) == listed[:2]
    assert [job.id for job in queue.list_newest(State.WAITING, 9, None)] == [jobs[1].id]
    assert queue.list_newest(State.STORED, 9, None) == []
    other = queue.put("1.2.9", b"photograph", "key:camera")
    assert [job.id for job in queue.list_newest(State.WAITING, 9, "key:camera")] == [other.id]
    assert queue.list_newest(State.DEAD, 9, "key:camera") == []
    assert queue.list_newest(State.DEAD, 1, CALLER) == listed[:1]
    queue.close()


def test_more_than_fit_are_refused_and_known_ones_are_not(queue: JobQueue) -> None:
    for number in range(3):
        queue.put(f"1.2.{number}", b"photograph", CALLER)
    with pytest.raises(ServiceBusyError, match="3 DICOM jobs have not ended"):
        queue.put("1.2.9", b"photograph", CALLER)
    assert queue.put("1.2.0", b"photograph", CALLER).state is State.WAITING
    queue.end(queue.put("1.2.0", b"", CALLER).id, State.REFUSED, "image-corrupt")
    assert queue.put("1.2.9", b"photograph", CALLER).state is State.WAITING


def test_a_photograph_that_was_refused_is_tried_again_where_it_is_another_file(
    queue: JobQueue,
) -> None:
    job = queue.put("1.2.3", b"damaged", CALLER)
    queue.end(job.id, State.REFUSED, "image-corrupt")
    assert queue.put("1.2.3", b"damaged", CALLER).state is State.REFUSED
    again = queue.put("1.2.3", b"whole", CALLER)
    assert (again.id, again.state, again.problem) == (job.id, State.WAITING, None)
    assert queue.photograph(job.id) == b"whole"
    queue.end(job.id, State.STORED)
    assert queue.put("1.2.3", b"other", CALLER).state is State.STORED


def test_what_has_ended_leaves_no_trace_of_its_content(tmp_path: Path) -> None:
    queue = JobQueue(tmp_path, max_waiting=3)
    for number, end in enumerate((State.STORED, State.REFUSED)):
        job = queue.put(f"1.2.3.{number}", b"Roe^Jane" * 5000, CALLER)
        queue.keep_results(job.id, [("2.25.1", b"Roe^Jane" * 5000)])
        queue.end(job.id, end)
        files = [path.read_bytes() for path in tmp_path.iterdir()]  # while the service runs
        assert not any(b"Roe" in content or b"1.2.3" in content for content in files)
    queue.close()


def test_only_the_services_user_may_look(queue: JobQueue, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "queue").stat().st_mode) == 0o700


def test_two_processes_cannot_have_one_folder(queue: JobQueue, tmp_path: Path) -> None:
    with pytest.raises(DicomQueueError, match="DICOM_QUEUE_DIR of its own"):
        JobQueue(tmp_path / "queue", max_waiting=3)
    queue.close()
    JobQueue(tmp_path / "queue", max_waiting=3).close()


def test_a_damaged_file_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).write_bytes(b"no database" * 1000)
    with pytest.raises(DicomQueueError, match="cannot be opened"):
        JobQueue(tmp_path, max_waiting=3)


def test_a_disk_that_fails_takes_nothing(queue: JobQueue, tmp_path: Path) -> None:
    job = queue.put("1.2.3", b"photograph", CALLER)
    other = sqlite3.connect(tmp_path / "queue" / DATABASE_NAME, timeout=0)
    queue._database.execute("PRAGMA busy_timeout=0")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DicomQueueError, match="send all of it again"):
        queue.put("1.2.4", b"photograph", CALLER)
    other.rollback()
    other.close()
    assert queue.count()[State.WAITING] == 1
    assert queue.get(job.id) == job


def test_an_unknown_job_is_none(queue: JobQueue) -> None:
    with pytest.raises(DicomJobNotFoundError):
        queue.get(os.urandom(16).hex())
