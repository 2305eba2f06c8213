"""`POST /predict`: one image in, one traceable answer out."""

from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Response

from app.access.scopes import Scope
from app.api.answering import Question, answer_image
from app.api.deps import (
    IMAGE_FIELD,
    FrameDep,
    HeatmapDep,
    ModelDep,
    ServicesDep,
    TtaDep,
    UploadDep,
)
from app.api.fhir_answers import ContextDep, StoreDep, render_bundle, respond_in_fhir
from app.api.guard import requires
from app.api.schemas import PredictionResponse, Problem
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


async def get_question(tta: TtaDep = False, frame: FrameDep = None) -> Question:
    """What the query asks, beside the heatmap."""
    return Question(tta=tta, frame=frame)


@router.post(
    "/predict",
    summary="Classify a dermatoscopic image",
    response_model=PredictionResponse,
    responses=_RESPONSES,
    openapi_extra={"requestBody": _REQUEST_BODY},
)
async def predict(
    services: ServicesDep,
    model: ModelDep,
    heatmap: HeatmapDep,
    context: ContextDep,
    store: StoreDep,
    upload: UploadDep,
    question: Annotated[Question, Depends(get_question)],
) -> Response:
    """Return the probabilities of the seven classes, and where the evidence lies."""
    if context is not None:
        render = partial(render_bundle, upload, context)
        body = await answer_image(services, model, upload, heatmap, question, render)
        return await respond_in_fhir(services, body, store=store)
    body = await answer_image(services, model, upload, heatmap, question)
    return Response(body, media_type="application/json", headers={"Vary": "Accept"})
