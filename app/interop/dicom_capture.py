"""A heatmap overlay as a Secondary Capture image, captioned as what it is."""

from typing import Final

import cv2
import numpy as np
from highdicom.sc import SCImage
from pydicom.dataset import Dataset

from app.domain.images import RgbImage
from app.interop import dicom_libraries  # noqa: F401  keeps the libraries quiet
from app.interop.dicom_report import SOFTWARE_NAME, ReportedAnswer, equipment
from app.interop.dicom_source import derive_uid

HEATMAP_SERIES_NUMBER: Final = 9002
CAPTION: Final = "AI research software. Not for diagnosis."
"""In the picture itself: a viewer may show nothing else."""

_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_LINE_SHARE: Final = 0.045
"""Height of a line of the caption, as a share of the picture's width."""
_MARGIN_SHARE: Final = 0.25
"""Free space around a line of the caption, as a share of the line."""


def make_capture(
    source: Dataset, answer: ReportedAnswer, overlay: RgbImage, explained: str
) -> SCImage:
    """Put an overlay into the photograph's study.

    Args:
        source: From `take_over`.
        answer: The answer that it belongs to.
        overlay: (height, width, 3) uint8 sRGB.
        explained: What it shows, in ASCII.
    """
    identity = answer.identity
    model = f"{SOFTWARE_NAME} {answer.algorithm.name}@{answer.algorithm.version}"
    capture = SCImage.from_ref_dataset(
        ref_dataset=source,
        pixel_array=_with_caption(overlay, [CAPTION, f"{model}: {explained}"]),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # one is required here; taken back below
        series_instance_uid=derive_uid(source.SeriesInstanceUID, identity, "heatmap-series"),
        series_number=HEATMAP_SERIES_NUMBER,
        sop_instance_uid=derive_uid(source.SOPInstanceUID, identity, "heatmap"),
        instance_number=source.InstanceNumber,
        series_description="AI heatmaps, research use, not verified",
        specific_character_set=source.SpecificCharacterSet,
        **equipment(answer.algorithm),
    )
    # Nothing is known of either.
    capture["PatientOrientation"].value = None
    capture.add_new("Laterality", "CS", None)
    capture.BurnedInAnnotation = "NO"  # the caption identifies nobody
    capture.DerivationDescription = f"{explained}. {CAPTION}"
    capture.SourceImageSequence = [_reference(source, answer.frame)]
    for element in source.group_dataset(0x0028):
        capture.add(element)
    return capture


def _reference(source: Dataset, frame: int | None) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if frame is not None:
        reference.ReferencedFrameNumber = frame
    return reference


def _with_caption(picture: RgbImage, lines: list[str]) -> RgbImage:
    """Append lines of text below a picture; no pixel of it is covered."""
    width = picture.shape[1]
    line = max(12, round(width * _LINE_SHARE))
    margin = max(3, round(line * _MARGIN_SHARE))
    strip = np.zeros((len(lines) * (line + margin) + margin, width, 3), np.uint8)
    for index, text in enumerate(lines):
        scale = cv2.getFontScaleFromHeight(_FONT, line * 2 // 3)
        (length, _), _ = cv2.getTextSize(text, _FONT, scale, 1)
        scale *= min(1.0, (width - 2 * margin) / length)
        bottom = (index + 1) * (line + margin) - margin
        cv2.putText(strip, text, (margin, bottom), _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return np.ascontiguousarray(np.vstack([picture, strip]))
