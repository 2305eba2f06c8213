"""What a heatmap itself gives away: whether there is a reason not to read anything into it.

Nobody can tell from a map alone that it is right. That it lies at the border of the picture, or
beside the lesion, is enough to distrust it, and the answer that it goes with.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from app.domain.images import MODEL_INPUT_SIZE, RgbImage
from app.domain.lesion import LesionMask, find_lesion

MOST_AT_BORDER: Final = 0.48
"""Of a map's share at the border. A flat map, which points nowhere, has 0.49 and is flagged; so
was one map in twenty of the first models (the 95th percentile on validation images)."""

LEAST_IN_LESION: Final = 0.14
"""Of a map's share in the lesion: the 5th percentile of the same maps."""

_MARGIN: Final = 16
"""Pixels around a lesion that still count: half of a map's cell, which is all it resolves."""
_AROUND: Final = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _MARGIN + 1, 2 * _MARGIN + 1))


def _rectangles(element: npt.NDArray[Any]) -> list[npt.NDArray[np.uint8]]:
    """Centred rectangles that make up an element together, whose rows shrink from its middle."""
    lengths = element.sum(axis=1)
    sizes = [(int((lengths >= length).sum()), int(length)) for length in np.unique(lengths)]
    return [np.ones(size, np.uint8) for size in sizes]


_AROUND_IN_PARTS: Final = _rectangles(_AROUND)
"""Dilating by each takes half as long as by the whole: OpenCV separates rows and columns."""


class HeatmapFlag(StrEnum):
    """A reason not to read anything into a heatmap."""

    BLANK = "blank"
    """Nothing speaks for the class."""
    BORDER_DOMINATED = "border-dominated"
    """As much of it lies at the picture's border as if it pointed nowhere, or more."""
    OFF_LESION = "off-lesion"
    """Less than a seventh of it lies on the lesion or near it."""


@dataclass(frozen=True, slots=True)
class HeatmapCheck:
    """What was found.

    Attributes:
        share_at_border: Of the map, in the outermost ring of its 7 x 7 places; None where the
            map is all zero.
        share_in_lesion: Of the map, on the lesion or within 16 pixels of it; None where the map
            is all zero or no lesion was found.
        flags: Reasons for distrust, none in most maps.
    """

    share_at_border: float | None
    share_in_lesion: float | None
    flags: tuple[HeatmapFlag, ...]


def check_heatmap(
    values: npt.NDArray[np.float32], image: RgbImage, lesion: LesionMask | None = None
) -> HeatmapCheck:
    """Look at a map beside the picture that it explains.

    Args:
        values: (7, 7) float32, not negative.
        image: (224, 224, 3) uint8, what the model was given.
        lesion: Of the image, where it was looked for before.
    """
    total = float(values.sum(dtype=np.float64))
    if total <= 0.0:
        return HeatmapCheck(None, None, (HeatmapFlag.BLANK,))
    at_border = min(1.0, max(0.0, 1.0 - float(values[1:-1, 1:-1].sum(dtype=np.float64)) / total))
    in_lesion = share_in(values, around_lesion(image, lesion))
    flags = []
    if at_border > MOST_AT_BORDER:
        flags.append(HeatmapFlag.BORDER_DOMINATED)
    if in_lesion is not None and in_lesion < LEAST_IN_LESION:
        flags.append(HeatmapFlag.OFF_LESION)
    return HeatmapCheck(at_border, in_lesion, tuple(flags))


def around_lesion(image: RgbImage, lesion: LesionMask | None = None) -> npt.NDArray[np.bool_]:
    """The lesion of (224, 224, 3) uint8 with a margin: (224, 224) bool, all False without one.

    Args:
        image: What the model was given.
        lesion: Its lesion, where it was looked for before.
    """
    found = find_lesion(image) if lesion is None else lesion
    flat = found.view(np.uint8)
    around = cv2.dilate(flat, _AROUND_IN_PARTS[0])
    for rectangle in _AROUND_IN_PARTS[1:]:
        cv2.max(around, cv2.dilate(flat, rectangle), around)
    return around.view(np.bool_)


def share_in(values: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> float | None:
    """The share of a map (7, 7) that is in a mask (224, 224); None where the mask is empty."""
    if not mask.any():
        return None
    fine = enlarge(values)
    # The two sums add in different orders, so that all of a map can come to more than it.
    return min(1.0, float(fine[mask].sum(dtype=np.float64) / fine.sum(dtype=np.float64)))


def enlarge(values: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """A map (7, 7) at the picture's size (224, 224), as an overlay shows it."""
    size = (MODEL_INPUT_SIZE, MODEL_INPUT_SIZE)
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_LINEAR), np.float32)
