"""Whether a picture is fit to be classified: the ranges that the scores of real ones lie in.

A range ends at percentiles of HAM10000's training part (docs/quality.md says which, and how much of
what it is meant for each check finds). So an issue says that a picture is unusual among those,
which were taken of light skin with good dermatoscopes: darker skin may be called `too-dark` or
`colour-cast` without fault.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.domain.images import MODEL_INPUT_SIZE, RgbImage
from app.domain.lesion import LesionMask
from app.domain.quality_scores import measure_quality


class QualityIssue(StrEnum):
    """A reason to take the picture again, or to trust its answer less."""

    BLURRED = "blurred"
    """Fine structure is missing: out of focus, moved, or enlarged from a small picture."""
    TOO_DARK = "too-dark"
    TOO_BRIGHT = "too-bright"
    CLIPPED = "clipped"
    """A colour channel is at its end in much of the picture, and what was there is lost."""
    LOW_CONTRAST = "low-contrast"
    COLOUR_CAST = "colour-cast"
    """The skin has another colour than in any training picture: lamp, white balance, or skin."""
    LOW_RESOLUTION = "low-resolution"
    """The file has fewer pixels than the model looks at."""
    NO_LESION = "no-lesion"
    """Nothing stands out from the skin."""
    LESION_OUT_OF_FRAME = "lesion-out-of-frame"
    """What is dark lies to one side: the lesion may be cut off."""
    HAIR = "hair"
    """Long dark lines cover more than in nearly all training pictures."""
    INK = "ink"
    """Blue, violet or green that is not in the lesion."""


Range = tuple[float | None, float | None]
"""The lowest and the highest value without an issue; None where that side is open."""

ACCEPTED: Final[Mapping[str, Range]] = {
    "sharpness": (-0.127, None),
    "brightness": (57.3, 93.3),
    "clipped": (None, 0.514),
    "contrast": (3.12, None),
    "red_to_green": (1.02, 1.99),
    "blue_to_green": (0.839, 1.27),
    "shorter_side": (float(MODEL_INPUT_SIZE), None),
    "lesion_contrast": (14.6, None),
    "lesion_offset": (None, 0.393),
    "hair": (None, 0.093),
    "ink": (None, 0.002),
}
"""By the score's name. All but `shorter_side` are measured: docs/results/quality.json."""

ISSUES: Final[Mapping[str, tuple[QualityIssue | None, QualityIssue | None]]] = {
    "sharpness": (QualityIssue.BLURRED, None),
    "brightness": (QualityIssue.TOO_DARK, QualityIssue.TOO_BRIGHT),
    "clipped": (None, QualityIssue.CLIPPED),
    "contrast": (QualityIssue.LOW_CONTRAST, None),
    "red_to_green": (QualityIssue.COLOUR_CAST, QualityIssue.COLOUR_CAST),
    "blue_to_green": (QualityIssue.COLOUR_CAST, QualityIssue.COLOUR_CAST),
    "shorter_side": (QualityIssue.LOW_RESOLUTION, None),
    "lesion_contrast": (QualityIssue.NO_LESION, None),
    "lesion_offset": (None, QualityIssue.LESION_OUT_OF_FRAME),
    "hair": (None, QualityIssue.HAIR),
    "ink": (None, QualityIssue.INK),
}
"""By the score's name: what it means to be below the range, and above it."""


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What was found.

    Attributes:
        scores: By the names of `ACCEPTED`, as `measure_quality` gives them.
        issues: In the order of `QualityIssue`, each once; none for most pictures.
    """

    scores: Mapping[str, float | None]
    issues: tuple[QualityIssue, ...]


def assess_quality(
    model_input: RgbImage, width: int, height: int, lesion: LesionMask | None = None
) -> QualityReport:
    """Measure a picture and compare it with the accepted ranges.

    Args:
        model_input: (224, 224, 3) uint8 sRGB, what a model is given.
        width: Of the file, in pixels.
        height: Of the file, in pixels.
        lesion: Of the model input, where it was looked for before.
    """
    scores = measure_quality(model_input, width, height, lesion)
    return QualityReport(scores, find_issues(scores))


def find_issues(
    scores: Mapping[str, float | None], accepted: Mapping[str, Range] = ACCEPTED
) -> tuple[QualityIssue, ...]:
    """Name what lies outside of its range.

    Args:
        scores: Of a picture; None is in any range.
        accepted: By the score's name.

    Returns:
        In the order of `QualityIssue`, each once.
    """
    found = set()
    for name, (low, high) in accepted.items():
        value, (below, above) = scores[name], ISSUES[name]
        if value is None:
            continue
        if low is not None and value < low:
            found.add(below)
        if high is not None and value > high:
            found.add(above)
    return tuple(issue for issue in QualityIssue if issue in found)
