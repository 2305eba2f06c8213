"""What of TIFF is left to libtiff, and what is refused of it; knows nothing of other formats.

A TIFF is a directory of tags, each with its values anywhere in the file (TIFF 6.0, section 2).
libtiff copies the values of every tag, of unknown ones too, and several may lie in one place:
ten megabytes were three gigabytes so. Pillow makes a Python object of each number.

Pillow reads a TIFF without compression in Python: a tile for each strip that the file lists,
when it is opened, and each is decoded, though all may be of the same bytes. libtiff reads as
many as the picture's size asks for, and understands separate planes of 16 bits and YCbCr.
"""

import struct
from typing import Final

import numpy as np
from PIL import TiffImagePlugin
from PIL.TiffImagePlugin import TiffImageFile

from app.domain.errors import ImageCorruptError, ImageFormatError

# Of the whole process, before its first TIFF; compressed ones go to libtiff in any case.
TiffImagePlugin.READ_LIBTIFF = True

TIFF_STARTS: Final = (b"II", b"MM")
"""Of the two byte orders; no other format that is read begins so."""

MAX_TIFF_FRACTIONS: Final = 1000
"""Values of one tag. Cameras write four at most, and a million would take ten seconds."""

MAX_TIFF_NUMBERS: Final = 1_000_000
"""Values of one tag; the longest of honest ones lists a strip for each row."""

_FORMS: Final = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True)}
"""Byte order, and whether it is a BigTIFF, which Pillow reads of one byte order only."""

_BYTES_OF_TYPE: Final = np.array([0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8])
"""By the number of a tag's type; 0 where there is none, and its values are not read."""

_FRACTIONS: Final = (5, 10)
_BLACK_IS_ZERO: Final = 1
_SEPARATE_PLANES: Final = 2


def check_directory(tiff: bytes) -> None:
    """Bound what the values of a TIFF's tags cost, before it is opened.

    Args:
        tiff: A file that begins with one of `TIFF_STARTS`.

    Raises:
        ImageFormatError: No TIFF follows.
        ImageCorruptError: The directory is not in the file, has more values than the file has
            bytes, or more than `MAX_TIFF_FRACTIONS` or `MAX_TIFF_NUMBERS` of a tag.
    """
    if tiff[:4] not in _FORMS:
        raise ImageFormatError(
            "The bytes begin as a TIFF's and go on as none; expected JPEG, PNG, TIFF, BMP or WebP."
        )
    order, is_big = _FORMS[tiff[:4]]
    word, half = ("u8", "Q") if is_big else ("u4", "H")
    entry = np.dtype(
        [("tag", f"{order}u2"), ("type", f"{order}u2"), ("count", f"{order}{word}")]
        + [("value", f"{order}{word}")]
    )
    try:
        (start,) = struct.unpack_from(f"{order}{'Q' if is_big else 'L'}", tiff, 8 if is_big else 4)
        (num_tags,) = struct.unpack_from(f"{order}{half}", tiff, start)
        entries = np.frombuffer(tiff, entry, num_tags, start + struct.calcsize(half))
    except (struct.error, ValueError, OverflowError) as error:
        raise ImageCorruptError(
            "The TIFF's directory is not in the file: it is truncated or damaged. "
            "Export or transfer it again."
        ) from error
    types = np.minimum(entries["type"], 0xFF)
    unit = np.zeros(0x100, np.int64)
    unit[: len(_BYTES_OF_TYPE)] = _BYTES_OF_TYPE
    # Longer than the file is too long, by however much.
    counts = np.minimum(entries["count"], len(tiff) + 1).astype(np.int64)
    most = np.where(np.isin(types, _FRACTIONS), MAX_TIFF_FRACTIONS, MAX_TIFF_NUMBERS)
    too_many = (counts > most) & (unit[types] > 1)
    if (counts * unit[types]).sum() > len(tiff) or too_many.any():
        raise ImageCorruptError(
            f"The TIFF's tags have more values than the file has bytes, or one of them has more "
            f"than {MAX_TIFF_FRACTIONS:,} fractions or {MAX_TIFF_NUMBERS:,} numbers, which no "
            "camera writes. Export the picture again."
        )


def check_tiff(image: TiffImageFile, max_pixels: int) -> None:
    """Bound what libtiff would allocate, and refuse what would come out wrong.

    Args:
        image: Opened and not decoded.
        max_pixels: Of one tile. A tile is unfolded whole, however small the picture.

    Raises:
        ImageCorruptError: A tile has more pixels, or none.
        ImageFormatError: The pixels are of a kind that Pillow misreads.
    """
    tags = image.tag_v2
    sides = [tags.get(TiffImagePlugin.TILEWIDTH, 1), tags.get(TiffImagePlugin.TILELENGTH, 1)]
    if not all(isinstance(side, int) and side > 0 for side in sides):
        raise ImageCorruptError("The TIFF's tiles have no size. Export the picture again.")
    if sides[0] * sides[1] > max_pixels:
        raise ImageCorruptError(
            f"The TIFF has tiles of {sides[0]} x {sides[1]} pixels; at most {max_pixels:,} are "
            "accepted. Export the picture with smaller tiles, or with none."
        )
    if image.mode.startswith("I;16") and (
        tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))[0] != 16
        or tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) != _BLACK_IS_ZERO
    ):
        raise ImageFormatError(
            "The TIFF's grey values are not of 8 or 16 bits, or are 16 bits with white as zero; "
            "expected 8 or 16 bits with black as zero. Export the picture as 8-bit RGB."
        )
    planes = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION)
    if image.mode in ("LA", "PA") and planes == _SEPARATE_PLANES:
        raise ImageFormatError(
            "The TIFF keeps grey and alpha in separate planes; expected them side by side. "
            "Export the picture as 8-bit RGB."
        )
