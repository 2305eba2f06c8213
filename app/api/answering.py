"""From uploaded bytes to a recorded, explained and counted answer: the one way to one."""

import base64
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Final, TypeVar

import numpy as np
from pydantic_core import to_json

from app.answer_metrics import CountedAnswer
from app.api.answer_schemas import HeatmapSchema, ImageSchema, PredictionResponse
from app.api.deps import Services
from app.api.presenters import model_reference, present_answer
from app.api.threads import run_queued, run_timed
from app.domain.heatmap_checks import HeatmapCheck, check_heatmap
from app.domain.heatmaps import Heatmap, HeatmapRequest, OverlayFormat, draw_overlay, encode
from app.domain.images import RgbImage
from app.domain.labels import CLASSES
from app.domain.uncertainty import Uncertainty, measure_uncertainty, symmetries
from app.domain.uploads import Upload
from app.inference.explain import Prediction, explain
from app.inference.judge import Judged, judge
from app.inference.served import Served
from app.interop.uploads import read_any_upload
from app.logs import request_id
from app.stages import Stages

Result = TypeVar("Result")

_NO_OVERLAY: Final = b'"overlay":""'

Render = Callable[[Upload, Judged, HeatmapSchema | None], bytes]
"""Writes down what was found in an image; blocks the calling thread."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about an upload, beside the heatmap.

    Attributes:
        tta: Measure the uncertainty over the picture's symmetries.
        index: The image's place in a batch; None outside of one.
        frame: Of a DICOM object, from 1; None for its only one.
    """

    tta: bool = False
    index: int | None = None
    frame: int | None = None


def render_json(image: Upload, judged: Judged, heatmap: HeatmapSchema | None) -> bytes:
    """A `PredictionResponse` as JSON; blocks the calling thread."""
    written = to_json(
        PredictionResponse(
            request_id=request_id.get(),
            model=model_reference(judged.model),
            heatmap=heatmap and heatmap.model_copy(update={"overlay": ""}),
            image=ImageSchema(
                width=image.width,
                height=image.height,
                media_type=image.media_type,
                frame=image.frame,
            ),
            **dict(present_answer(judged)),
        )
    )
    if heatmap is None:
        return written
    # Base64 has nothing that JSON escapes: its hundreds of KB are not looked through for it.
    before, after = written.split(_NO_OVERLAY)
    overlay = heatmap.overlay.encode("ascii")
    return b"".join([before, _NO_OVERLAY[:-1], overlay, _NO_OVERLAY[-1:], after])


async def answer_image(
    services: Services,
    model: Served,
    upload: bytes,
    heatmap: HeatmapRequest | None,
    question: Question,
    render: Render = render_json,
) -> bytes:
    """Answer one image in writing, under its heatmap.

    Args:
        services: The application's parts.
        model: Who answers; kept in use by the caller.
        upload: The file's bytes, of any origin.
        heatmap: Which heatmap; None for an answer without one.
        question: What else is asked.
        render: Writes the answer down; may block.

    Returns:
        What `render` makes of the answer.

    Raises:
        DermHybridError: The image or the model cannot give an answer.
    """
    draw = partial(_render, stages=services.stages, request=heatmap, render=render)
    return await answer_upload(services, model, upload, question, draw)


async def answer_upload(
    services: Services,
    model: Served,
    upload: bytes,
    question: Question,
    render: Callable[[Upload, Judged], Result],
) -> Result:
    """Decode, classify, judge, record, render and count: the one way to an answer.

    Args:
        services: The application's parts.
        model: Who answers; kept in use by the caller.
        upload: The file's bytes, of any origin.
        question: What is asked.
        render: Makes of the answer what is given, in a thread; measures its own stages.

    Raises:
        DermHybridError: The image or the model cannot give an answer.
    """
    image = await run_timed(
        services.stages,
        model.manifest,
        "decode",
        services.image_threads,
        read_any_upload,
        upload,
        services.image_limits,
        services.max_overlay_side,
        question.frame,
    )
    prediction = await model.predict(image.model_input)
    judged = judge(model.loaded, prediction, image.quality, services.gates)
    if question.tta and not judged.rejected:
        uncertainty = await _ask_symmetries(model, image.model_input, prediction)
        judged = replace(judged, uncertainty=uncertainty)
    if services.auditor is not None:
        with services.tracing.part("audit"):
            await services.auditor.record(
                upload, image, judged, question.index, services.image_threads
            )
    services.fleet.shadow(model, image.model_input, prediction)
    # The overlay may have megabytes: it is drawn and encoded beside the event loop.
    rendered = await run_queued(
        services.stages, model.manifest, services.image_threads, render, image, judged
    )
    services.metrics.answers.count(
        model.manifest, _counted(judged), is_served=services.fleet.serves(model.loaded)
    )
    return rendered


def _counted(judged: Judged) -> CountedAnswer:
    prediction, decision = judged.prediction, judged.decision
    return CountedAnswer(
        prediction.predicted.label,
        prediction.confidence,
        decision.action,
        decision.reasons,
        judged.quality.issues,
        decision.novelty,
    )


async def _ask_symmetries(model: Served, image: RgbImage, prediction: Prediction) -> Uncertainty:
    views = islice(symmetries(image), 1, None)
    # One after the other: a request has one place in the model's line.
    others = [(await model.predict(view)).probabilities for view in views]
    return measure_uncertainty(np.stack([prediction.probabilities, *others]))


def _render(
    image: Upload,
    judged: Judged,
    *,
    stages: Stages,
    request: HeatmapRequest | None,
    render: Render,
) -> bytes:
    manifest = judged.model.manifest
    drawn = None
    if request is not None and not judged.rejected:
        with stages.time("explain", manifest):
            heatmap = explain(judged.prediction, request.method, request.class_index)
            overlay = draw_overlay(image.picture, heatmap)
            check = check_heatmap(heatmap.values, image.model_input, image.lesion)
            drawn = heatmap, overlay, check, request.overlay_format
    with stages.time("encode", manifest):
        return render(image, judged, drawn and _present_heatmap(judged, *drawn))


def _present_heatmap(
    judged: Judged,
    heatmap: Heatmap,
    overlay: RgbImage,
    check: HeatmapCheck,
    overlay_format: OverlayFormat,
) -> HeatmapSchema:
    index = heatmap.class_index
    return HeatmapSchema(
        model=judged.model.drawn.qualified_name,
        media_type=overlay_format.media_type,
        overlay=base64.b64encode(encode(overlay, overlay_format)).decode("ascii"),
        method=heatmap.method,
        explained_class=None if index is None else CLASSES[index].label,
        map=heatmap.values.tolist(),
        scale=heatmap.scale,
        share_at_border=check.share_at_border,
        share_in_lesion=check.share_in_lesion,
        flags=list(check.flags),
    )
