"""The quality checks' accepted ranges, and what they find: measured on real images.

- A range ends at percentiles of the training part: `EDGE_PERCENT` of its images lie beyond each.
- False alarms: the share of the validation part outside of these ranges, by issue and by
  class. Nobody labelled these images' quality, and some are bad: not each is false.
- What is found: the share of degraded copies of validation images with the issue that was meant.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from app.domain.images import MODEL_INPUT_SIZE, RgbImage
from app.domain.labels import LABELS
from app.domain.lesion import find_lesion
from app.domain.quality import ACCEPTED, QualityIssue, Range, find_issues
from app.domain.quality_scores import measure_quality
from training.degradations import DEGRADATIONS
from training.prepare import Part, PreparedData

SEED: Final = 20180814
PERCENTILES: Final = (0.5, 1, 5, 50, 95, 99, 99.5)
EDGE_PERCENT: Final[Mapping[str, Range]] = {
    "sharpness": (0.5, None),
    "brightness": (0.5, 0.5),
    "clipped": (None, 0.5),
    "contrast": (0.5, None),
    "red_to_green": (0.25, 0.25),
    "blue_to_green": (0.25, 0.25),
    "lesion_contrast": (1.0, None),
    "lesion_offset": (None, 1.0),
    "hair": (None, 1.0),
    "ink": (None, 0.5),
}
"""Of the training images, below and above a score's range. More where what lies beyond was, looked
at, what the check is for: hairs and off-centre lesions are common in HAM10000."""

Scores = dict[str, float | None]


def measure(
    data: PreparedData,
    every: int,
    masks: Path | None = None,
    report: Callable[[int, int], None] = lambda _done, _all: None,
) -> dict[str, Any]:
    """Find the ranges and measure them.

    Args:
        data: Ranges come from its training part, shares from its validation part.
        every: Degrade every such validation image only.
        masks: Folder of the lesions' published masks, `<image_id>_segmentation.png`; they say
            where a lesion is that is to be removed or cut. None: `find_lesion` does.
        report: Called with (images done, all of them).

    Returns:
        JSON values: `num_train`, `num_validation`, `num_degraded`, `masks` (what marked the
        lesions), `scores` (by name: `percentiles`, `accepted`, `edge_percent`), `flagged` (shares
        of validation images: `any`, `by_issue`, `by_class`), `lesion` (how `find_lesion` agrees
        with the published masks, or None) and `degradations` (by name: `num_images`, `expected`,
        `found`, `any`).

    Raises:
        ValueError: A mask is missing or is no image.
    """
    train, validation = data.rows(Part.TRAIN), data.rows(Part.VALIDATION)
    chosen = validation[::every]
    passes = len(train) + len(validation) + len(chosen) * len(DEGRADATIONS)
    done = 0

    def score(image: RgbImage) -> Scores:
        nonlocal done
        done += 1
        if done % 100 == 0 or done == passes:
            report(done, passes)
        return _score(image)

    trained = [score(data.images[row]) for row in train]
    scores = {name: _summarise(name, trained) for name in ACCEPTED}
    accepted: dict[str, Range] = {
        name: (found["accepted"][0], found["accepted"][1]) for name, found in scores.items()
    }
    issues = [find_issues(score(data.images[row]), accepted) for row in validation]
    lesions = [_lesion(data, row, masks) for row in chosen]
    degradations = {}
    for name, degradation in DEGRADATIONS.items():
        random = np.random.default_rng(SEED)
        pairs = zip(chosen, lesions, strict=True)
        made = [degradation.degrade(data.images[row], lesion, random) for row, lesion in pairs]
        # What cannot be done to an image is counted as done, for the bar alone.
        done += sum(image is None for image in made)
        flags = [find_issues(score(image), accepted) for image in made if image is not None]
        degradations[name] = {
            "num_images": len(flags),
            "expected": [issue.value for issue in degradation.expected],
            "found": _share([bool(set(degradation.expected) & set(f)) for f in flags]),
            "any": _share([bool(f) for f in flags]),
        }
    report(passes, passes)
    return {
        "num_train": len(train),
        "num_validation": len(validation),
        "num_degraded": len(chosen),
        "masks": "published" if masks else "found",
        "scores": scores,
        "flagged": _flagged(issues, data.labels(validation)),
        "lesion": _agreement(data, chosen, lesions) if masks else None,
        "degradations": degradations,
    }


def _score(image: RgbImage) -> Scores:
    # A prepared image does not tell its file's size: its own is never too small.
    return measure_quality(np.ascontiguousarray(image), MODEL_INPUT_SIZE, MODEL_INPUT_SIZE)


def _summarise(name: str, trained: list[Scores]) -> dict[str, Any]:
    if name not in EDGE_PERCENT:
        return {"percentiles": None, "accepted": list(ACCEPTED[name]), "edge_percent": None}
    values = np.array([value for score in trained if (value := score[name]) is not None])
    low, high = EDGE_PERCENT[name]
    return {
        "percentiles": [_rounded(p) for p in np.percentile(values, PERCENTILES)],
        "accepted": [
            None if low is None else _rounded(np.percentile(values, low)),
            None if high is None else _rounded(np.percentile(values, 100 - high)),
        ],
        "edge_percent": [low, high],
    }


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _flagged(
    issues: list[tuple[QualityIssue, ...]], labels: npt.NDArray[np.int64]
) -> dict[str, Any]:
    any_issue = np.array([bool(found) for found in issues])
    return {
        "any": _share(any_issue),
        "by_issue": {i.value: _share([i in found for found in issues]) for i in QualityIssue},
        "by_class": {
            name: _share(any_issue[labels == number]) for number, name in enumerate(LABELS)
        },
    }


def _lesion(data: PreparedData, row: int, masks: Path | None) -> npt.NDArray[np.bool_]:
    if masks is None:
        return find_lesion(data.images[row])
    path = masks / f"{data.table['image_id'].iloc[row]}_segmentation.png"
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise ValueError(f"{path} is missing or is no image; expected a lesion's mask.")
    side = (MODEL_INPUT_SIZE, MODEL_INPUT_SIZE)
    return np.asarray(cv2.resize(mask, side, interpolation=cv2.INTER_AREA) >= 128, np.bool_)


def _agreement(
    data: PreparedData, rows: npt.NDArray[np.int64], lesions: list[npt.NDArray[np.bool_]]
) -> dict[str, float]:
    """Jaccard's index of `find_lesion` with the published masks."""
    overlaps = []
    for row, lesion in zip(rows, lesions, strict=True):
        found = find_lesion(data.images[row])
        overlaps.append(float((found & lesion).sum() / max(1, (found | lesion).sum())))
    return {
        "median_jaccard": round(float(np.median(overlaps)), 4),
        "share_below_0.3": round(float(np.mean(np.array(overlaps) < 0.3)), 4),
    }


def _share(flags: Any) -> float | None:
    return round(float(np.mean(flags)), 4) if len(flags) else None
