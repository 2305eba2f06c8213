"""How often a JPEG may repeat what costs time for a few bytes; decodes nothing."""

import re
from typing import Final

from app.domain.errors import ImageCorruptError

MAX_JPEG_SCANS: Final = 100
"""Progressive encoders write about ten."""

MAX_JPEG_EXIF_SEGMENTS: Final = 20
"""A camera writes one, and a phone one for each picture it appends."""

MAX_JPEG_STEPS: Final = 5000
"""Segments, and bytes between them, before the first scan, and segments in all. A colour profile
takes 255 segments at most, and a few bytes fill up."""

_START_OF_SCAN: Final = b"\xff\xda"
_END_OF_IMAGE: Final = 0xD9
_MARKER: Final = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
"""Behind it stands no pixel: neither a stuffed byte nor a restart (ITU-T T.81, B.1.1)."""
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
    num_scans, num_segments = _count_scans(jpeg)
    if _has_too_many_steps(jpeg) or num_segments > MAX_JPEG_STEPS:
        raise ImageCorruptError(
            f"The JPEG has more than {MAX_JPEG_STEPS:,} segments and bytes between them, "
            "which no camera writes; it would take too long to read. Export the picture again."
        )
    for what, number, most in (
        ("scans", num_scans, MAX_JPEG_SCANS),
        ("EXIF segments", jpeg.count(_START_OF_EXIF), MAX_JPEG_EXIF_SEGMENTS),
    ):
        if number > most:
            raise ImageCorruptError(
                f"The JPEG has more than {most} {what}, which no camera writes; it would take "
                "too long to decode. Export the picture again."
            )


def _count_scans(jpeg: bytes) -> tuple[int, int]:
    """How many scans and segments the decoder meets, which it does up to the end of the image.

    Phones append films and further pictures behind that, whose bytes may be anything. Counting
    ends where there are too many.
    """
    position, scans, segments = 2, 0, 0
    while segments <= MAX_JPEG_STEPS and scans <= MAX_JPEG_SCANS:
        found = _MARKER.search(jpeg, position)
        if found is None or found[1][0] == _END_OF_IMAGE:
            break
        segments += 1
        scans += found[1] == _START_OF_SCAN[1:]
        position = found.end()
        if found[1][0] not in _BARE:
            position += max(int.from_bytes(jpeg[position : position + 2], "big"), 2)
    return scans, segments


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
