"""Every failure as RFC 9457 problem details; the one table from exceptions to statuses."""

import json
import logging
import math
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.domain.errors import (
    INTERNAL_ERROR,
    AccessConfigurationError,
    AnswerAmbiguousError,
    AnswerNotFoundError,
    ArtifactError,
    AuditDamagedError,
    AuditUnavailableError,
    BodyTooSlowError,
    DeadlineExceededError,
    DermHybridError,
    DicomDeliveryError,
    DicomJobNotDeadError,
    DicomJobNotFoundError,
    DicomQueueError,
    DicomSupportMissingError,
    FhirParametersError,
    FhirServerError,
    HeatmapUnavailableError,
    IdentityProviderUnavailableError,
    ImageFormatError,
    ImageRejectedError,
    ImageTooManyBytesError,
    ModelFaultError,
    ModelNotFoundError,
    NotAuthenticatedError,
    NotAuthorizedError,
    QuotaExceededError,
    RequestTooLongError,
    ResourcesExhaustedError,
    ServiceBusyError,
    ServiceStoppingError,
    SettingsRefusedError,
    TracingUnavailableError,
    is_exhaustion,
)
from app.logs import request_id

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
PROBLEM_KEY: Final = "dermhybrid.problem"
"""Where a failure leaves its kind in the scope."""
CLIENT_CLOSED_REQUEST: Final = 499
"""nginx's status for a caller that left; no standard one exists."""
RETRY_ELSEWHERE_SECONDS: Final = 1
"""`Retry-After` where another replica answers at once: this one stops, or has no memory."""

STATUS_BY_ERROR: Final[dict[type[DermHybridError], HTTPStatus]] = {
    ImageTooManyBytesError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ImageFormatError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    DicomSupportMissingError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    ImageRejectedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ModelNotFoundError: HTTPStatus.NOT_FOUND,
    HeatmapUnavailableError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ModelFaultError: HTTPStatus.SERVICE_UNAVAILABLE,
    ServiceBusyError: HTTPStatus.SERVICE_UNAVAILABLE,
    BodyTooSlowError: HTTPStatus.REQUEST_TIMEOUT,
    ServiceStoppingError: HTTPStatus.SERVICE_UNAVAILABLE,
    ResourcesExhaustedError: HTTPStatus.SERVICE_UNAVAILABLE,
    DeadlineExceededError: HTTPStatus.GATEWAY_TIMEOUT,
    RequestTooLongError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    FhirParametersError: HTTPStatus.UNPROCESSABLE_ENTITY,
    FhirServerError: HTTPStatus.BAD_GATEWAY,
    AnswerNotFoundError: HTTPStatus.NOT_FOUND,
    AnswerAmbiguousError: HTTPStatus.CONFLICT,
    DicomQueueError: HTTPStatus.SERVICE_UNAVAILABLE,
    DicomJobNotFoundError: HTTPStatus.NOT_FOUND,
    DicomJobNotDeadError: HTTPStatus.CONFLICT,
    DicomDeliveryError: HTTPStatus.BAD_GATEWAY,
    AuditUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    AuditDamagedError: HTTPStatus.SERVICE_UNAVAILABLE,
    NotAuthenticatedError: HTTPStatus.UNAUTHORIZED,
    NotAuthorizedError: HTTPStatus.FORBIDDEN,
    QuotaExceededError: HTTPStatus.TOO_MANY_REQUESTS,
    IdentityProviderUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    AccessConfigurationError: HTTPStatus.INTERNAL_SERVER_ERROR,
    SettingsRefusedError: HTTPStatus.INTERNAL_SERVER_ERROR,
    TracingUnavailableError: HTTPStatus.INTERNAL_SERVER_ERROR,
    ArtifactError: HTTPStatus.CONFLICT,
}
"""A class that is not listed has its nearest ancestor's status."""

logger = logging.getLogger(__name__)


def status_of(error: DermHybridError) -> HTTPStatus:
    """The HTTP status of an expected failure."""
    for ancestor in type(error).__mro__:
        if ancestor in STATUS_BY_ERROR:
            return STATUS_BY_ERROR[ancestor]
    raise LookupError(f"{type(error).__name__} has no HTTP status; add it to STATUS_BY_ERROR.")


