"""Whether a DICOM object that was sent unasked is one to answer; and STOW-RS bodies in parts."""

from typing import Final

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from app.domain.errors import (
    DicomFrameError,
    DicomNotPhotographError,
    ImageCorruptError,
    ImageFormatError,
    ImageTooManyBytesError,
)
from app.domain.images import ImageLimits
from app.interop.dicom_files import check_photograph, read_object, value_of
from app.interop.dicom_report import SOFTWARE_NAME
from app.interop.dicom_source import take_over
from app.interop.uploads import is_dicom

MAX_BOUNDARY: Final = 70
"""Longest boundary of a multipart body (RFC 2046, section 5.1.1)."""


def admit(data: bytes, limits: ImageLimits) -> str:
    """Look at an object without its pixels.

    Args:
        data: A DICOM file, of any origin.
        limits: Bounds, as for uploads.

    Returns:
        Its SOP Instance UID.

    Raises:
        ImageTooManyBytesError: It is longer than `limits.max_bytes`.
        ImageFormatError: It is no DICOM file, or of a transfer syntax that is not read.
        ImageCorruptError: It cannot be read, or does not say which study it belongs to.
        DicomNotPhotographError: Another SOP class, or a result of this software.
        DicomFrameError: It has several frames, and nobody is there to say which one is meant.
    """
    if not is_dicom(data):
        raise ImageFormatError(
            "The body is no DICOM file (PS3.10): it has no preamble with DICM. Send it as "
            "application/dicom."
        )
    if len(data) > limits.max_bytes:
        raise ImageTooManyBytesError(
            f"The DICOM object has {len(data):,} bytes; at most {limits.max_bytes:,} are accepted."
        )
    dataset = read_object(data, limits)
    check_photograph(dataset)
    if value_of(dataset, "Manufacturer") == SOFTWARE_NAME:
        raise DicomNotPhotographError(
            "The DICOM object was made by this software: its own results are not answered."
        )
    if (value_of(dataset, "NumberOfFrames") or 1) != 1:
        raise DicomFrameError(
            "The DICOM object has several frames; expected one, for nobody is there to say which "
            "is meant. Send each frame as an object of its own, or ask /predict with `frame`."
        )
    return str(take_over(dataset).SOPInstanceUID)


def split_parts(body: bytes, boundary: str, max_parts: int) -> list[bytes]:
    """The parts of a multipart/related body (PS3.18, section 8.6.1.2).

    Raises:
        ImageCorruptError: It is none, or has too many parts.
    """
    parts: list[bytearray] = []

    def begin() -> None:
        if len(parts) == max_parts:
            raise ImageCorruptError(f"The body has more than {max_parts} parts. Send fewer.")
        parts.append(bytearray())

    ended = False

    def end() -> None:
        nonlocal ended
        ended = True

    try:
        parser = MultipartParser(
            boundary.encode(),
            {
                "on_part_begin": begin,
                "on_part_data": lambda data, start, stop: parts[-1].extend(data[start:stop]),
                "on_end": end,
            },
        )
        parser.write(body)
        parser.finalize()
    except MultipartParseError as error:
        raise ImageCorruptError("The body is no multipart body of that boundary.") from error
    if not ended or not parts:
        raise ImageCorruptError("The multipart body ends too early, or has no part.")
    return [bytes(part) for part in parts]
