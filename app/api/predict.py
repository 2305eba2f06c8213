"""`POST /predict`: one image in, one traceable answer out."""

import base64
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Response
from pydantic_core import to_json

from app.api.deps import IMAGE_FIELD, HeatmapDep, ModelDep, Services, ServicesDep, UploadDep
from app.api.presenters import class_schema, model_reference
from app.api.schemas import HeatmapSchema, ImageSchema, PredictionResponse, Problem
from app.api.threads import run_timed
from app.domain.heatmap_checks import check_heatmap
from app.domain.heatmaps import HeatmapRequest, draw_overlay, encode
from app.domain.images import MEDIA_TYPES
from app.domain.labels import CLASSES, LABELS
from app.domain.uploads import Upload, read_upload
from app.inference.explain import Prediction, explain
from app.inference.fleet import ServedModel
from app.inference.registry import LoadedModel
from app.telemetry import request_id

router = APIRouter(tags=["prediction"])

_BINARY: Final = {"type": "string", "format": "binary"}
_REQUEST_BODY: Final[dict[str, Any]] = {
    "required": True,
    "description": "One dermatoscopic image: JPEG, PNG, TIFF, BMP or WebP.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [IMAGE_FIELD],
                "properties": {IMAGE_FIELD: _BINARY},
            }
        },
        "application/octet-stream": {"schema": _BINARY},
        **{media_type: {"schema": _BINARY} for media_type in sorted(set(MEDIA_TYPES.values()))},
    },
}
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Problem, "description": "A multipart body that is none."},
    404: {"model": Problem, "description": "No loaded model has that name."},
    413: {"model": Problem, "description": "Too many bytes."},
    415: {"model": Problem, "description": "No image of a supported format."},
    422: {"model": Problem, "description": "The image or a parameter cannot be used."},
    503: {"model": Problem, "description": "Too many predictions are in progress."},
    504: {"model": Problem, "description": "No answer within the request's time."},
}


@router.post(
    "/predict",
    summary="Classify a dermatoscopic image",
    response_model=PredictionResponse,
    responses=_PROBLEMS,
    openapi_extra={"requestBody": _REQUEST_BODY},
)
async def predict(
    services: ServicesDep,
    model: ModelDep,
    heatmap: HeatmapDep,
    upload: UploadDep,
) -> Response:
    """Return the probabilities of the seven classes, and where the evidence lies."""
    body = await answer_image(services, model, upload, heatmap)
    return Response(body, media_type="application/json")


async def answer_image(
    services: Services, model: ServedModel, upload: bytes, heatmap: HeatmapRequest | None
) -> bytes:
    """Decode, classify, explain and count one image.

    Args:
        services: The application's parts.
        model: Who answers; kept in use by the caller.
        upload: The file's bytes, of any origin.
        heatmap: Which heatmap; None for an answer without one.

    Returns:
        A `PredictionResponse` as JSON.

    Raises:
        DermHybridError: The image or the model cannot give an answer.
    """
    timed = partial(run_timed, services.metrics, model.manifest)
    image = await timed(
        "decode",
        services.image_threads,
        read_upload,
        upload,
        services.image_limits,
        services.max_overlay_side,
    )
    prediction = await model.predict(image.model_input)
    if services.auditor is not None:
        await services.auditor.record(
            model.loaded, upload, image, prediction, services.image_threads
        )
    services.fleet.shadow(model, image.model_input, prediction)
    # The overlay may have megabytes: it is drawn and put into JSON beside the event loop.
    body = await timed(
        "explain",
        services.image_threads,
        _render,
        model.loaded,
        image,
        prediction,
        heatmap,
    )
    services.metrics.count_prediction(model.manifest, prediction.predicted.label)
    return body


def _render(
    model: LoadedModel, image: Upload, prediction: Prediction, heatmap: HeatmapRequest | None
) -> bytes:
    shown = _show_heatmap(image, prediction, heatmap) if heatmap else None
    return to_json(_present(model, image, prediction, shown))


def _show_heatmap(image: Upload, prediction: Prediction, request: HeatmapRequest) -> HeatmapSchema:
    heatmap = explain(prediction, request.method, request.class_index)
    overlay = encode(draw_overlay(image.picture, heatmap), request.overlay_format)
    check = check_heatmap(heatmap.values, image.model_input)
    index = heatmap.class_index
    return HeatmapSchema(
        media_type=request.overlay_format.media_type,
        overlay=base64.b64encode(overlay).decode("ascii"),
        method=heatmap.method,
        explained_class=None if index is None else CLASSES[index].label,
        map=heatmap.values.tolist(),
        scale=heatmap.scale,
        share_at_border=check.share_at_border,
        share_in_lesion=check.share_in_lesion,
        flags=list(check.flags),
    )


def _present(
    model: LoadedModel, image: Upload, prediction: Prediction, heatmap: HeatmapSchema | None
) -> PredictionResponse:
    return PredictionResponse(
        request_id=request_id.get(),
        model=model_reference(model),
        predicted_class=class_schema(prediction.predicted),
        confidence=prediction.confidence,
        calibrated=model.manifest.calibration is not None,
        probabilities=dict(zip(LABELS, prediction.probabilities.tolist(), strict=True)),
        heatmap=heatmap,
        image=ImageSchema(width=image.width, height=image.height, media_type=image.media_type),
    )
