"""`POST /predict`: one image in, one traceable answer out."""

import base64
from functools import partial
from typing import Annotated, Any, Final

from anyio import to_thread
from fastapi import APIRouter, Query

from app.api.deps import IMAGE_FIELD, ModelDep, ServicesDep, UploadDep
from app.api.presenters import class_schema, model_reference
from app.api.schemas import HeatmapSchema, ImageSchema, PredictionResponse, Problem
from app.domain.heatmaps import Heatmap, draw_overlay, encode_png
from app.domain.images import (
    MEDIA_TYPES,
    DecodedImage,
    ImageLimits,
    RgbImage,
    decode_image,
    to_model_input,
)
from app.domain.labels import CLASSES, LABELS
from app.inference.explain import Prediction
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
        **{media_type: {"schema": _BINARY} for media_type in sorted(set(MEDIA_TYPES.values()))},
    },
}
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    404: {"model": Problem, "description": "No loaded model has that name."},
    413: {"model": Problem, "description": "Too many bytes."},
    415: {"model": Problem, "description": "No image of a supported format."},
    422: {"model": Problem, "description": "The image or a parameter cannot be used."},
}


@router.post(
    "/predict",
    summary="Classify a dermatoscopic image",
    responses=_PROBLEMS,
    openapi_extra={"requestBody": _REQUEST_BODY},
)
async def predict(
    services: ServicesDep,
    model: ModelDep,
    upload: UploadDep,
    heatmap: Annotated[bool, Query(description="Draw the heatmap overlay.")] = True,
) -> PredictionResponse:
    """Return the probabilities of the seven classes, and where the evidence lies."""
    on_image_thread = partial(to_thread.run_sync, limiter=services.image_threads)
    with services.metrics.time_stage("decode", model.manifest):
        image, model_input = await on_image_thread(_decode, upload, services.image_limits)
    with services.metrics.time_stage("inference", model.manifest):
        prediction = await to_thread.run_sync(
            model.predict, model_input, limiter=services.model_threads
        )
    shown = None
    if heatmap:
        with services.metrics.time_stage("explain", model.manifest):
            shown = await on_image_thread(_show_heatmap, image.pixels, prediction.heatmap)
    services.metrics.count_prediction(model.manifest, prediction.predicted.label)
    return _present(model, image, prediction, shown)


def _decode(upload: bytes, limits: ImageLimits) -> tuple[DecodedImage, RgbImage]:
    image = decode_image(upload, limits)
    return image, to_model_input(image.pixels)


def _show_heatmap(pixels: RgbImage, heatmap: Heatmap) -> HeatmapSchema:
    overlay = encode_png(draw_overlay(pixels, heatmap))
    index = heatmap.class_index
    return HeatmapSchema(
        overlay=base64.b64encode(overlay).decode("ascii"),
        method=heatmap.method,
        explained_class=None if index is None else CLASSES[index].label,
        map=heatmap.values.tolist(),
        scale=heatmap.scale,
    )


def _present(
    model: LoadedModel, image: DecodedImage, prediction: Prediction, heatmap: HeatmapSchema | None
) -> PredictionResponse:
    return PredictionResponse(
        request_id=request_id.get(),
        model=model_reference(model),
        predicted_class=class_schema(prediction.predicted),
        confidence=prediction.confidence,
        probabilities=dict(zip(LABELS, prediction.probabilities.tolist(), strict=True)),
        heatmap=heatmap,
        image=ImageSchema(width=image.width, height=image.height, media_type=image.media_type),
    )
