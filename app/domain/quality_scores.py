"""The scores of a picture that say whether it is fit to be classified; no network is needed.

Every score but the resolution is taken from the 224 x 224 model input, so that it says the same of
any camera's picture size.
"""

import math
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from app.domain.images import MODEL_INPUT_SIZE, RgbImage
from app.domain.lesion import LesionMask, black_frame, find_lesion

Mask = npt.NDArray[np.uint8]
"""255 where it holds, else 0."""

_HALF: Final = MODEL_INPUT_SIZE // 2
"""Side at which colours and coarse structure are measured: a quarter of the work."""
_TILES: Final = 14
"""Sharpness is compared in 14 x 14 places of 16 pixels."""
_SHARPEST: Final = 0.9
"""Quantile of the places: a picture is blurred where even its sharpest tenth is not sharp."""
_GRAIN_SIGMA: Final = 0.7
"""Pixels; smoothing that takes most of the sensor's and of JPEG's grain, which is no sharpness."""
_SECOND_DIFFERENCES: Final = tuple(
    np.array(kernel, np.float32) * scale
    for kernel, scale in (
        ([[0, 0, 0], [1, -2, 1], [0, 0, 0]], 1.0),
        ([[0, 1, 0], [0, -2, 0], [0, 1, 0]], 1.0),
        ([[1, 0, 0], [0, -2, 0], [0, 0, 1]], 0.5**0.5),
        ([[0, 0, 1], [0, -2, 0], [1, 0, 0]], 0.5**0.5),
    )
)
"""In four directions: motion blurs along one only."""

_CLIPPED_LEVEL: Final = 250
_FRAME_MARGIN: Final = np.ones((7, 7), np.uint8)
"""Around the black frame, and around the lesion where skin is meant; at half size."""
_LEAST_SKIN: Final = 0.01
"""Of the picture; with less skin than that beside the lesion, all that is visible stands in."""
_UNLIKE_SKIN: Final = 0.998
"""Quantile of colour differences: 0.2 % is a lesion of five pixels' radius in the model input."""

_HAIR_KERNEL: Final = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
_HALF_HAIR_KERNEL: Final = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
_HAIR_DEPTH: Final = 25
"""Levels that a hair is darker than what is beside it; most pigment networks are not."""
_HAIR_LENGTH: Final = 30
"""Pixels, of a component's bounding diagonal."""
_HAIR_WIDTH: Final = 4
"""Pixels, area by length; tangled hairs are wider and leave most of their bounding box free."""
_HAIR_FILL: Final = 0.2

_INK_BLUER: Final = 25
"""CIE b* below the skin's."""
_INK_GREENER: Final = 20
"""CIE a* below the skin's."""
_BLUE_BELOW: Final = 118
"""In 8 bits, b* = -10: pale lesions on yellow skin are bluer than it, but not blue."""
_GREEN_BELOW: Final = 122
"""In 8 bits, a* = -6."""