class ProblemResponse(Response):
    """A failure that leaves its kind behind, for the measurements.

    Attributes:
        kind: Last part of the problem's type URN.
    """

    media_type = PROBLEM_MEDIA_TYPE

    def __init__(self, content: str, status: int, kind: str) -> None:
        super().__init__(content, status)
        self.kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        scope[PROBLEM_KEY] = self.kind
        await super().__call__(scope, receive, send)


def client_closed() -> ProblemResponse:
    """What becomes of a request whose caller has left; nobody reads it."""
    return ProblemResponse("", CLIENT_CLOSED_REQUEST, "client-closed-request")


def problem(status: int, kind: str, title: str, detail: str) -> ProblemResponse:
    """A problem-details response.

    Args:
        status: HTTP status.
        kind: Last part of the problem's type URN.
        title: Summary, the same for every occurrence.
        detail: What was expected, what came, how to mend it.
    """
    body = {
        "type": f"urn:dermhybrid:problem:{kind}",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": request_id.get(),
    }
    return ProblemResponse(json.dumps(body), status, kind)


def install_error_handlers(app: FastAPI) -> None:
    """Let every failure of an application end in `problem`."""
    app.add_exception_handler(DermHybridError, _domain_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _client_left)


def _domain_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, DermHybridError)  # noqa: S101  the handler is registered for it
    return domain_problem(error)


def domain_problem(error: DermHybridError) -> ProblemResponse:
    """The answer to an expected failure."""
    response = problem(status_of(error), kind_of(error), " ".join(_words(error)), str(error))
    if isinstance(error, ServiceBusyError | QuotaExceededError):
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    elif isinstance(error, ServiceStoppingError | ResourcesExhaustedError):
        response.headers["Retry-After"] = str(RETRY_ELSEWHERE_SECONDS)
    elif isinstance(error, NotAuthenticatedError | NotAuthorizedError):
        response.headers["WWW-Authenticate"] = _challenge(error)
    return response


def _challenge(error: NotAuthenticatedError | NotAuthorizedError) -> str:
    """What RFC 6750 (3) says to a caller that was refused."""
    challenge = 'Bearer realm="dermhybrid"'
    if isinstance(error, NotAuthorizedError):
        return f'{challenge}, error="insufficient_scope", scope="{error.scope}"'
    return f'{challenge}, error="invalid_token"' if error.invalid else challenge


def kind_of(error: DermHybridError) -> str:
    """The last part of an expected failure's type."""
    return "-".join(_words(error)).lower()


def _words(error: DermHybridError) -> list[str]:
    return re.findall(r"[A-Z][a-z]+", type(error).__name__.removesuffix("Error"))


def _invalid_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    # Rejected values, and names of fields that nobody asked for, stay out: they are the caller's,
    # and may name a patient.
    details = "; ".join(
        f"{'.'.join(str(part) for part in _place(item))}: {item['msg']}" for item in error.errors()
    )
    return problem(422, "invalid-request", "Invalid Request", details)


def _place(item: Mapping[str, Any]) -> tuple[int | str, ...]:
    place: tuple[int | str, ...] = item["loc"]
    return place[:-1] if item["type"] == "extra_forbidden" else place


def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    phrase = HTTPStatus(error.status_code).phrase
    response = problem(
        error.status_code, phrase.lower().replace(" ", "-"), phrase, str(error.detail)
    )
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


def _client_left(_request: Request, _error: Exception) -> Response:
    return client_closed()


def unexpected_problem(error: Exception) -> ProblemResponse:
    """Log where an unexpected error came from, and answer without a word of it.

    Its message may hold anything, also what was uploaded: only its type and place are logged.
    """
    logger.error("unexpected %s", type(error).__name__, extra={"where": frames_of(error)})
    if is_exhaustion(error):
        return domain_problem(ResourcesExhaustedError())
    return problem(
        500,
        INTERNAL_ERROR,
        "Internal Error",
        "The service failed to answer. Report the request id to its operator.",
    )


def frames_of(error: Exception) -> list[str]:
    """File and line of each frame, without any value."""
    frames, trace = [], error.__traceback__
    while trace is not None:
        frames.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    return frames
