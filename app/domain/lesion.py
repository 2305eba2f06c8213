"""Where the lesion is, roughly: enough to say that a picture shows none, or that a map misses it.

No network and no ground truth: lesions are darker than the skin around them in green light, which
haemoglobin and melanin absorb. The steps are those of the usual dermoscopy pipelines (Celebi,
Wen, Iyatomi, Shimizu, Zhou and Schaefer, "A State-of-the-Art Survey on Lesion Border Detection in
Dermoscopy Images", 2015): hair removed by a morphological closing (DullRazor; Lee et al.,
Computers in Biology and Medicine 27, 1997), smoothing, Otsu's threshold, components.
"""

from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from app.domain.images import MODEL_INPUT_SIZE, RgbImage

_HAIR_SIZE: Final = 9
"""Wider than a hair at 224 pixels."""
_BLUR_SIGMA: Final = 3.0
_SMALLEST_SHARE: Final = 0.003
"""Of the picture; smaller components are specks."""
_LEAST_CONTRAST: Final = 8
"""Levels between the darkest and the brightest skin, below which nothing stands out."""
_LEAST_OF_BEST: Final = 0.2
"""Share of the best component's weight that another one needs."""
_VIGNETTE_LEVEL: Final = 50
"""A dark component is the dermatoscope's black frame where a corner in it is darker."""

LesionMask = npt.NDArray[np.bool_]
"""(224, 224), all False where nothing stands out."""

_across: Final = cv2.getGaussianKernel(MODEL_INPUT_SIZE, MODEL_INPUT_SIZE / 5.0)
_CENTRALITY: Final = _across @ _across.T
"""(224, 224): how much a pixel counts, by its distance from the middle."""


def find_lesion(image: RgbImage) -> LesionMask:
    """Mark the lesion's pixels.

    Args:
        image: (224, 224, 3) uint8, what a model is given.

    Returns:
        The mask.
    """
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_HAIR_SIZE, _HAIR_SIZE))
    green = cv2.morphologyEx(np.ascontiguousarray(image[..., 1]), cv2.MORPH_CLOSE, element)
    green = cv2.GaussianBlur(green, (0, 0), _BLUR_SIGMA)
    frame = black_frame(green)
    seen = green[~frame]
    if not seen.size or np.ptp(seen) < _LEAST_CONTRAST:
        return np.zeros(green.shape, np.bool_)
    threshold, _ = cv2.threshold(seen, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    dark = ((green <= threshold) & ~frame).astype(np.uint8)
    count, components, statistics, _ = cv2.connectedComponentsWithStatsWithAlgorithm(
        dark, 8, cv2.CV_32S, cv2.CCL_BOLELLI
    )
    areas = statistics[:, cv2.CC_STAT_AREA]
    large = [label for label in range(1, count) if areas[label] >= _SMALLEST_SHARE * dark.size]
    if not large:
        return np.zeros(green.shape, np.bool_)
    # Light falls off towards the corners, and whoever takes the picture aims at the lesion.
    weights = np.bincount(components.ravel(), weights=_CENTRALITY.ravel(), minlength=count)
    best = max(weights[label] for label in large)
    kept = [n for n in large if weights[n] >= _LEAST_OF_BEST * best]
    return _belongs(components, count, kept)


def black_frame(green: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Mark the black corners that a dermatoscope's tube leaves.

    Args:
        green: (height, width) uint8, smoothed.

    Returns:
        (height, width) bool; never the picture's middle.
    """
    dark = (green < _VIGNETTE_LEVEL).astype(np.uint8)
    if not dark[:: green.shape[0] - 1, :: green.shape[1] - 1].any():
        return np.zeros(green.shape, np.bool_)
    count, components = cv2.connectedComponents(dark, connectivity=8)
    # A lesion that reaches a corner is not a frame: a frame leaves the middle free.
    middle = components[green.shape[0] // 2, green.shape[1] // 2]
    corners = {components[y, x] for y in (0, -1) for x in (0, -1)} - {0, middle}
    return _belongs(components, count, list(corners))


def _belongs(components: npt.NDArray[Any], count: int, chosen: list[int]) -> npt.NDArray[np.bool_]:
    """Where the labels, of 0 to `count` - 1, are among those chosen."""
    kept = np.zeros(count, np.bool_)
    kept[chosen] = True
    return np.asarray(kept[components], np.bool_)