_disc = np.zeros((_HALF, _HALF), np.uint8)
cv2.circle(_disc, (_HALF // 2, _HALF // 2), _HALF // 2, 255, -1)
_DISC: Final[Mask] = _disc
"""The inscribed circle: light falls off outside of it, in most dermatoscopes."""


def measure_quality(
    model_input: RgbImage, width: int, height: int, lesion: LesionMask | None = None
) -> dict[str, float | None]:
    """Score a picture.

    Args:
        model_input: (224, 224, 3) uint8 sRGB, what a model is given.
        width: Of the file, in pixels.
        height: Of the file, in pixels.
        lesion: Of the model input, where it was looked for before.

    Returns:
        Finite numbers by name, measured outside of the dermatoscope's black frame:

        - `sharpness`: log10 of the energy of second differences over that of structure of 2 to 4
          pixels, in the least sharp of four directions, at the sharpest tenth of places. A ratio,
          so that contrast does not count as sharpness (after Crete, Dolmiere, Ladret and Nicolas,
          "The blur effect", SPIE 6492, 2007, and the energy of Laplacian in Pertuz, Puig and
          Garcia, Pattern Recognition 46, 2013). Noise counts as sharpness.
        - `brightness`: CIE L* (0 to 100) that a tenth of the pixels exceed.
        - `clipped`: share of the pixels with a channel at 250 or above.
        - `contrast`: standard deviation of CIE L* (root mean square contrast; Peli, J. Opt. Soc.
          Am. A 7, 1990).
        - `red_to_green`, `blue_to_green`: of the skin's medians. A cast multiplies channels (von
          Kries), and so these ratios; exposure leaves them.
        - `shorter_side`: of the file, in pixels.
        - `lesion_contrast`: CIE 1976 colour difference from the median colour that 0.2 % of the
          pixels in the inscribed circle exceed, after hairs are closed.
        - `lesion_offset`: distance of the centre of gravity of darkness from the middle, in half
          sides; None where nothing is dark.
        - `hair`: share of the pixels on long thin dark lines, by a black hat as in DullRazor (Lee
          et al., Computers in Biology and Medicine 27, 1997).
        - `ink`: share of the pixels that are blue, violet or green beside the skin, and not in the
          lesion.
    """
    half = np.asarray(
        cv2.resize(model_input, (_HALF, _HALF), interpolation=cv2.INTER_AREA), np.uint8
    )
    grey = np.asarray(cv2.cvtColor(model_input, cv2.COLOR_RGB2GRAY), np.uint8)
    visible = _visible(half)
    found = (find_lesion(model_input) if lesion is None else lesion).astype(np.uint8) * 255
    dark = np.asarray(cv2.resize(found, (_HALF, _HALF), interpolation=cv2.INTER_NEAREST), np.uint8)
    skin = _skin(visible, dark)
    return {
        "sharpness": _sharpness(grey, visible),
        **_exposure(half, visible),
        **_colour(half, skin),
        "shorter_side": float(min(width, height)),
        **_lesion(half, visible),
        "hair": _hair(grey, visible),
        "ink": _ink(half, visible, dark, skin),
    }


def _visible(half: RgbImage) -> Mask:
    """What is not the dermatoscope's black frame, with a margin; never empty."""
    green = np.asarray(cv2.GaussianBlur(cv2.extractChannel(half, 1), (0, 0), 1.5), np.uint8)
    frame = black_frame(green).astype(np.uint8) * 255
    visible = np.asarray(cv2.bitwise_not(cv2.dilate(frame, _FRAME_MARGIN)), np.uint8)
    return visible if visible.any() else np.full_like(visible, 255)


def _skin(visible: Mask, lesion: Mask) -> Mask:
    beside = cv2.bitwise_not(cv2.dilate(lesion, _FRAME_MARGIN))
    skin = np.asarray(cv2.bitwise_and(visible, beside), np.uint8)
    return skin if _count(skin) >= _LEAST_SKIN * skin.size else visible


def _sharpness(grey: npt.NDArray[np.uint8], visible: Mask) -> float:
    coarse = np.asarray(cv2.resize(grey, (_HALF, _HALF), interpolation=cv2.INTER_AREA), np.float32)
    # At half size: structure of 2 to 4 pixels of the model input.
    band = cv2.GaussianBlur(coarse, (0, 0), 1.0) - cv2.GaussianBlur(coarse, (0, 0), 2.0)
    seen = _by_place(visible.astype(np.float32)) > 0.9 * 255
    if not seen.any():
        seen = np.ones_like(seen)
    # About what rounding to 8 bits does; with less above than below, nothing at all is not sharp.
    below = _by_place(np.square(band))[seen] + 1.0
    calm = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), _GRAIN_SIGMA)
    ratios = []
    for kernel in _SECOND_DIFFERENCES:
        fine = _by_place(np.square(cv2.filter2D(calm, -1, kernel)))[seen] + 0.5
        ratios.append(_sorted_quantile(fine / below, _SHARPEST))
    return float(np.log10(min(ratios)))


