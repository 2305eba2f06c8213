"""How often a JPEG may repeat what costs time for a few bytes; decodes nothing."""

from typing import Final

from app.domain.errors import ImageCorruptError

MAX_JPEG_SCANS: Final = 100
"""Progressive encoders write about ten; markers inside metadata count too, harmlessly."""

MAX_JPEG_EXIF_SEGMENTS: Final = 20
"""A camera writes one, and a phone one for each picture it appends."""

MAX_JPEG_STEPS: Final = 5000
"""Segments, and bytes between them, before the first scan. A colour profile takes 255 segments at
most, and a few bytes fill up."""

_START_OF_SCAN: Final = b"\xff\xda"
_START_OF_EXIF: Final = b"Exif\0\0"
_BARE: Final = frozenset({0x00, 0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)})
"""Second bytes of markers that Pillow takes to have no segment behind them."""


def check_jpeg(jpeg: bytes) -> None:
    """Bound what a JPEG may repeat, before it is opened.

    Each pass over a progressive JPEG costs time for a few bytes, Pillow copies all EXIF that it
    has for each further segment of it, and walks from segment to segment in Python.

    Raises:
        ImageCorruptError: There are more than `MAX_JPEG_SCANS`, `MAX_JPEG_EXIF_SEGMENTS` or
            `MAX_JPEG_STEPS`.
    """
    if _has_too_many_steps(jpeg):
        raise ImageCorruptError(
            f"The JPEG has more than {MAX_JPEG_STEPS:,} segments and bytes between them before its "
            "pixels, which no camera writes; it would take too long to read. Export the picture "
            "again."
        )
    for what, mark, most in (
        ("scans", _START_OF_SCAN, MAX_JPEG_SCANS),
        ("EXIF segments", _START_OF_EXIF, MAX_JPEG_EXIF_SEGMENTS),
    ):
        if jpeg.count(mark) > most:
            raise ImageCorruptError(
                f"The JPEG has more than {most} {what}, which no camera writes; it would take "
                "too long to decode. Export the picture again."
            )


def _has_too_many_steps(jpeg: bytes) -> bool:
    """Go from segment to segment (ITU-T T.81, annex B) as Pillow does, up to the first scan."""
    position, steps = 2, 0
    while steps <= MAX_JPEG_STEPS:
        steps += 1
        marker = jpeg[position : position + 2]
        if len(marker) < 2 or marker == _START_OF_SCAN:
            return False
        if marker[0] != 0xFF:
            found = jpeg.find(b"\xff", position)
            behind = found if found >= 0 else len(jpeg)
            steps += behind - position
            position = behind
        elif marker[1] == 0xFF:
            position += 1
        elif marker[1] in _BARE:
            position += 2
        else:
            length = int.from_bytes(jpeg[position + 2 : position + 4], "big")
            position += 2 + max(length, 2)
    return True
