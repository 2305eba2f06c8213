"""A heatmap overlay as a Secondary Capture image, captioned as what it is."""

from collections.abc import Sequence
from typing import Final

from highdicom.sc import SCImage
from pydicom.dataset import Dataset

from app.domain.captions import append_caption
from app.domain.images import RgbImage
from app.domain.notice import SHORT_NOTICE
from app.interop import dicom_libraries  # noqa: F401  keeps the libraries quiet
from app.interop.dicom_report import SOFTWARE_NAME, ReportedAnswer, equipment
from app.interop.dicom_source import ISSUER, derive_uid

HEATMAP_SERIES_NUMBER: Final = 9002


def make_capture(
    source: Dataset,
    answer: ReportedAnswer,
    overlay: RgbImage,
    explained: str,
    warnings: Sequence[str] = (),
) -> SCImage:
    """Put an overlay into the photograph's study.

    Args:
        source: From `take_over`.
        answer: The answer that it belongs to.
        overlay: (height, width, 3) uint8 sRGB.
        explained: What it shows, in ASCII.
        warnings: Why to read nothing into it, in ASCII.
    """
    identity = answer.identity
    model = f"{SOFTWARE_NAME} {answer.algorithm.name}@{answer.algorithm.version}"
    capture = SCImage.from_ref_dataset(
        ref_dataset=source,
        pixel_array=append_caption(overlay, [SHORT_NOTICE, f"{model}: {explained}", *warnings]),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # one is required here; taken back below
        series_instance_uid=derive_uid(source.SeriesInstanceUID, identity, "heatmap-series"),
        series_number=HEATMAP_SERIES_NUMBER,
        sop_instance_uid=derive_uid(source.SOPInstanceUID, identity, "heatmap", explained),
        instance_number=source.InstanceNumber,
        series_description="AI heatmaps, research use, not verified",
        specific_character_set=source.SpecificCharacterSet,
        **equipment(answer.algorithm),
    )
    # Nothing is known of either.
    capture["PatientOrientation"].value = None
    capture.add_new("Laterality", "CS", None)
    capture.DerivationDescription = " ".join([f"{explained}.", *warnings, SHORT_NOTICE])
    capture.SourceImageSequence = [_reference(source, answer.frame)]
    for element in source.group_dataset(0x0028):
        capture.add(element)
    for keyword in ISSUER:
        if keyword in source:
            capture.add(source[keyword])
    return capture


def _reference(source: Dataset, frame: int | None) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if frame is not None:
        reference.ReferencedFrameNumber = frame
    return reference
