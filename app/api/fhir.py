"""`/fhir`: the operation `$classify-lesion`, and what describes it."""

from functools import partial
from typing import Annotated, Any, Final

from anyio import to_thread
from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from app.access.scopes import Scope
from app.api.answering import Question, answer_image
from app.api.deps import HeatmapQuery, ServicesDep, media_type
from app.api.fhir_answers import check_store, render_bundle, respond_in_fhir
from app.api.guard import requires
from app.api.schemas import Problem
from app.domain.heatmaps import RECORDED_METHOD, OverlayFormat
from app.interop.fhir_codes import FHIR_MEDIA_TYPE, Json
from app.interop.fhir_conformance import (
    OPERATION,
    OPERATION_PATH,
    capability_statement,
    operation_definition,
)
from app.interop.fhir_parameters import LesionQuery, read_parameters

router = APIRouter(tags=["FHIR"])

_RESOURCE: Final[dict[str, Any]] = {"content": {FHIR_MEDIA_TYPE: {"schema": {"type": "object"}}}}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {**_RESOURCE, "description": "A FHIR R4 transaction Bundle."},
    404: {"model": Problem, "description": "No loaded model has that name."},
    408: {"model": Problem, "description": "The body came too slowly for a full house."},
    413: {"model": Problem, "description": "Too many bytes."},
    415: {"model": Problem, "description": "No FHIR JSON, or no image of a supported format."},
    422: {"model": Problem, "description": "The image or a parameter cannot be used."},
    502: {"model": Problem, "description": "The answer could not be stored."},
    503: {"model": Problem, "description": "Too many predictions are in progress."},
    504: {"model": Problem, "description": "No answer within the request's time."},
}


async def get_query(request: Request, services: ServicesDep) -> LesionQuery:
    """The Parameters of the body.

    Raises:
        HTTPException: 415 for another content type.
        FhirParametersError: They are not what the operation takes.
        ImageTooManyBytesError: The body is longer than an image in base64 may be.
    """
    if media_type(request) not in {FHIR_MEDIA_TYPE, "application/json"}:
        raise HTTPException(415, f"Expected FHIR Parameters as {FHIR_MEDIA_TYPE}.")
    body = await request.body()
    return await to_thread.run_sync(read_parameters, body, limiter=services.image_threads)


@router.post(
    OPERATION_PATH,
    summary="Classify a dermatoscopic image that comes in FHIR Parameters",
    response_class=Response,
    responses=_RESPONSES,
    openapi_extra={"requestBody": {"required": True, **_RESOURCE}},
    dependencies=[requires(Scope.PREDICT)],
)
async def classify_lesion(
    request: Request, services: ServicesDep, query: Annotated[LesionQuery, Depends(get_query)]
) -> Response:
    """Answer as `/predict` does, in a FHIR R4 transaction Bundle."""
    if query.store:
        check_store(request, services, query.context)
    model = services.fleet.get(query.model)
    with model.in_use():
        heatmap = HeatmapQuery(query.heatmap, None, RECORDED_METHOD, OverlayFormat.PNG).of(model)
        render = partial(render_bundle, query.image, query.context)
        body = await answer_image(services, model, query.image, heatmap, Question(), render)
    return await respond_in_fhir(services, model.manifest, body, store=query.store)


@router.get(
    "/fhir/metadata",
    summary="FHIR CapabilityStatement",
    response_class=Response,
    responses={200: _RESOURCE},
)
async def metadata(request: Request) -> Response:
    """What this service can do in FHIR."""
    return _resource(capability_statement(request.app.version))


@router.get(
    "/fhir/OperationDefinition/{name}",
    summary="FHIR OperationDefinition",
    response_class=Response,
    responses={200: _RESOURCE, 404: {"model": Problem, "description": "Another operation."}},
)
async def describe_operation(name: Annotated[str, Path(max_length=64)]) -> Response:
    """What `$classify-lesion` takes and gives."""
    if name != OPERATION:
        raise HTTPException(404, f"The only operation is {OPERATION}.")
    return _resource(operation_definition())


def _resource(content: Json) -> Response:
    return Response(to_json(content), media_type=FHIR_MEDIA_TYPE)
