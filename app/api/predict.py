"""`POST /predict`: one image in, one traceable answer out."""

import base64
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, Final

import numpy as np
from fastapi import APIRouter, Response
from pydantic_core import to_json

from app.api.deps import IMAGE_FIELD, HeatmapDep, ModelDep, Services, ServicesDep, TtaDep, UploadDep
from app.api.fhir_answers import ContextDep, StoreDep, render_bundle, respond_in_fhir
from app.api.presenters import model_reference, present_answer
from app.api.schemas import HeatmapSchema, ImageSchema, PredictionResponse, Problem
from app.api.threads import run_timed
from app.domain.heatmap_checks import check_heatmap
from app.domain.heatmaps import HeatmapRequest, draw_overlay, encode
from app.domain.images import MEDIA_TYPES, RgbImage
from app.domain.labels import CLASSES
from app.domain.uncertainty import Uncertainty, measure_uncertainty, symmetries
from app.domain.uploads import Upload, read_upload
from app.inference.explain import Prediction, explain
from app.inference.fleet import Served
from app.inference.judge import Judged, judge
from app.interop.fhir_codes import FHIR_MEDIA_TYPE
from app.telemetry import request_id

router = APIRouter(tags=["prediction"])

Render = Callable[[Upload, Judged, HeatmapSchema | None], bytes]
"""Writes down what was found in an image; blocks the calling thread."""

NO_CLASS: Final = "none"
"""Label of rejected answers in the metrics."""
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
    services: ServicesDep,
    model: ModelDep,
    heatmap: HeatmapDep,
    context: ContextDep,
    store: StoreDep,
    upload: UploadDep,
    tta: TtaDep = False,
) -> Response:
    """Return the probabilities of the seven classes, and where the evidence lies."""
    if context is not None:
        render = partial(render_bundle, upload, context)
        body = await answer_image(services, model, upload, heatmap, tta=tta, render=render)
        return await respond_in_fhir(services, body, store=store)
    body = await answer_image(services, model, upload, heatmap, tta=tta)
    return Response(body, media_type="application/json", headers={"Vary": "Accept"})


def render_json(image: Upload, judged: Judged, heatmap: HeatmapSchema | None) -> bytes:
    """A `PredictionResponse` as JSON; blocks the calling thread."""
    return to_json(
        PredictionResponse(
            request_id=request_id.get(),
            model=model_reference(judged.model),
            heatmap=heatmap,
            image=ImageSchema(width=image.width, height=image.height, media_type=image.media_type),
            **dict(present_answer(judged)),
        )
    )


async def answer_image(
    services: Services,
    model: Served,
    upload: bytes,
    heatmap: HeatmapRequest | None,
    *,
    tta: bool,
    index: int | None = None,
    render: Render = render_json,
) -> bytes:
    """Decode, classify, explain and count one image.

    Args:
        services: The application's parts.
        model: Who answers; kept in use by the caller.
        upload: The file's bytes, of any origin.
        heatmap: Which heatmap; None for an answer without one.
        tta: Measure the uncertainty over the picture's symmetries.
        index: The image's place in a batch; None outside of one.
        render: Writes the answer down; may block.

    Returns:
        What `render` makes of the answer.

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
    judged = judge(model.loaded, prediction, image.quality, services.gates)
    if tta and not judged.rejected:
        uncertainty = await _ask_symmetries(model, image.model_input, prediction)
        judged = replace(judged, uncertainty=uncertainty)
    if services.auditor is not None:
        await services.auditor.record(upload, image, judged, index, services.image_threads)
    services.fleet.shadow(model, image.model_input, prediction)
    # The overlay may have megabytes: it is drawn and put into JSON beside the event loop.
    body = await timed("explain", services.image_threads, _render, image, judged, heatmap, render)
    services.metrics.count_answer(
        model.manifest,
        judged.decision.action,
        judged.decision.reasons,
        judged.quality.issues,
        NO_CLASS if judged.rejected else prediction.predicted.label,
    )
    return body


async def _ask_symmetries(model: Served, image: RgbImage, prediction: Prediction) -> Uncertainty:
    views = islice(symmetries(image), 1, None)
    # One after the other: a request has one place in the model's line.
    others = [(await model.predict(view)).probabilities for view in views]
    return measure_uncertainty(np.stack([prediction.probabilities, *others]))


def _render(
    image: Upload,
    judged: Judged,
    request: HeatmapRequest | None,
    render: Render,
) -> bytes:
    heatmap = _draw_heatmap(image, judged, request) if request and not judged.rejected else None
    return render(image, judged, heatmap)


def _draw_heatmap(image: Upload, judged: Judged, request: HeatmapRequest) -> HeatmapSchema:
    heatmap = explain(judged.prediction, request.method, request.class_index)
    overlay = encode(draw_overlay(image.picture, heatmap), request.overlay_format)
    check = check_heatmap(heatmap.values, image.model_input)
    index = heatmap.class_index
    return HeatmapSchema(
        model=judged.model.drawn.qualified_name,
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
