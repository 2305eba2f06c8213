"""What goes wrong with pictures, made on purpose: to see which of it the quality checks find.

Not for training, and stronger than `training.robustness`: these show another picture than was
meant, or half of one. Hairs and ink are drawn, and look simpler than real ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from app.domain.images import MODEL_INPUT_SIZE, RgbImage
from app.domain.quality import QualityIssue

Mask = npt.NDArray[np.bool_]
Degrade = Callable[[RgbImage, Mask, np.random.Generator], RgbImage | None]
"""Takes (224, 224, 3) uint8 and its lesion (224, 224); None where it cannot be done."""

_SIDE: Final = MODEL_INPUT_SIZE
_MARGIN: Final = np.ones((17, 17), np.uint8)
"""Around a lesion that is removed."""
_PATCH: Final = 72
"""Side of a piece of bare skin, in pixels."""
_CUT_SIDE: Final = 128
"""Of the crop that cuts a lesion, in pixels."""
_FINE: Final = 4
"""Bits of a drawn line's coordinates below a pixel."""


@dataclass(frozen=True, slots=True)
class Degradation:
    """A picture made worse.

    Attributes:
        expected: The issues that would name it rightly.
        degrade: Makes it.
    """

    expected: tuple[QualityIssue, ...]
    degrade: Degrade


def _clipped(values: npt.NDArray[Any]) -> RgbImage:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _blurred(sigma: float, noise: float = 0.0) -> Degrade:
    def degrade(image: RgbImage, _lesion: Mask, random: np.random.Generator) -> RgbImage:
        blurred = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)
        return _clipped(blurred + random.normal(0, noise, image.shape)) if noise else blurred

    return degrade


def _moved(length: int) -> Degrade:
    """Motion along a line of `length` pixels, in any direction."""

    def degrade(image: RgbImage, _lesion: Mask, random: np.random.Generator) -> RgbImage:
        angle, centre = random.uniform(0, np.pi), (length - 1) / 2
        step = centre * np.array([np.cos(angle), np.sin(angle)])
        kernel = np.zeros((length, length), np.float32)
        ends = [[round(float(v)) for v in centre + sign * step] for sign in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1.0)
        return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)

    return degrade


def _enlarged(side: int) -> Degrade:
    def degrade(image: RgbImage, _lesion: Mask, _random: np.random.Generator) -> RgbImage:
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR))

    return degrade


def _multiplied(*factors: float) -> Degrade:
    """All channels by one factor, or each by its own."""
    return lambda image, _lesion, _random: _clipped(image * np.array(factors))


def _faded(share: float, level: float | None = None) -> Degrade:
    """Towards the picture's mean colour, or towards a grey level."""

    def degrade(image: RgbImage, _lesion: Mask, _random: np.random.Generator) -> RgbImage:
        target = image.mean(axis=(0, 1)) if level is None else level
        return _clipped((1 - share) * image + share * target)

    return degrade


def _inpainted(image: RgbImage, lesion: Mask, _random: np.random.Generator) -> RgbImage:
    gone = cv2.dilate(lesion.astype(np.uint8), _MARGIN)
    return np.asarray(cv2.inpaint(image, gone, 5, cv2.INPAINT_TELEA), np.uint8)


def _bare_skin(image: RgbImage, lesion: Mask, _random: np.random.Generator) -> RgbImage | None:
    """The square without lesion that is next to the middle, mirrored to the whole size."""
    sums = cv2.integral(cv2.dilate(lesion.astype(np.uint8), _MARGIN))
    starts = range(0, _SIDE - _PATCH + 1, 4)
    free = [
        (np.hypot(y + _PATCH / 2 - _SIDE / 2, x + _PATCH / 2 - _SIDE / 2), y, x)
        for y in starts
        for x in starts
        if sums[y + _PATCH, x + _PATCH] + sums[y, x] == sums[y, x + _PATCH] + sums[y + _PATCH, x]
    ]
    if not free:
        return None
    _, y, x = min(free)
    before = (_SIDE - _PATCH) // 2
    border = (before, _SIDE - _PATCH - before) * 2
    patch = image[y : y + _PATCH, x : x + _PATCH]
    return np.asarray(cv2.copyMakeBorder(patch, *border, cv2.BORDER_REFLECT), np.uint8)


