"""From a judged answer to the DICOM objects that report it."""

import io
from importlib.metadata import version

from pydicom.dataset import Dataset

from app.domain.captions import describe_heatmap, warn_of
from app.domain.heatmap_checks import check_heatmap
from app.domain.heatmaps import RECORDED_METHOD, draw_overlay
from app.domain.labels import LABELS
from app.domain.uploads import Upload
from app.inference.explain import explain
from app.inference.judge import Judged
from app.interop.dicom_capture import make_capture
from app.interop.dicom_report import Algorithm, ReportedAnswer, make_report
from app.interop.dicom_source import take_over


def make_results(photograph: Dataset, upload: Upload, judged: Judged) -> list[Dataset]:
    """The structured report of an answer, and its heatmap unless it is rejected.

    Args:
        photograph: What was asked about, from `read_object`.
        upload: Its picture, and the frame that it is.
        judged: The answer.

    Raises:
        ImageCorruptError: The photograph does not say which study it belongs to.
    """
    source, answer = take_over(photograph), _answer(judged, upload.frame)
    report = make_report(source, answer)
    if judged.rejected:
        return [report]
    heatmap = explain(judged.prediction, RECORDED_METHOD)
    explained = describe_heatmap(heatmap, judged.model.drawn.qualified_name)
    flags = check_heatmap(heatmap.values, upload.model_input, upload.lesion).flags
    overlay = draw_overlay(upload.picture, heatmap)
    return [report, make_capture(source, answer, overlay, explained, warn_of(flags))]


def to_file(result: Dataset) -> bytes:
    """A result as the bytes of a DICOM file."""
    buffer = io.BytesIO()
    result.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _answer(judged: Judged, frame: int | None) -> ReportedAnswer:
    model, prediction, decision = judged.model, judged.prediction, judged.decision
    shown = None if judged.rejected else prediction
    return ReportedAnswer(
        algorithm=Algorithm(
            name=model.manifest.name,
            version=model.manifest.version,
            digest=model.digest,
            runtime=model.runtime,
            software_version=version("dermhybrid"),
        ),
        frame=frame,
        action=decision.action,
        reasons=decision.reasons,
        sentence=decision.sentence,
        calibrated=model.manifest.calibration is not None,
        probabilities=None
        if shown is None
        else dict(zip(LABELS, shown.probabilities.tolist(), strict=True)),
        predicted=None if shown is None else shown.predicted,
    )
