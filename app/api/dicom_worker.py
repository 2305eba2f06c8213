"""Answer what waits in the queue of DICOM jobs, through the same code as `/predict` (ADR-0019)."""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from anyio import to_thread

from app.api.answering import Question, answer_upload
from app.api.deps import Services
from app.api.dicom_results import make_results, to_file
from app.api.errors import frames_of, kind_of
from app.domain.errors import (
    INTERNAL_ERROR,
    DermHybridError,
    DicomQueueError,
    ImageRejectedError,
    ResourcesExhaustedError,
    is_exhaustion,
)
from app.domain.uploads import Upload
from app.inference.judge import Judged
from app.interop.dicom_delivery import Deliver
from app.interop.dicom_files import read_object
from app.interop.dicom_intake import admit
from app.interop.dicom_jobs import Job, State
from app.interop.dicom_queue import MAX_WAIT_SECONDS, PROCESS_ENDED, JobQueue
from app.logs import caller, request_id

UNKNOWN_CALLER: Final = "dicom-worker"
"""In the audit log, of jobs from before callers were kept."""
POLL_SECONDS: Final = 1.0
"""How late a job may be noticed that became due by itself; new ones wake the worker."""
STOP_SECONDS: Final = 5.0
"""For the job at hand, when the service stops: an answer takes less, a delivery is repeated."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long jobs that fail are kept.

    Attributes:
        max_attempts: A job that failed so often is dead.
        retry_seconds: Before the second attempt; doubled for each further one.
        dead_seconds: A job that has been dead for so long is discarded.
        max_dead: And of more dead ones the oldest.
    """

    max_attempts: int
    retry_seconds: float
    dead_seconds: float
    max_dead: int


