"""From an uploaded file's bytes to the model's input: the only copy of preprocessing.

```
bytes -> header checks -> decode -> EXIF orientation -> RGB uint8 -> area resize -> 224x224x3
```

Training and serving both call `decode_image` and `to_model_input`, so that a file gives
the same tensor on either side. Knows nothing of HTTP, settings or TensorFlow.
"""

import io
import math
from dataclasses import dataclass
from typing import Final, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from app.domain.errors import (
    ImageCorruptError,
    ImageEmptyError,
    ImageFormatError,
    ImageTooManyBytesError,
    ImageTooManyPixelsError,
    ImageTooSmallError,
    is_exhaustion,
)
from app.domain.jpeg import check_jpeg
from app.domain.png import PNG_START, check_png
from app.domain.tiff import TIFF_STARTS, check_directory, check_tiff

RgbImage: TypeAlias = npt.NDArray[np.uint8]
"""(height, width, 3) uint8, sRGB."""

MODEL_INPUT_SIZE: Final = 224
"""Side of the square model input in pixels (the paper, section III.B)."""

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by EXIF's Orientation."""
_SIDEWAYS: Final = frozenset({5, 6, 7, 8})
"""Values of it that exchange width and height."""

MEDIA_TYPES: Final[dict[str, str]] = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # a JPEG whose maker appended further pictures: phones do
    "PNG": "image/png",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
    "WEBP": "image/webp",
}
"""Pillow's format names and their media types; no other decoder ever runs."""

MAX_EXIF_BYTES: Final = 1024 * 1024
"""A JPEG's segment holds 64 KiB. Values are decoded in Python, about 6 us for each 8 bytes."""

_JPEG_START: Final = b"\xff\xd8"
_BMP_RUN_LENGTHS: Final = frozenset({1, 2})
"""BI_RLE8 and BI_RLE4."""

