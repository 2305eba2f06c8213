"""`POST /feedback/{request_id}`: what the lesion of an answer turned out to be."""

from pathlib import Path
from typing import Annotated, Any, Final

import anyio
from anyio import to_thread
from fastapi import APIRouter, Depends, Request
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field

from app.access.scopes import Scope
from app.api.admission import Admission
from app.api.deps import ClassLabel, ServicesDep, read_json
from app.api.guard import requires
from app.api.openapi import body_schema
from app.api.schemas import Problem
from app.audit import AuditQueue
from app.domain.errors import AuditUnavailableError
from app.domain.feedback import DiagnosisSource
from app.domain.notice import RESEARCH_USE_NOTICE
from app.feedback import find_answer
from app.logs import caller
from app.metrics import Metrics

FEEDBACK_PREFIX: Final = "/feedback/"
MAX_FEEDBACK_BYTES: Final = 1024
MAX_FEEDBACK_IN_PROGRESS: Final = 16


class FeedbackRequest(BaseModel):
    """A diagnosis; no free text, so that nothing about a patient can come along."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    diagnosis: Annotated[ClassLabel, Field(description="What it turned out to be.")]
    source: Annotated[
        DiagnosisSource,
        Field(
            description="HAM10000's dx_type, or `clinical` for the opinion of one clinician. The "
            "strongest counts: histo, confocal, follow_up, consensus, clinical."
        ),
    ]
    index: Annotated[
        int | None,
        Field(description="The image's place in a batch, from 0.", strict=True, ge=0, le=1 << 20),
    ] = None


class FeedbackReceipt(BaseModel):
    """What was recorded."""

    answer_sequence: Annotated[int, Field(description="Number of the answer's audit record.")]
    predicted_class: Annotated[
        str | None, Field(description="What was answered; null where it was rejected.")
    ]
    agrees: Annotated[bool | None, Field(description="Null where it was rejected.")]
    notice: str = RESEARCH_USE_NOTICE


class Feedback:
    """Finds answers and records diagnoses."""

    def __init__(self, audit_dir: Path, queue: AuditQueue, metrics: Metrics) -> None:
        """Take over a queue.

        Args:
            audit_dir: Where answers are recorded.
            queue: Where diagnoses go.
            metrics: Where they are counted.
        """
        self._audit_dir, self._queue, self._metrics = audit_dir, queue, metrics
        self._door = Admission(MAX_FEEDBACK_IN_PROGRESS)
        self._threads = anyio.CapacityLimiter(1)

    async def record(self, request_id: str, given: FeedbackRequest) -> FeedbackReceipt:
        """Return when a diagnosis is on the disk.

        Raises:
            AnswerNotFoundError: No such answer is recorded.
            AnswerAmbiguousError: Several are.
            AuditUnavailableError: The log could not be read or written.
            ServiceBusyError: Too many others are being recorded.
        """
        with self._door.enter():
            try:
                answer = await to_thread.run_sync(
                    find_answer, self._audit_dir, request_id, given.index, limiter=self._threads
                )
                await self._queue.append(
                    {
                        "request_id": request_id,
                        "index": answer.index,
                        "answer": {"sequence": answer.sequence, "hash": answer.hash},
                        "caller": caller.get(),
                        "diagnosis": given.diagnosis,
                        "source": given.source,
                    }
                )
            except (OSError, AuditUnavailableError) as error:
                raise AuditUnavailableError(
                    "The feedback could not be recorded. Repeat the request later."
                ) from error
        self._metrics.feedback.labels(given.diagnosis, given.source).inc()
        predicted = answer.predicted_class
        return FeedbackReceipt(
            answer_sequence=answer.sequence,
            predicted_class=predicted,
            agrees=None if predicted is None else predicted == given.diagnosis,
        )

    async def close(self) -> None:
        """Write what waits."""
        await self._queue.close()


async def get_feedback_request(request: Request) -> FeedbackRequest:
    """The body of a request."""
    return await read_json(request, FeedbackRequest)


router = APIRouter(tags=["feedback"], dependencies=[requires(Scope.FEEDBACK)])

_REQUEST_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {"application/json": {"schema": body_schema(FeedbackRequest)}},
}


@router.post(
    FEEDBACK_PREFIX + "{request_id}",
    summary="Say what a lesion turned out to be",
    status_code=201,
    openapi_extra={"requestBody": _REQUEST_BODY},
    responses={
        404: {"model": Problem, "description": "No such answer is recorded."},
        409: {"model": Problem, "description": "Several answers have that request id."},
        413: {"model": Problem, "description": "Too many bytes."},
        422: {"model": Problem, "description": "The body or the request id cannot be used."},
        503: {"model": Problem, "description": "It could not be recorded, or too many wait."},
    },
)
async def give_feedback(
    services: ServicesDep,
    request_id: Annotated[
        str,
        PathParameter(description="Of the answer.", pattern=r"^[A-Za-z0-9._-]{1,64}$"),
    ],
    given: Annotated[FeedbackRequest, Depends(get_feedback_request)],
) -> FeedbackReceipt:
    """Record the diagnosis of a clinician or of histology beside the answer that it is about.

    It may be sent again to correct it: all are kept, and `dermhybrid audit report` counts the
    newest of the strongest source. There only where AUDIT_DIR is set.
    """
    assert services.feedback is not None  # noqa: S101  the route is there only with it
    return await services.feedback.record(request_id, given)
