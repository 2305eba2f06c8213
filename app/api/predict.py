"""`POST /predict`: one image in, one traceable answer out."""

from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from app.access.scopes import Scope
from app.api.answer_schemas import PredictionResponse
from app.api.answering import Question, answer_image, render_json
from app.api.deps import (
    IMAGE_FIELD,
    FrameNumber,
    HeatmapQueryDep,
    ModelName,
    TtaFlag,
    read_image,
    services_of,
)
from app.api.fhir_answers import (
    ContextDep,
    StoreFlag,
    check_store,
    render_bundle,
    respond_in_fhir,
)
from app.api.guard import requires
from app.api.schemas import Problem
from app.domain.heatmaps import RECORDED_METHOD
from app.domain.images import MEDIA_TYPES
from app.interop.fhir_codes import FHIR_MEDIA_TYPE
from app.interop.uploads import DICOM_MEDIA_TYPE

router = APIRouter(tags=["prediction"], dependencies=[requires(Scope.PREDICT)])

_BINARY: Final = {"type": "string", "format": "binary"}
_REQUEST_BODY: Final[dict[str, Any]] = {
    "required": True,
    "description": "One dermatoscopic image: JPEG, PNG, TIFF, BMP, WebP or DICOM.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [IMAGE_FIELD],
                "properties": {IMAGE_FIELD: _BINARY},
            }
        },
        "application/octet-stream": {"schema": _BINARY},
        **{
            media_type: {"schema": _BINARY}
            for media_type in sorted({*MEDIA_TYPES.values(), DICOM_MEDIA_TYPE})
        },
    },
}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {
            FHIR_MEDIA_TYPE: {
                "schema": {"type": "object", "description": "A FHIR R4 transaction Bundle."}
            }
        }
    },
    400: {"model": Problem, "description": "A multipart body that is none."},
    404: {"model": Problem, "description": "No loaded model has that name."},
    408: {"model": Problem, "description": "The body came too slowly for a full house."},
    413: {"model": Problem, "description": "Too many bytes."},
    415: {"model": Problem, "description": "No image of a supported format."},
    422: {"model": Problem, "description": "The image or a parameter cannot be used."},
    502: {"model": Problem, "description": "The answer could not be stored."},
    503: {"model": Problem, "description": "Too many predictions are in progress."},
    504: {"model": Problem, "description": "No answer within the request's time."},
}


@router.post(
    "/predict",
    summary="Classify a dermatoscopic image",
    response_model=PredictionResponse,
    responses=_RESPONSES,
    openapi_extra={"requestBody": _REQUEST_BODY},
)
async def predict(
    request: Request,
    asked: HeatmapQueryDep,
    context: ContextDep,
    *,
    model: ModelName = None,
    store: StoreFlag = False,
    tta: TtaFlag = False,
    frame: FrameNumber = None,
) -> Response:
    """Return the probabilities of the seven classes, and where the evidence lies."""
    # Few dependencies, which only read query and headers: every answer pays for each of them.
    services = services_of(request)
    served = services.fleet.get(model)
    with served.in_use():
        heatmap = asked.of(served, None if context is None else RECORDED_METHOD)
        if store:
            check_store(request, services, context)
        with services.stages.time("receive", served.manifest):
            upload = await read_image(request)
        render = render_json if context is None else partial(render_bundle, upload, context)
        question = Question(tta=tta, frame=frame)
        body = await answer_image(services, served, upload, heatmap, question, render)
    if context is not None:
        return await respond_in_fhir(services, served.manifest, body, store=store)
    return Response(body, media_type="application/json", headers={"Vary": "Accept"})