class DicomWorker:
    """One job after the other; belongs to one event loop."""

    def __init__(
        self, services: Services, queue: JobQueue, deliver: Deliver, patience: Patience
    ) -> None:
        """Begin to work.

        Args:
            services: The application's parts.
            queue: Where jobs are.
            deliver: Stores results.
            patience: With jobs that fail.
        """
        self._services, self._queue, self._deliver = services, queue, deliver
        self._patience = patience
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        self._is_stopping = False
        self._interrupted: Job | None = None
        self._task = asyncio.create_task(self._run(), name="dicom-worker")

    def take(self, instance: bytes, sender: str) -> Job:
        """Put an instance into the queue; blocks, from any thread.

        Args:
            instance: A DICOM file.
            sender: Who sends it, for the audit log.

        Raises:
            ImageRejectedError: It is none to answer.
            ServiceBusyError: Too many wait.
            DicomQueueError: It could not be written.
        """
        measured = self._services.metrics.dicom
        try:
            instance_uid = admit(instance, self._services.image_limits)
            job = self._queue.put(instance_uid, instance, sender)
        except ImageRejectedError as error:
            measured.refused.labels(kind_of(error)).inc()
            raise
        except Exception as error:
            measured.not_taken.labels(_kind_of_any(error)).inc()
            raise
        self._loop.call_soon_threadsafe(self._wake.set)
        return job

    async def find(self, identifier: str) -> Job:
        """A job.

        Raises:
            DicomJobNotFoundError: There is none of this identifier.
        """
        return await to_thread.run_sync(self._queue.get, identifier)

    async def list_newest(self, state: State, max_number: int, caller: str | None) -> list[Job]:
        """Jobs in a state, the last that changed first; a caller's, or everybody's for None."""
        return await to_thread.run_sync(self._queue.list_newest, state, max_number, caller)

    async def retry(self, identifier: str) -> Job:
        """Try a job again that was given up.

        Raises:
            DicomJobNotFoundError: There is none of this identifier.
            DicomJobNotDeadError: It was not given up.
            ServiceBusyError: Too many wait.
        """
        job = await to_thread.run_sync(self._queue.retry, identifier)
        self._wake.set()
        return job

    async def close(self) -> None:
        """Stop after the job at hand; what has not ended soon goes on at the next start."""
        self._is_stopping = True
        self._wake.set()
        await asyncio.wait([self._task], timeout=STOP_SECONDS)
        self._task.cancel()
        await asyncio.wait([self._task])
        await to_thread.run_sync(self._queue.close)

    async def _run(self) -> None:
        failure: DermHybridError = DicomQueueError()
        while not self._is_stopping:
            self._wake.clear()
            try:
                if self._interrupted is not None:  # its start counts until this can be written
                    await self._postpone(self._interrupted, kind_of(failure))
                    self._interrupted = None
                for crashing in await to_thread.run_sync(self._queue.end_crashing):
                    request_id.set(crashing.id)
                    self._fail(crashing, PROCESS_ENDED, "dead")
                job = await to_thread.run_sync(self._queue.start_next)
                if job is not None:
                    self._interrupted = job
                    with self._services.tracing.job("dicom job"):
                        await self._work(job)
                    self._interrupted = None
                await self._tend()
                if job is not None:
                    continue
            except DicomQueueError as error:  # the disk is full? What was taken is still there.
                failure = error
                self._count_worker_failure(error)
                logger.error("queue failed", extra={"reason": str(error)})  # noqa: TRY400
            except Exception as error:  # noqa: BLE001  no memory, no thread? There may be again.
                failure = ResourcesExhaustedError()
                self._count_worker_failure(error)
                _log_unexpected(error)
            if not self._is_stopping:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wake.wait()

    async def _work(self, job: Job) -> None:
        request_id.set(job.id)
        caller.set(job.caller or UNKNOWN_CALLER)
        try:
            if job.state is State.WAITING:
                await self._answer(job)
            results = await to_thread.run_sync(self._queue.results, job.id)
            await to_thread.run_sync(self._deliver, results)
        except DicomQueueError:
            raise
        except ImageRejectedError as error:
            await to_thread.run_sync(self._queue.end, job.id, State.REFUSED, kind_of(error))
            self._fail(job, kind_of(error), "refused")
        except DermHybridError as error:
            await self._postpone(job, kind_of(error))
        except Exception as error:  # noqa: BLE001  whatever it is, the other jobs go on
            _log_unexpected(error)
            await self._postpone(job, _kind_of_any(error))
        else:
            await to_thread.run_sync(self._queue.end, job.id, State.STORED)
            logger.info("dicom job", extra={"state": State.STORED, "attempts": job.attempts + 1})

    async def _answer(self, job: Job) -> None:
        photograph = await to_thread.run_sync(self._queue.photograph, job.id)
        model = self._services.fleet.get(None)
        with model.in_use():
            results = await answer_upload(
                self._services, model, photograph, Question(), partial(self._render, photograph)
            )
        await to_thread.run_sync(self._queue.keep_results, job.id, results)

    def _render(self, photograph: bytes, upload: Upload, judged: Judged) -> list[tuple[str, bytes]]:
        dataset = read_object(photograph, self._services.image_limits)
        results = make_results(dataset, upload, judged)
        return [(str(result.SOPInstanceUID), to_file(result)) for result in results]

    async def _postpone(self, job: Job, kind: str) -> None:
        attempts = job.attempts + 1
        if attempts >= self._patience.max_attempts:
            await to_thread.run_sync(self._queue.end, job.id, State.DEAD, kind)
            self._fail(job, kind, "dead")
            return
        doubled = self._patience.retry_seconds * 2.0 ** min(job.attempts, 32)
        seconds = min(MAX_WAIT_SECONDS, doubled)
        await to_thread.run_sync(self._queue.postpone, job.id, seconds, kind)
        self._fail(job, kind, "postponed")

    def _fail(self, job: Job, kind: str, outcome: Literal["postponed", "dead", "refused"]) -> None:
        self._services.metrics.dicom.failures.labels(kind, outcome).inc()
        logger.warning(
            "dicom job", extra={"state": outcome, "attempts": job.attempts + 1, "reason": kind}
        )

    def _count_worker_failure(self, error: Exception) -> None:
        self._services.metrics.dicom.worker_failures.labels(_kind_of_any(error)).inc()

    async def _tend(self) -> None:
        """Discard what has been dead for long enough, and publish how many jobs there are."""
        discarded = await to_thread.run_sync(
            self._queue.discard_dead, self._patience.dead_seconds, self._patience.max_dead
        )
        if discarded:
            self._services.metrics.dicom.discarded.inc(discarded)
            logger.warning("dicom jobs", extra={"state": State.DISCARDED, "number": discarded})
        for state, number in (await to_thread.run_sync(self._queue.count)).items():
            self._services.metrics.dicom.jobs.labels(state).set(number)


def _kind_of_any(error: Exception) -> str:
    if isinstance(error, DermHybridError):
        return kind_of(error)
    return kind_of(ResourcesExhaustedError()) if is_exhaustion(error) else INTERNAL_ERROR


def _log_unexpected(error: Exception) -> None:
    """Its type and place alone: its message may hold anything."""
    logger.error("unexpected %s", type(error).__name__, extra={"where": frames_of(error)})
