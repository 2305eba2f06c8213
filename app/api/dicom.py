"""`/dicom`: photographs to answer later, whose results are stored in the archive (ADR-0019)."""

import json
import logging
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from anyio import to_thread
from fastapi import APIRouter, Depends, Path, Query, Request
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException

from app.access.scopes import Scope
from app.api.deps import Services, ServicesDep, media_type
from app.api.dicom_worker import DicomWorker
from app.api.errors import domain_problem
from app.api.guard import get_caller, requires
from app.api.schemas import DicomJob, DicomJobs, DicomReceipt, DicomRefusal, Problem
from app.domain.errors import ImageRejectedError
from app.interop.dicom_intake import MAX_BOUNDARY, split_parts
from app.interop.dicom_jobs import Job, State
from app.interop.uploads import DICOM_MEDIA_TYPE, STUDIES_PATH

logger = logging.getLogger(__name__)

router = APIRouter(tags=["DICOM"], dependencies=[requires(Scope.REPORTS_WRITE)])

_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_REQUEST_BODY: Final[dict[str, Any]] = {
    "required": True,
    "description": "DICOM files: one, or several as STOW-RS sends them (PS3.18, section 10.5).",
    "content": {DICOM_MEDIA_TYPE: _BINARY, "multipart/related": _BINARY},
}
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    408: {"model": Problem, "description": "The body came too slowly for a full house."},
    413: {"model": Problem, "description": "Too many bytes."},
    415: {"model": Problem, "description": "No DICOM file."},
    422: {"model": Problem, "description": "No photograph that can be answered."},
    503: {"model": Problem, "description": "Too many jobs wait, or the queue cannot be written."},
}


_NO_JOB: Final[dict[int | str, dict[str, Any]]] = {
    404: {"model": Problem, "description": "There is no such job."}
}
JobId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]


async def get_worker(services: ServicesDep) -> DicomWorker:
    """The worker; the routes are there only with one."""
    assert services.dicom is not None  # noqa: S101
    return services.dicom


WorkerDep = Annotated[DicomWorker, Depends(get_worker)]


async def get_instances(request: Request, services: ServicesDep) -> list[bytes]:
    """The DICOM files of the body, at least one.

    Raises:
        HTTPException: 415 for another content type.
        ImageCorruptError: The multipart body is none, or has too many parts.
    """
    content_type = media_type(request)
    if content_type == DICOM_MEDIA_TYPE:
        return [await request.body()]
    boundary = parse_options_header(request.headers.get("content-type"))[1].get(b"boundary", b"")
    if content_type != "multipart/related" or not 0 < len(boundary) <= MAX_BOUNDARY:
        raise HTTPException(
            415, f"Expected {DICOM_MEDIA_TYPE}, or multipart/related with a boundary."
        )
    body = await request.body()
    return await to_thread.run_sync(
        split_parts, body, boundary.decode("latin-1"), services.max_batch_images
    )


@router.post(
    STUDIES_PATH,
    status_code=202,
    summary="Have DICOM photographs answered in the archive",
    responses=_PROBLEMS,
    openapi_extra={"requestBody": _REQUEST_BODY},
)
async def store(
    request: Request,
    services: ServicesDep,
    worker: WorkerDep,
    instances: Annotated[list[bytes], Depends(get_instances)],
) -> DicomReceipt:
    """Take photographs, safe from a crash; the report and the heatmap are stored later.

    An instance that was sent before is the same job. Of several, what cannot be answered is
    named in `refused`; where that is all of them, the last one's problem is the answer.
    """
    if services.quota is not None:
        # The request itself was counted at the door; what it holds is known only now.
        services.quota.charge(get_caller(request).id, len(instances) - 1)
    return await _take_all(services, worker, instances, get_caller(request).id)


@router.get("/dicom/jobs", summary="Jobs in a state, the last that changed first")
async def list_jobs(
    request: Request,
    worker: WorkerDep,
    state: Annotated[State, Query(description="Where they are: `dead` ones need a person.")],
    limit: Annotated[int, Query(description="At most so many.", ge=1, le=1000)] = 100,
) -> DicomJobs:
    """Which photographs wait, were given up, or have their results in the archive.

    The caller's own; everybody's, those that came by C-STORE too, with the scope `admin` as well,
    and where callers are not told apart.
    """
    asking = get_caller(request)
    sees_all = Scope.ADMIN in asking.scopes or not asking.is_known
    sender = None if sees_all else asking.id
    jobs = await worker.list_newest(state, limit, sender)
    return DicomJobs(jobs=[_present(job) for job in jobs])


@router.get(
    "/dicom/jobs/{job_id}",
    summary="What became of a photograph",
    responses=_NO_JOB,
)
async def get_job(worker: WorkerDep, job_id: JobId) -> DicomJob:
    """Where the job is, and the identifiers of its results."""
    return _present(await worker.find(job_id))


@router.post(
    "/dicom/jobs/{job_id}/retry",
    status_code=202,
    summary="Try a dead job again",
    responses={
        **_NO_JOB,
        409: {"model": Problem, "description": "The job is not dead."},
        503: {"model": Problem, "description": "Too many jobs wait, or the queue has failed."},
    },
)
async def retry_job(request: Request, worker: WorkerDep, job_id: JobId) -> DicomJob:
    """Once its cause is mended: with the photograph that it holds, for who sent it."""
    job = await worker.retry(job_id)
    logger.info("dicom job retried", extra={"job": job.id, "caller": get_caller(request).id})
    return _present(job)


async def _take_all(
    services: Services, worker: DicomWorker, instances: list[bytes], caller: str
) -> DicomReceipt:
    receipt = DicomReceipt(jobs=[], refused=[])
    for index, instance in enumerate(instances):
        try:
            job = await to_thread.run_sync(
                worker.take, instance, caller, limiter=services.image_threads
            )
        except ImageRejectedError as error:
            if len(receipt.refused) + 1 == len(instances):
                raise
            problem = json.loads(bytes(domain_problem(error).body))
            receipt.refused.append(DicomRefusal(index=index, problem=problem))
        else:
            receipt.jobs.append(_present(job))
    return receipt


def _present(job: Job) -> DicomJob:
    return DicomJob(
        id=job.id,
        state=job.state.value,
        attempts=job.attempts,
        received=datetime.fromtimestamp(job.received, UTC),
        updated=datetime.fromtimestamp(job.updated, UTC),
        problem=job.problem,
        results=list(job.result_uids),
    )