_READABLE_MODES: Final = frozenset(
    {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"}
    | {"I;16", "I;16B", "I;16L"}
)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an upload may cost.

    Attributes:
        max_bytes: Largest file in bytes.
        max_pixels: Largest width times height, read from the header before decoding.
        min_side_pixels: Smallest width and height. Half the model's input by default:
            below it most of what the model would see is interpolation.
    """

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 25_000_000
    min_side_pixels: int = MODEL_INPUT_SIZE // 2


DEFAULT_LIMITS: Final = ImageLimits()


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upload as pixels.

    Attributes:
        pixels: uint8 sRGB, upright, C-contiguous: (height, width, 3), or smaller where that
            was allowed.
        width: Of the file, in pixels after orientation.
        height: Of the file, in pixels after orientation.
        media_type: What the bytes really were, whatever the caller called them.
    """

    pixels: RgbImage
    width: int
    height: int
    media_type: str


def decode_image(
    data: bytes, limits: ImageLimits = DEFAULT_LIMITS, *, enough_side: int | None = None
) -> DecodedImage:
    """Decode an uploaded file to upright RGB.

    Reads JPEG, PNG, TIFF, BMP and WebP of 8 or 16 bits: grey, palette, RGB, CMYK, with or
    without alpha (laid over black, the colour outside a dermatoscope's field of view).
    Colour profiles are not applied: values are taken as sRGB, as in the training data.

    Args:
        data: The file's bytes, of any origin.
        limits: Bounds on bytes and pixels, checked before any pixel is decoded.
        enough_side: A JPEG may be decoded at a reduced scale that leaves its longer side at
            least so many pixels, and its shorter one twice the model's input. None: never.

    Returns:
        The picture, with EXIF orientation applied and all metadata left behind.

    Raises:
        ImageEmptyError: `data` is empty.
        ImageTooManyBytesError: `data` is longer than `limits.max_bytes`.
        ImageFormatError: Not one of the formats above, a BMP with RLE compression, or several
            pictures in one file.
        ImageTooManyPixelsError: The header announces more than `limits.max_pixels`.
        ImageTooSmallError: A side is shorter than `limits.min_side_pixels`.
        ImageCorruptError: The header is right and the picture cannot be decoded.
    """
    _check_bytes(data, limits)
    with _open(data, limits) as image:
        _check_header(image, limits)
        width, height = image.size
        try:
            # Pillow has turned a TIFF's size already, and turns its pixels.
            orientation = _orientation(image) if image.format != "TIFF" else None
            if orientation in _SIDEWAYS:
                width, height = height, width
            if enough_side is not None:
                _reduce_scale(image, enough_side)
            turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
            # Not ImageOps.exif_transpose, which writes the EXIF anew and fails on what cameras do.
            pixels = _to_rgb(image if turn is None else image.transpose(turn))
        except ImageCorruptError:
            raise
        except Exception as error:  # a decoder may raise anything on hostile bytes
            if is_exhaustion(error):
                raise  # the file may be a good one
            raise ImageCorruptError(
                f"The file begins as {image.format} and cannot be decoded: it is truncated or "
                "damaged. Export or transfer it again."
            ) from error
        return DecodedImage(pixels, width, height, MEDIA_TYPES[str(image.format)])


def _check_bytes(data: bytes, limits: ImageLimits) -> None:
    """Bound what opening a file would cost, before it is opened."""
    if not data:
        raise ImageEmptyError("The image is empty: 0 bytes received. Send the file's content.")
    if len(data) > limits.max_bytes:
        raise ImageTooManyBytesError(
            f"The image has {len(data):,} bytes; at most {limits.max_bytes:,} are accepted. "
            "Send a smaller or more strongly compressed file."
        )
    if data.startswith(_JPEG_START):
        check_jpeg(data)
    elif data.startswith(PNG_START):
        check_png(data)
    elif data.startswith(TIFF_STARTS):
        check_directory(data)


def to_model_input(pixels: RgbImage) -> RgbImage:
    """Resize a picture to what the models take.

    The whole picture is squeezed to a square, as the paper does; nothing is cropped away.
    Shrinking averages areas, so that fine structure does not alias; enlarging is bilinear.

    Args:
        pixels: (height, width, 3) uint8 sRGB.

    Returns:
        (224, 224, 3) uint8 sRGB. The rescaling to [0, 1] is part of the model's graph.

    Raises:
        ValueError: Another shape or dtype.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(
            "to_model_input expects (height, width, 3) uint8, "
            f"received {pixels.shape} {pixels.dtype}."
        )
    return resize(pixels, MODEL_INPUT_SIZE)


def resize(pixels: RgbImage, side: int) -> RgbImage:
    """Resize (height, width, 3) uint8 to (side, side, 3), averaging areas when shrinking."""
    height, width = pixels.shape[:2]
    # OpenCV averages areas only where neither axis grows: shrink first, then enlarge.
    shrunk = (min(width, side), min(height, side))
    resized = cv2.resize(pixels, shrunk, interpolation=cv2.INTER_AREA)
    if shrunk != (side, side):
        resized = cv2.resize(resized, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)


def _reduce_scale(image: Image.Image, enough_side: int) -> None:
    """Let the decoder leave out detail that is not needed; only JPEG's can."""
    share = max(enough_side / max(image.size), 2 * MODEL_INPUT_SIZE / min(image.size))
    if share < 1.0:
        image.draft(None, (math.ceil(image.width * share), math.ceil(image.height * share)))


def _open(data: bytes, limits: ImageLimits) -> Image.Image:
    """Read the header alone."""
    try:
        return Image.open(io.BytesIO(data), formats=[f for f in MEDIA_TYPES if f != "MPO"])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooManyPixelsError(
            f"The image's header announces far more than the {limits.max_pixels:,} pixels "
            "that are accepted. Send a smaller picture."
        ) from error
    except UnidentifiedImageError as error:
        raise ImageFormatError(
            "The bytes are no image that can be read here; expected JPEG, PNG, TIFF, BMP or WebP."
        ) from error
    except Exception as error:  # a header parser may raise anything on hostile bytes
        if is_exhaustion(error):
            raise
        raise ImageCorruptError(
            "The image's header cannot be read: the file is damaged. Export it again as JPEG, "
            "PNG, TIFF, BMP or WebP."
        ) from error


def check_size(width: int, height: int, limits: ImageLimits) -> None:
    """Bound what a header announces, before a pixel is decoded.

    Raises:
        ImageTooManyPixelsError: More than `limits.max_pixels`.
        ImageTooSmallError: A side is shorter than `limits.min_side_pixels`.
    """
    if width * height > limits.max_pixels:
        raise ImageTooManyPixelsError(
            f"The image is {width} x {height}, {width * height:,} pixels; at most "
            f"{limits.max_pixels:,} are accepted. Send a smaller picture."
        )
    if min(width, height) < limits.min_side_pixels:
        raise ImageTooSmallError(
            f"The image is {width} x {height} pixels; each side needs at least "
            f"{limits.min_side_pixels}. Send the original, not a thumbnail."
        )


def _check_header(image: Image.Image, limits: ImageLimits) -> None:
    check_size(*image.size, limits)
    if image.mode not in _READABLE_MODES:
        raise ImageFormatError(
            f"The pixels are of Pillow mode {image.mode!r}; expected 8 or 16 bits a channel, "
            "unsigned, grey, palette, RGB or CMYK. Export the picture as 8-bit RGB."
        )
    if image.format == "BMP" and image.info.get("compression") in _BMP_RUN_LENGTHS:
        # Pillow decodes them byte by byte in Python: seconds for 20 KB.
        raise ImageFormatError(
            "The BMP is packed with run lengths; expected one without RLE compression. "
            "Export the picture as PNG or as BMP without compression."
        )
    if isinstance(image, TiffImageFile):
        check_tiff(image, limits.max_pixels)
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ImageFormatError(
            "The file holds several pictures and it is not said which one is meant. "
            "Send a file with exactly one."
        )


def _orientation(image: Image.Image) -> object:
    """EXIF's, of any type; a PNG may say it behind its pixels, which are decoded then."""
    if image.format == "PNG":
        image.load()
    if len(image.info.get("exif", b"")) > MAX_EXIF_BYTES:
        raise ImageCorruptError(
            f"The image's EXIF has more than {MAX_EXIF_BYTES:,} bytes. "
            "Export the picture without metadata."
        )
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except SyntaxError:  # what is no EXIF says nothing, as in a JPEG
        return None


def _to_rgb(image: Image.Image) -> RgbImage:
    """Convert any readable mode to (height, width, 3) uint8."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        high_byte = (values >> 8).astype(np.uint8)
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            high_byte[values == transparent] = 0
        return np.ascontiguousarray(np.repeat(high_byte[:, :, None], 3, axis=2))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, rgba)
    return np.ascontiguousarray(np.asarray(image.convert("RGB"), dtype=np.uint8))
