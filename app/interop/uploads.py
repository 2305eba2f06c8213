"""Read an upload of any kind: a picture file, or a DICOM object where that is installed."""

from typing import Final

from app.domain.errors import (
    DicomFrameError,
    DicomSupportMissingError,
    ImageTooManyBytesError,
)
from app.domain.images import ImageLimits
from app.domain.uploads import Upload, read_upload, to_upload

DICOM_MEDIA_TYPE: Final = "application/dicom"
STUDIES_PATH: Final = "/dicom/studies"
"""Of the route of photographs that are answered later: here, for all routes but that one are there
without what reads DICOM."""

_PREAMBLE_BYTES: Final = 128
_PREFIX: Final = b"DICM"


def is_dicom(data: bytes) -> bool:
    """Whether bytes begin as a DICOM file does (PS3.10, section 7.1), whatever they are called."""
    return data.startswith(_PREFIX, _PREAMBLE_BYTES)


def read_any_upload(
    data: bytes, limits: ImageLimits, max_picture_side: int, frame: int | None = None
) -> Upload:
    """Decode an uploaded file for a prediction, as `read_upload` does.

    Args:
        data: The file's bytes, of any origin.
        limits: Bounds on bytes and pixels, checked before any pixel is decoded.
        max_picture_side: Longest side of the picture in pixels.
        frame: Of a DICOM object, from 1; None for its only one.

    Raises:
        ImageRejectedError: As `decode_image`, and as `read_photograph`.
        DicomFrameError: A frame is named, and the upload is no DICOM object.
        DicomSupportMissingError: It is one, and what reads it is not installed.
    """
    if not is_dicom(data):
        if frame is not None:
            raise DicomFrameError(
                "The upload is no DICOM object, and only these have frames to choose from. "
                "Leave `frame` out."
            )
        return read_upload(data, limits, max_picture_side)
    if len(data) > limits.max_bytes:
        raise ImageTooManyBytesError(
            f"The DICOM object has {len(data):,} bytes; at most {limits.max_bytes:,} are accepted. "
            "Send one of fewer frames or of stronger compression."
        )
    try:
        from app.interop.dicom_pixels import read_photograph
    except ImportError as error:
        raise DicomSupportMissingError(
            "The upload is a DICOM object, and this service is installed without the extra "
            "`interop`, which reads them. Its operator can add it "
            "(`uv sync --frozen --inexact --extra interop`); or send the picture as JPEG or PNG."
        ) from error
    photograph = read_photograph(data, limits, frame)
    return to_upload(photograph.decoded, max_picture_side, photograph.named_frame)
