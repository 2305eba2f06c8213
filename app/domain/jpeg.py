"""How often a JPEG may repeat what costs time for a few bytes; decodes nothing."""

from typing import Final

from app.domain.errors import ImageCorruptError

MAX_JPEG_SCANS: Final = 100
"""Progressive encoders write about ten; markers inside metadata count too, harmlessly."""

MAX_JPEG_EXIF_SEGMENTS: Final = 20
"""A camera writes one, and a phone one for each picture it appends."""

_START_OF_SCAN: Final = b"\xff\xda"
_START_OF_EXIF: Final = b"Exif\0\0"


def check_jpeg(jpeg: bytes) -> None:
    """Bound what a JPEG may repeat, before it is opened.

    Each pass over a progressive JPEG costs time for a few bytes, and Pillow copies all EXIF
    that it has for each further segment of it.

    Raises:
        ImageCorruptError: There are more than `MAX_JPEG_SCANS` or `MAX_JPEG_EXIF_SEGMENTS`.
    """
    for what, mark, most in (
        ("scans", _START_OF_SCAN, MAX_JPEG_SCANS),
        ("EXIF segments", _START_OF_EXIF, MAX_JPEG_EXIF_SEGMENTS),
    ):
        if jpeg.count(mark) > most:
            raise ImageCorruptError(
                f"The JPEG has more than {most} {what}, which no camera writes; it would take "
                "too long to decode. Export the picture again."
            )