def _by_place(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Means in 14 x 14 places."""
    return np.asarray(cv2.resize(values, (_TILES, _TILES), interpolation=cv2.INTER_AREA))


def _exposure(half: RgbImage, visible: Mask) -> dict[str, float]:
    lightness = cv2.extractChannel(cv2.cvtColor(half, cv2.COLOR_RGB2LAB), 0)
    _, deviation = cv2.meanStdDev(lightness, mask=visible)
    red, green, blue = cv2.split(half)
    highest = cv2.max(cv2.max(red, green), blue)
    clipped = _count((highest >= _CLIPPED_LEVEL) & (visible > 0))
    return {
        "brightness": _quantile(lightness, visible, 0.9) * 100 / 255,
        "clipped": clipped / _count(visible),
        "contrast": float(deviation[0, 0]) * 100 / 255,
    }


def _colour(half: RgbImage, skin: Mask) -> dict[str, float]:
    # One level more, so that a black picture has ratios too.
    red, green, blue = (_quantile(channel, skin, 0.5) + 1.0 for channel in cv2.split(half))
    return {"red_to_green": red / green, "blue_to_green": blue / green}


def _lesion(half: RgbImage, visible: Mask) -> dict[str, float | None]:
    closed = cv2.morphologyEx(half, cv2.MORPH_CLOSE, _HALF_HAIR_KERNEL)
    closed = np.asarray(cv2.GaussianBlur(closed, (0, 0), 1.0), np.uint8)
    inside = np.asarray(cv2.bitwise_and(visible, _DISC), np.uint8)
    if not inside.any():
        inside = _DISC
    lab = np.asarray(cv2.cvtColor(closed, cv2.COLOR_RGB2LAB), np.uint8)
    lightness, a, b = (
        channel.astype(np.float32) - np.float32(_quantile(channel, inside, 0.5))
        for channel in cv2.split(lab)
    )
    squared = np.square(lightness * np.float32(100 / 255)) + np.square(a) + np.square(b)
    unlike = math.sqrt(_sorted_quantile(squared[inside > 0], _UNLIKE_SKIN))
    return {
        "lesion_contrast": unlike,
        "lesion_offset": _offset(cv2.extractChannel(closed, 1), inside),
    }


def _offset(green: npt.NDArray[Any], inside: Mask) -> float | None:
    """How far from the middle it is dark, in half sides."""
    bright = _quantile(green, inside, 0.75)
    # Saturating: what is brighter than most of the skin has no darkness.
    darkness = cv2.bitwise_and(cv2.subtract(np.full_like(green, bright), green), inside)
    moments = cv2.moments(darkness)
    if moments["m00"] <= 0:
        return None
    middle = (_HALF - 1) / 2
    across, down = (moments[name] / moments["m00"] - middle for name in ("m10", "m01"))
    return float(np.hypot(across, down)) / (_HALF / 2)


def _hair(grey: npt.NDArray[np.uint8], visible: Mask) -> float:
    depth = cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, _HAIR_KERNEL)
    seen = cv2.resize(visible, grey.shape, interpolation=cv2.INTER_NEAREST)
    _, dark = cv2.threshold(depth, _HAIR_DEPTH, 255, cv2.THRESH_BINARY)
    _, _, statistics, _ = cv2.connectedComponentsWithStatsWithAlgorithm(
        cv2.bitwise_and(dark, seen), 8, cv2.CV_32S, cv2.CCL_BOLELLI
    )
    across, down, area = statistics[1:, cv2.CC_STAT_WIDTH : cv2.CC_STAT_AREA + 1].T
    length = np.hypot(across, down)
    thin = (area < _HAIR_WIDTH * length) | (area < _HAIR_FILL * across * down)
    return float(area[thin & (length > _HAIR_LENGTH)].sum()) / _count(seen)


def _ink(half: RgbImage, visible: Mask, lesion: Mask, skin: Mask) -> float:
    _, a, b = cv2.split(np.asarray(cv2.cvtColor(half, cv2.COLOR_RGB2LAB), np.uint8))
    blue = b < min(_BLUE_BELOW, _quantile(b, skin, 0.5) - _INK_BLUER)
    green = a < min(_GREEN_BELOW, _quantile(a, skin, 0.5) - _INK_GREENER)
    elsewhere = (visible > 0) & (lesion == 0)
    return _count((blue | green) & elsewhere) / _count(visible)


def _count(mask: npt.NDArray[Any]) -> int:
    return int(np.count_nonzero(mask))


def _quantile(channel: npt.NDArray[Any], mask: Mask, share: float) -> float:
    """Of a channel's levels where the mask holds, from their histogram."""
    counts = cv2.calcHist([channel], [0], mask, [256], [0, 256]).ravel().cumsum()
    return float(np.searchsorted(counts, share * counts[-1]))


def _sorted_quantile(values: npt.NDArray[Any], share: float) -> float:
    """Of (n,) numbers, the lower of two; NumPy's own takes ten times as long for so few."""
    place = int(share * (len(values) - 1))
    return float(np.partition(values, place)[place])
