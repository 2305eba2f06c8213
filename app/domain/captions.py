"""Words below a heatmap overlay in a file: whoever opens it may see nothing else."""

from collections.abc import Iterable
from typing import Final

import cv2
import numpy as np

from app.domain.heatmap_checks import HeatmapFlag
from app.domain.heatmaps import Heatmap
from app.domain.images import RgbImage
from app.domain.labels import LABELS

_FLAG_WORDS: Final = {
    HeatmapFlag.BLANK: "the map is all zero.",
    HeatmapFlag.BORDER_DOMINATED: (
        "as much of it lies at the picture's border as if it pointed nowhere, or more."
    ),
    HeatmapFlag.OFF_LESION: "little of it lies on the lesion.",
}
"""Why to read nothing into a heatmap, in ASCII."""

_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_LINE_SHARE: Final = 0.045
"""Height of a line of the caption, as a share of the picture's width."""
_MARGIN_SHARE: Final = 0.25
"""Free space around a line of the caption, as a share of the line."""


def describe_heatmap(heatmap: Heatmap, model: str) -> str:
    """What a heatmap is, in ASCII.

    Args:
        heatmap: Of an answer.
        model: `name@version` of the model that it is of.
    """
    if heatmap.class_index is None:
        return f"attention of {model}"
    return f"Grad-CAM of {model} for {LABELS[heatmap.class_index]}"


def warn_of(flags: Iterable[HeatmapFlag]) -> list[str]:
    """A line for each of a heatmap's flags, in ASCII."""
    return [f"Read nothing into it: {_FLAG_WORDS[flag]}" for flag in flags]


def append_caption(picture: RgbImage, lines: list[str]) -> RgbImage:
    """Append lines of text below a picture; no pixel of it is covered.

    Args:
        picture: (height, width, 3) uint8.
        lines: In ASCII.

    Returns:
        (height + strip, width, 3) uint8.
    """
    width = picture.shape[1]
    line = max(12, round(width * _LINE_SHARE))
    margin = max(3, round(line * _MARGIN_SHARE))
    strip = np.zeros((len(lines) * (line + margin) + margin, width, 3), np.uint8)
    for index, text in enumerate(lines):
        scale = cv2.getFontScaleFromHeight(_FONT, line * 2 // 3)
        (length, _), _ = cv2.getTextSize(text, _FONT, scale, 1)
        scale *= min(1.0, (width - 2 * margin) / length)
        bottom = (index + 1) * (line + margin) - margin
        cv2.putText(strip, text, (margin, bottom), _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return np.ascontiguousarray(np.vstack([picture, strip]))
