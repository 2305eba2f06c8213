"""From a model's 7x7 map to a picture over the original image; pure array work.

A heatmap is drawn relative to its own maximum, which it states: a network is free in the
scale of its attention, and Grad-CAM has no unit, so pictures show where and not how much. It
is never stretched from its minimum: a flat map looks flat.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

from app.domain.errors import HeatmapUnavailableError
from app.domain.images import RgbImage

MAX_OPACITY: Final = 0.6
"""Opacity where the map is at its scale's top; the lesion stays visible below."""

_VIRIDIS: Final = cv2.cvtColor(
    cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS),
    cv2.COLOR_BGR2RGB,
)
"""(256, 1, 3) uint8 RGB."""

# zlib's fastest: photographs hardly compress further, and level 6 takes several times longer.
_PNG_SETTINGS: Final = (
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
)
"""Of ten settings the fastest but one, and the smallest files, on photographs with overlays."""


_JPEG_SETTINGS: Final = (cv2.IMWRITE_JPEG_QUALITY, 90)


class OverlayFormat(StrEnum):
    """How an overlay is encoded."""

    PNG = "png"
    """Exact, and large."""
    JPEG = "jpeg"
    """A tenth of PNG's size and time."""

    @property
    def media_type(self) -> Literal["image/png", "image/jpeg"]:
        """Of the encoded bytes."""
        return "image/png" if self is OverlayFormat.PNG else "image/jpeg"


class HeatmapMethod(StrEnum):
    """What a heatmap shows."""

    ATTENTION = "attention"
    """The model's own attention weights (the paper, section III.C.2): no class of their own."""

    GRAD_CAM = "grad-cam"
    """Evidence for one class: Selvaraju et al., ICCV 2017, equation 2."""


@dataclass(frozen=True, slots=True)
class HeatmapRequest:
    """The heatmap that a caller wants, of a model that has it.

    Attributes:
        overlay_format: How its overlay is encoded.
        method: How it is made.
        class_index: The class to explain; None for the predicted one, or for attention.
    """

    overlay_format: OverlayFormat
    method: HeatmapMethod
    class_index: int | None


RECORDED_METHOD: Final = HeatmapMethod.GRAD_CAM
"""What a record or an archive gets where nobody chose: evidence for the answer, of every model.
Attention says nothing of the class, and was not shown to mark what an answer depends on
(docs/heatmaps.md)."""


def choose_method(
    method: HeatmapMethod | None, class_index: int | None, *, has_attention: bool
) -> HeatmapMethod:
    """How a heatmap is made where a caller names the method, the class, both or neither.

    Args:
        method: What was asked for; None for Grad-CAM where a class is named, else for attention
            where the model has it, else for Grad-CAM.
        class_index: The class to explain; None where none was named.
        has_attention: Whether the model has attention.

    Raises:
        HeatmapUnavailableError: Attention of a class, or of a model that has none.
    """
    if method is None:
        by_attention = has_attention and class_index is None
        return HeatmapMethod.ATTENTION if by_attention else HeatmapMethod.GRAD_CAM
    if method is HeatmapMethod.ATTENTION and not has_attention:
        raise HeatmapUnavailableError(
            f"This model has no attention; its heatmap_method is {HeatmapMethod.GRAD_CAM!s}."
        )
    if method is HeatmapMethod.ATTENTION and class_index is not None:
        raise HeatmapUnavailableError(
            "Attention has no class: leave heatmap_class out, or ask for heatmap_method "
            f"{HeatmapMethod.GRAD_CAM!s}."
        )
    return method


@dataclass(frozen=True, slots=True)
class Heatmap:
    """A map and what it means.

    Attributes:
        method: How it was made.
        class_index: The class it is evidence for; None for attention, which has none.
        values: (7, 7) float32, not negative; row 0 is the top of the image.
        scale: The value that is drawn in full colour, the map's maximum.
    """

    method: HeatmapMethod
    class_index: int | None
    values: npt.NDArray[np.float32]
    scale: float


def grad_cam_heatmap(class_activation: npt.NDArray[np.float32], class_index: int) -> Heatmap:
    """The Grad-CAM heatmap of one class.

    Args:
        class_activation: (7, 7, 7) float32: class, row, column; signed.
        class_index: Which class.

    Returns:
        The positive part of its map. All zero where nothing speaks for the class.
    """
    values = np.maximum(class_activation[class_index], 0.0).astype(np.float32)
    return Heatmap(HeatmapMethod.GRAD_CAM, class_index, values, float(values.max()))


def attention_heatmap(attention: npt.NDArray[np.float32]) -> Heatmap:
    """The heatmap of attention weights (7, 7) float32 in [0, 1]."""
    values = attention.astype(np.float32)
    return Heatmap(HeatmapMethod.ATTENTION, None, values, float(values.max()))


def draw_overlay(pixels: RgbImage, heatmap: Heatmap) -> RgbImage:
    """Lay a heatmap over the image it explains.

    Colour (viridis, monotonic in lightness and readable with colour vision deficiency) and
    opacity both grow with the value, so that unmarked skin keeps its own colour.

    Args:
        pixels: (height, width, 3) uint8, the upload at its own size.
        heatmap: The map.

    Returns:
        (height, width, 3) uint8; `pixels` itself where the map is all zero.
    """
    if heatmap.scale <= 0.0:
        return pixels
    height, width = pixels.shape[:2]
    small = np.clip(heatmap.values / heatmap.scale, 0.0, 1.0).astype(np.float32)
    values = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap(cv2.convertScaleAbs(values, alpha=255.0), _VIRIDIS)
    opacity = values * MAX_OPACITY
    return np.asarray(cv2.blendLinear(colours, pixels, opacity, 1.0 - opacity), np.uint8)


def encode(pixels: RgbImage, overlay_format: OverlayFormat) -> bytes:
    """Encode (height, width, 3) uint8 RGB, without any metadata."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    settings = _PNG_SETTINGS if overlay_format is OverlayFormat.PNG else _JPEG_SETTINGS
    encoded, data = cv2.imencode(f".{overlay_format}", bgr, settings)
    if not encoded:
        raise ValueError(
            f"OpenCV could not encode {pixels.shape} {pixels.dtype} as {overlay_format}."
        )
    return data.tobytes()


def encode_png(pixels: RgbImage) -> bytes:
    """Encode (height, width, 3) uint8 RGB as PNG, without any metadata."""
    return encode(pixels, OverlayFormat.PNG)
