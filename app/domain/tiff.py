"""What of TIFF is left to libtiff, and what is refused of it; knows nothing of other formats.

Pillow reads a TIFF without compression in Python: a tile for each strip that the file lists,
when it is opened, and each is decoded, though all may be of the same bytes. libtiff reads as
many as the picture's size asks for, and understands separate planes of 16 bits and YCbCr.
"""

from typing import Final

from PIL import TiffImagePlugin
from PIL.TiffImagePlugin import TiffImageFile

from app.domain.errors import ImageCorruptError, ImageFormatError

# Of the whole process, before its first TIFF; compressed ones go to libtiff in any case.
TiffImagePlugin.READ_LIBTIFF = True

_BLACK_IS_ZERO: Final = 1
_SEPARATE_PLANES: Final = 2


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
