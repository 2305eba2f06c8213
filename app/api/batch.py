"""`POST /predict/batch`: many images in one request, a line for each as soon as it is answered."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Any, Final

import anyio
from fastapi import APIRouter, Depends, Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.access.scopes import Scope as Permission
from app.api.answering import Question, answer_image
from app.api.deps import (
    IMAGE_FIELD,
    HeatmapQueryDep,
    ModelDep,
    Services,
    ServicesDep,
    TtaFlag,
    media_type,
    open_form,
)
from app.api.errors import domain_problem, unexpected_problem
from app.api.guard import get_caller, requires
from app.api.limits import allowed_seconds
from app.api.schemas import BatchLine, Problem
from app.domain.errors import DeadlineExceededError, DermHybridError
from app.domain.heatmaps import HeatmapRequest
from app.inference.served import Served
from app.tracing import IMAGE_INDEX

BATCH_PATH: Final = "/predict/batch"
NDJSON_MEDIA_TYPE: Final = "application/x-ndjson"

router = APIRouter(tags=["prediction"], dependencies=[requires(Permission.PREDICT)])

_REQUEST_BODY: Final[dict[str, Any]] = {
    "required": True,
    "description": f"Dermatoscopic images, each in a field {IMAGE_FIELD!r} of its own.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [IMAGE_FIELD],
                "properties": {
                    IMAGE_FIELD: {
                        "type": "array",
                        "items": {"type": "string", "format": "binary"},
                    }
                },
            }
        }
    },
}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": BatchLine, "description": "A line for each image, in the order of completion."},
    400: {"model": Problem, "description": "A multipart body that is none, or too many images."},
    404: {"model": Problem, "description": "No loaded model has that name."},
    408: {"model": Problem, "description": "The body came too slowly for a full house."},
    413: {"model": Problem, "description": "Too many bytes."},
    415: {"model": Problem, "description": "No multipart body."},
    422: {"model": Problem, "description": "No image, or a parameter cannot be used."},
    503: {"model": Problem, "description": "Too many batches are in progress."},
    504: {"model": Problem, "description": "The upload did not end within the request's time."},
}


class _Lines(Response):
    """The answers as newline-delimited JSON, written as they come."""

    media_type = NDJSON_MEDIA_TYPE

    def __init__(
        self,
        services: Services,
        model: Served,
        uploads: list[UploadFile],
        seconds: float,
        heatmap: HeatmapRequest | None,
        *,
        tta: bool,
    ) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._services, self._model, self._uploads = services, model, uploads
        self._seconds, self._heatmap, self._tta = seconds, heatmap, tta

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as many images at once as the model takes, and write each line whole."""
        del scope, receive
        uploads = iter(enumerate(self._uploads))
        writing = asyncio.Lock()

        async def work() -> None:
            for index, upload in uploads:
                line = await self._line(index, upload)
                async with writing:
                    await send({"type": "http.response.body", "body": line, "more_body": True})

        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        # anyio's group and deadline: asyncio's would leave a picture's thread to itself, and give
        # its place to the next one.
        async with anyio.create_task_group() as group:
            for _ in range(self._services.batch_concurrency):
                group.start_soon(work)
        await send({"type": "http.response.body", "body": b""})

    async def _line(self, index: int, upload: UploadFile) -> bytes:
        try:
            with self._services.tracing.part("image", {IMAGE_INDEX: index}):
                with anyio.fail_after(self._seconds):
                    body = await answer_image(
                        self._services,
                        self._model,
                        await upload.read(),
                        self._heatmap,
                        Question(tta=self._tta, index=index),
                    )
        except TimeoutError:
            late = DeadlineExceededError(f"There was no answer within {self._seconds:g} s.")
            problem = domain_problem(late)
        except DermHybridError as error:
            problem = domain_problem(error)
        except Exception as error:  # noqa: BLE001  the other images have their own fate
            problem = unexpected_problem(error)
        else:
            self._count(HTTPStatus.OK)
            return _joined(index, HTTPStatus.OK, b"answer", body)
        self._count(problem.status_code)
        self._services.metrics.problems.labels(BATCH_PATH, problem.kind).inc()
        return _joined(index, problem.status_code, b"problem", bytes(problem.body))

    def _count(self, status: int) -> None:
        self._services.metrics.batch_images.labels(BATCH_PATH, str(int(status))).inc()


async def get_uploads(request: Request, services: ServicesDep) -> AsyncIterator[list[UploadFile]]:
    """The files of the form, at least one.

    Raises:
        HTTPException: 415 for another content type or charset, 422 where there is none or something
            else.
    """
    if media_type(request) != "multipart/form-data":
        raise HTTPException(
            415, f"Expected multipart/form-data with files in fields {IMAGE_FIELD!r}."
        )
    async with open_form(request, services.max_batch_images) as form:
        parts = form.getlist(IMAGE_FIELD)
        uploads = [part for part in parts if isinstance(part, UploadFile)]
        if not uploads or len(uploads) < len(parts):
            raise HTTPException(
                422,
                f"The form needs files in its fields {IMAGE_FIELD!r}, and nothing else there. "
                f"Send them as `curl -F {IMAGE_FIELD}=@FILE -F {IMAGE_FIELD}=@FILE` does.",
            )
        yield uploads


@router.post(
    BATCH_PATH,
    summary="Classify many dermatoscopic images",
    response_class=_Lines,
    status_code=200,
    responses=_RESPONSES,
    openapi_extra={"requestBody": _REQUEST_BODY},
)
async def predict_batch(
    request: Request,
    services: ServicesDep,
    model: ModelDep,
    asked: HeatmapQueryDep,
    uploads: Annotated[list[UploadFile], Depends(get_uploads)],
    tta: TtaFlag = False,
) -> Response:
    """Answer each image as `/predict` does, whatever becomes of the others.

    Each line is a JSON object: the image's place in the form from 0, the status that
    `/predict` would have had, and its `answer` or its `problem`. The request's time is
    counted anew for each image.
    """
    heatmap = asked.of(model)
    if services.quota is not None:
        # The request itself was counted at the door; what it holds is known only now.
        services.quota.charge(get_caller(request).id, len(uploads) - 1)
    return _Lines(services, model, uploads, allowed_seconds(request), heatmap, tta=tta)


def _joined(index: int, status: int, kind: bytes, body: bytes) -> bytes:
    """One line around a body that is JSON already and may have megabytes."""
    return b'{"index":%d,"status":%d,"%s":%s}\n' % (index, status, kind, body)
