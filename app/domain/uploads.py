"""What a prediction keeps of an uploaded file: model input, picture to draw over, quality."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from app.domain.images import (
    DEFAULT_LIMITS,
    DecodedImage,
    ImageLimits,
    RgbImage,
    decode_image,
    to_model_input,
)
from app.domain.lesion import LesionMask, find_lesion
from app.domain.quality import QualityReport, assess_quality

MAX_PICTURE_SIDE: Final = 1024
"""Longest side of the picture that a heatmap is drawn over, in pixels: a map has 7 x 7 values."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What a prediction needs of an upload.

    Attributes:
        model_input: (224, 224, 3) uint8 sRGB.
        picture: (rows, columns, 3) uint8 sRGB to draw a heatmap over: the file's own size, or
            shrunk.
        width: Of the file, in pixels after orientation.
        height: Of the file, in pixels after orientation.
        media_type: What the bytes really were.
        quality: Whether the picture is fit to be classified.
        lesion: Of the model input.
        frame: Which one of several the file has, from 1; None where it has no several.
    """

    model_input: RgbImage
    picture: RgbImage
    width: int
    height: int
    media_type: str
    quality: QualityReport
    lesion: LesionMask
    frame: int | None = None


def read_upload(
    data: bytes,
    limits: ImageLimits = DEFAULT_LIMITS,
    max_picture_side: int = MAX_PICTURE_SIDE,
) -> Upload:
    """Decode an uploaded file for a prediction, and keep no more pixels than it needs.

    A JPEG of several times the picture's size is decoded at a half, a quarter or an eighth of
    its scale, which the format allows for; a test bounds what that does to the model's input.

    Args:
        data: The file's bytes, of any origin.
        limits: Bounds on bytes and pixels, checked before any pixel is decoded.
        max_picture_side: Longest side of the picture in pixels.

    Returns:
        The model's input and the picture.

    Raises:
        ImageRejectedError: As `decode_image`.
    """
    return to_upload(decode_image(data, limits, enough_side=max_picture_side), max_picture_side)


def to_upload(
    decoded: DecodedImage, max_picture_side: int = MAX_PICTURE_SIDE, frame: int | None = None
) -> Upload:
    """Keep of a picture what a prediction needs.

    Args:
        decoded: The picture.
        max_picture_side: Longest side of what is kept of it in pixels.
        frame: Which one of several it is, from 1; None for the only one.
    """
    model_input = to_model_input(decoded.pixels)
    lesion = find_lesion(model_input)
    return Upload(
        model_input,
        _shrink(decoded.pixels, max_picture_side),
        decoded.width,
        decoded.height,
        decoded.media_type,
        assess_quality(model_input, decoded.width, decoded.height, lesion),
        lesion,
        frame,
    )


def _shrink(pixels: RgbImage, max_side: int) -> RgbImage:
    """Shrink (height, width, 3) uint8 to a longer side of `max_side`; never enlarge."""
    height, width = pixels.shape[:2]
    share = max_side / max(height, width)
    if share >= 1.0:
        return pixels
    size = (max(1, round(width * share)), max(1, round(height * share)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