def _cut(axes: int) -> Degrade:
    """A crop with the lesion's middle as near as can be to one of its edges, or of its corners."""

    def degrade(image: RgbImage, lesion: Mask, random: np.random.Generator) -> RgbImage | None:
        if not lesion.any():
            return None
        middle = np.argwhere(lesion).mean(axis=0)
        start = middle - _CUT_SIDE / 2
        for axis in random.permutation(2)[:axes]:
            start[axis] = middle[axis] - _CUT_SIDE * random.integers(2)
        y, x = np.clip(np.rint(start), 0, _SIDE - _CUT_SIDE).astype(int)
        crop = image[y : y + _CUT_SIDE, x : x + _CUT_SIDE]
        return np.asarray(cv2.resize(crop, (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR))

    return degrade


def _curve(
    start: npt.NDArray[Any], length: float, bend: float, random: np.random.Generator
) -> npt.NDArray[np.int32]:
    """Points of a curve, for `cv2.polylines`, in parts of a pixel."""
    angles = random.uniform(0, 2 * np.pi) + random.normal(0, bend) * np.linspace(0, 2, 24)
    steps = np.stack([np.cos(angles), np.sin(angles)], axis=1) * length / len(angles)
    return np.rint((start + steps.cumsum(axis=0)) * 2**_FINE).astype(np.int32)


def _hairs(count: int, width: int) -> Degrade:
    def degrade(image: RgbImage, _lesion: Mask, random: np.random.Generator) -> RgbImage:
        drawn = image.copy()
        for _ in range(count):
            start = random.uniform(-20, _SIDE + 20, 2)
            points = _curve(start, random.uniform(60, 200), 0.3, random)
            colour = random.uniform((25, 15, 10), (70, 50, 40)).tolist()
            cv2.polylines(drawn, [points], False, colour, width, cv2.LINE_AA, _FINE)
        return drawn

    return degrade


def _inked(strokes: int, colour: tuple[int, int, int]) -> Degrade:
    """Strokes of a felt pen, 6 pixels wide, within 40 pixels of the border."""

    def degrade(image: RgbImage, _lesion: Mask, random: np.random.Generator) -> RgbImage:
        layer = np.zeros((_SIDE, _SIDE), np.uint8)
        for _ in range(strokes):
            start = np.array([random.uniform(20, _SIDE - 20), random.uniform(8, 40)])
            if random.integers(2):
                start[1] = _SIDE - start[1]
            points = _curve(random.permutation(start), random.uniform(25, 70), 0.5, random)
            cv2.polylines(layer, [points], False, 255, 6, cv2.LINE_AA, _FINE)
        share = 0.75 / 255 * cv2.GaussianBlur(layer, (0, 0), 1.0)[..., None]
        return _clipped(image * (1 - share) + share * np.array(colour))

    return degrade


def _ruled(image: RgbImage, _lesion: Mask, random: np.random.Generator) -> RgbImage:
    """A scale along one edge, a tick every 6 pixels."""
    drawn = image.copy()
    for number, x in enumerate(range(4, _SIDE, 6)):
        end = (x, 202 if number % 5 == 0 else 208)
        cv2.line(drawn, (x, 216), end, (30, 25, 30), 1, cv2.LINE_AA)
    return np.rot90(drawn, int(random.integers(4))).copy()


def _blur_of(*sigmas: float) -> dict[str, Degradation]:
    expected = (QualityIssue.BLURRED,)
    return {f"blur, sigma {s:g}": Degradation(expected, _blurred(s)) for s in sigmas}


_BLURRED: Final = (QualityIssue.BLURRED,)
_BRIGHT: Final = (QualityIssue.TOO_BRIGHT, QualityIssue.CLIPPED)
_PALE: Final = (QualityIssue.LOW_CONTRAST, QualityIssue.TOO_BRIGHT)
_CAST: Final = (QualityIssue.COLOUR_CAST,)
_ABSENT: Final = (QualityIssue.NO_LESION, QualityIssue.LOW_CONTRAST)
_OUTSIDE: Final = (QualityIssue.LESION_OUT_OF_FRAME,)
_INK: Final = (QualityIssue.INK,)

DEGRADATIONS: Final[dict[str, Degradation]] = {
    **_blur_of(0.7, 1, 1.5, 2, 4, 8),
    "blur, sigma 2, then noise of 3 levels": Degradation(_BLURRED, _blurred(2, 3.0)),
    "motion of 7 pixels": Degradation(_BLURRED, _moved(7)),
    "motion of 15 pixels": Degradation(_BLURRED, _moved(15)),
    "enlarged from 112 pixels": Degradation(_BLURRED, _enlarged(112)),
    "enlarged from 64 pixels": Degradation(_BLURRED, _enlarged(64)),
    **{
        f"values x {factor:g}": Degradation(
            (QualityIssue.TOO_DARK,) if factor < 1 else _BRIGHT, _multiplied(factor)
        )
        for factor in (0.8, 0.7, 0.5, 0.3, 1.2, 1.4, 1.7)
    },
    **{
        f"contrast x {factor:g}": Degradation((QualityIssue.LOW_CONTRAST,), _faded(1 - factor))
        for factor in (0.5, 0.3, 0.15)
    },
    "half veiled in white": Degradation(_PALE, _faded(0.5, 255)),
    "veiled in white to 80 %": Degradation(_PALE, _faded(0.8, 255)),
    "red x 0.8": Degradation(_CAST, _multiplied(0.8, 1, 1)),
    "red x 0.65": Degradation(_CAST, _multiplied(0.65, 1, 1)),
    "green x 1.2": Degradation(_CAST, _multiplied(1, 1.2, 1)),
    "green x 0.75": Degradation(_CAST, _multiplied(1, 0.75, 1)),
    "blue x 0.7": Degradation(_CAST, _multiplied(1, 1, 0.7)),
    "blue x 1.3": Degradation(_CAST, _multiplied(1, 1, 1.3)),
    "warm light, red x 1.15 and blue x 0.75": Degradation(_CAST, _multiplied(1.15, 1, 0.75)),
    "lesion painted over with skin": Degradation(_ABSENT, _inpainted),
    "skin beside the lesion, mirrored": Degradation(_ABSENT, _bare_skin),
    "lesion's middle at an edge": Degradation(_OUTSIDE, _cut(1)),
    "lesion's middle at a corner": Degradation(_OUTSIDE, _cut(2)),
    **{
        f"{count} hairs, width {width}": Degradation((QualityIssue.HAIR,), _hairs(count, width))
        for count, width in ((10, 1), (20, 1), (40, 1), (20, 2), (40, 2))
    },
    "3 strokes of violet ink": Degradation(_INK, _inked(3, (70, 40, 150))),
    "5 strokes of blue ink": Degradation(_INK, _inked(5, (50, 80, 190))),
    "5 strokes of green ink": Degradation(_INK, _inked(5, (60, 130, 90))),
    "5 strokes of black ink": Degradation(_INK, _inked(5, (40, 35, 45))),
    "a ruler at an edge": Degradation((*_INK, QualityIssue.HAIR), _ruled),
}
"""By the words of the page."""
