"""How many chunks a PNG may have; decodes nothing."""

from typing import Final

from app.domain.errors import ImageCorruptError

MAX_PNG_CHUNKS: Final = 20_000
"""Twenty megabytes of pixels are a few thousand; each is read one by one."""

PNG_START: Final = b"\x89PNG\r\n\x1a\n"
_FRAME_BYTES: Final = 12
"""Of a chunk: its length, its type and its checksum (ISO/IEC 15948, section 5.3)."""


def check_png(png: bytes) -> None:
    """Bound the chunks of a PNG, before it is opened.

    Pillow unfolds each colour profile, of which the standard allows one.

    Args:
        png: A file that begins with `PNG_START`.

    Raises:
        ImageCorruptError: There are more than `MAX_PNG_CHUNKS`, or several colour profiles.
    """
    position, num_profiles = len(PNG_START), 0
    for _ in range(MAX_PNG_CHUNKS + 1):
        kind = png[position + 4 : position + 8]
        num_profiles += kind == b"iCCP"
        if num_profiles > 1:
            break
        if kind == b"IEND" or len(kind) < 4:
            return
        position += int.from_bytes(png[position : position + 4], "big") + _FRAME_BYTES
    raise ImageCorruptError(
        f"The PNG has more than {MAX_PNG_CHUNKS:,} chunks or one colour profile, which no camera "
        "writes; it would take too long to decode. Export the picture again."
    )
