"""Classification figures with bootstrap intervals, from labels and probabilities alone."""

import math
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from app.domain.intervals import wilson
from app.domain.labels import CLASS_INDEX, LABELS, NUM_CLASSES
from app.domain.measurements import (
    ClassMetrics,
    Interval,
    Metrics,
    OperatingPoint,
    ReliabilityBin,
    Subgroup,
)

NUM_RESAMPLES: Final = 1000
CONFIDENCE: Final = 0.95
NUM_RELIABILITY_BINS: Final = 15
"""As in Guo et al., 2017."""

MIN_SUBGROUP_IMAGES: Final = 20
MIN_SUBGROUP_MELANOMAS: Final = 10

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def measure(
    part: str,
    labels: Ints,
    probabilities: npt.NDArray[np.float32],
    groups: npt.NDArray[np.object_],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> Metrics:
    """All figures of a model on one part of the data.

    Intervals are percentiles of a bootstrap that draws whole groups (Efron and Tibshirani,
    1993, chapter 13): photographs of one lesion are no independent evidence.

    Args:
        part: "validation" or "test".
        labels: (num_images,) int64 class indices.
        probabilities: (num_images, 7) float32.
        groups: (num_images,) lesion identifiers.
        seed: Of the resamples.
        num_resamples: How many.

    Returns:
        The figures. Precision is 0 for a class that is never answered, recall 0 for one that is
        absent, and their intervals then say that nothing is known: 0 to 1. ROC AUC is one class
        against the others. Where a bootstrap cannot leave a figure of 0 or 1, its interval is
        Wilson's for as many groups: of ROC AUC for those of the rarer side, of F1 for the class's,
        with a precision of 1 where F1 is 0; a mean over classes has the mean of theirs.
    """
    predicted = probabilities.argmax(axis=1)
    counts = _group_draws(groups, np.random.default_rng(seed), num_resamples)
    cell = labels * NUM_CLASSES + predicted
    whole = _confusion(cell, np.ones((1, len(labels)), np.int64))
    drawn = _confusion(cell, counts)
    figures, spread = _rates(whole), _rates(drawn)

    per_class = {}
    for index, label in enumerate(LABELS):
        positive, score = labels == index, probabilities[:, index].astype(np.float64)
        right = positive & (predicted == index)
        auc = float(_roc_aucs(positive, score, np.ones((1, len(labels)), np.int64))[0])
        aucs = _roc_aucs(positive, score, counts)
        per_class[label] = ClassMetrics(
            precision=_share(right, predicted == index, groups, counts),
            recall=_share(right, positive, groups, counts),
            f1=_f1(figures["f1"][0, index], spread["f1"][:, index], positive, groups),
            roc_auc=_roc_auc(auc, aucs, positive, groups),
            support=int(positive.sum()),
        )
    present = [per_class[LABELS[index]] for index in np.unique(labels)]
    return Metrics.model_validate(
        {
            "part": part,
            "num_images": len(labels),
            "accuracy": _share(predicted == labels, np.ones(len(labels), bool), groups, counts),
            "balanced_accuracy": _mean(
                figures["balanced_accuracy"][0],
                spread["balanced_accuracy"],
                [one.recall for one in present],
            ),
            "macro_f1": _mean(
                figures["macro_f1"][0], spread["macro_f1"], [one.f1 for one in present]
            ),
            "per_class": per_class,
            "confusion_matrix": whole[0].astype(int).tolist(),
            "calibration_error": calibration_error(labels, probabilities),
            "reliability": reliability(labels, probabilities),
        }
    )


def reliability(labels: Ints, probabilities: npt.NDArray[np.float32]) -> list[ReliabilityBin]:
    """Confidence against accuracy in bins of equal width; empty bins are left out.

    Args:
        labels: (num_images,) int64 class indices.
        probabilities: (num_images, 7) float32.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0.0, 1.0, NUM_RELIABILITY_BINS + 1)[1:-1]
    bins = np.digitize(confidence, edges, right=True)
    return [
        ReliabilityBin(
            num_images=int((bins == index).sum()),
            confidence=round(float(confidence[bins == index].mean()), 4),
            accuracy=round(float(right[bins == index].mean()), 4),
        )
        for index in np.unique(bins)
    ]


def calibration_error(labels: Ints, probabilities: npt.NDArray[np.float32]) -> float:
    """Expected calibration error (Naeini, Cooper and Hauskrecht, AAAI 2015) of the answers.

    The mean distance between confidence and accuracy over the bins of `reliability`.
    """
    bins = reliability(labels, probabilities)
    gaps = [b.num_images * abs(b.confidence - b.accuracy) for b in bins]
    return round(sum(gaps) / len(labels), 4)


def measure_operating_points(
    points: Iterable[OperatingPoint],
    labels: Ints,
    probabilities: npt.NDArray[np.float32],
    groups: npt.NDArray[np.object_],
    *,
    seed: int,
) -> list[OperatingPoint]:
    """Sensitivity and specificity at thresholds that were chosen elsewhere.

    Args:
        points: The thresholds.
        labels: (num_images,) int64 class indices.
        probabilities: (num_images, 7) float32.
        groups: (num_images,) lesion identifiers.
        seed: Of the resamples.
    """
    counts = _group_draws(groups, np.random.default_rng(seed), NUM_RESAMPLES)
    measured = []
    for point in points:
        indices = [CLASS_INDEX[label] for label in point.labels]
        is_target = np.isin(labels, indices)
        positive = probabilities[:, indices].sum(axis=1) >= point.threshold
        measured.append(
            point.model_copy(
                update={
                    "sensitivity": _share(positive, is_target, groups, counts),
                    "specificity": _share(~positive, ~is_target, groups, counts),
                }
            )
        )
    return measured


def measure_subgroups(
    labels: Ints,
    probabilities: npt.NDArray[np.float32],
    groups: npt.NDArray[np.object_],
    attributes: Mapping[str, npt.NDArray[np.object_]],
    *,
    seed: int,
) -> list[Subgroup]:
    """Accuracy and melanoma recall by attribute.

    Args:
        labels: (num_images,) int64 class indices.
        probabilities: (num_images, 7) float32.
        groups: (num_images,) lesion identifiers.
        attributes: (num_images,) values by the attribute's name.
        seed: Of the resamples.
    """
    counts = _group_draws(groups, np.random.default_rng(seed), NUM_RESAMPLES)
    right = probabilities.argmax(axis=1) == labels
    melanoma = labels == CLASS_INDEX["mel"]
    subgroups = []
    for attribute, values in attributes.items():
        for value in np.unique(values.astype(str)):
            inside = values.astype(str) == value
            num_images, num_melanomas = int(inside.sum()), int((inside & melanoma).sum())
            if num_images < MIN_SUBGROUP_IMAGES:
                continue
            enough = num_melanomas >= MIN_SUBGROUP_MELANOMAS
            subgroup = {
                "attribute": attribute,
                "value": str(value),
                "num_images": num_images,
                "accuracy": _share(right, inside, groups, counts),
                "num_melanomas": num_melanomas,
                "melanoma_recall": _share(right, inside & melanoma, groups, counts)
                if enough
                else None,
            }
            subgroups.append(Subgroup.model_validate(subgroup))
    return subgroups


def share(
    hit: npt.NDArray[np.bool_],
    among: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.object_],
    *,
    seed: int,
) -> Interval:
    """The share of hits among some images, with the interval of `measure`.

    Args:
        hit: (num_images,) bool.
        among: (num_images,) bool.
        groups: (num_images,) lesion identifiers.
        seed: Of the resamples.
    """
    counts = _group_draws(groups, np.random.default_rng(seed), NUM_RESAMPLES)
    return _share(hit, among, groups, counts)


def _share(
    hit: npt.NDArray[np.bool_],
    among: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.object_],
    counts: Ints,
) -> Interval:
    """The share of hits among some images, with its interval over resamples that have such."""
    if not among.any():
        return _unknown(0.0)
    both = (hit & among).astype(np.float64)
    value = float(both.sum() / among.sum())
    if value in (0.0, 1.0):  # so is every resample's
        return _rounded(value, *_wilson(value, among, groups))
    bases = counts @ among.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return _interval(value, counts @ both / bases)


def _f1(
    value: float,
    resampled: Floats,
    positive: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.object_],
) -> Interval:
    if not positive.any():
        return _unknown(0.0)
    if value in (0.0, 1.0):  # so is every resample's
        low, high = _wilson(value, positive, groups)
        return _rounded(value, low, 2 * high / (1 + high))
    return _interval(value, resampled)


def _roc_auc(
    value: float,
    resampled: Floats,
    positive: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.object_],
) -> Interval:
    if math.isnan(value):
        return _unknown(0.5)
    if value in (0.0, 1.0):
        sides = [_wilson(value, side, groups) for side in (positive, ~positive)]
        return _rounded(value, min(low for low, _ in sides), max(high for _, high in sides))
    return _interval(value, resampled)


def _mean(value: float, resampled: Floats, parts: list[Interval]) -> Interval:
    """A mean over classes, from the figures that it is the mean of."""
    if value in (0.0, 1.0):
        lows, highs = [part.low for part in parts], [part.high for part in parts]
        return _rounded(value, float(np.mean(lows)), float(np.mean(highs)))
    return _interval(value, resampled)


def _wilson(
    value: float, among: npt.NDArray[np.bool_], groups: npt.NDArray[np.object_]
) -> tuple[float, float]:
    """The interval of a share of 0 or 1 among the lesions of some images."""
    total = len(np.unique(groups[among].astype(str)))
    return wilson(round(value) * total, total)


def _unknown(value: float) -> Interval:
    """A figure that nothing was measured of."""
    return Interval(value=value, low=0.0, high=1.0)


def _group_draws(
    groups: npt.NDArray[np.object_], random: np.random.Generator, num_resamples: int
) -> Ints:
    """How often each image is in each resample: (num_resamples, num_images)."""
    _, group_of_image = np.unique(groups.astype(str), return_inverse=True)
    num_groups = int(group_of_image.max()) + 1
    draws = random.integers(0, num_groups, (num_resamples, num_groups))
    times = np.stack([np.bincount(draw, minlength=num_groups) for draw in draws])
    return times[:, group_of_image].astype(np.int64)


def _confusion(cell: Ints, counts: Ints) -> Floats:
    """Confusion matrices of weighted samples: (num_samples, 7 true, 7 predicted)."""
    size = NUM_CLASSES * NUM_CLASSES
    flat = np.stack([np.bincount(cell, weights=count, minlength=size) for count in counts])
    return flat.reshape(-1, NUM_CLASSES, NUM_CLASSES).astype(np.float64)


def _rates(confusion: Floats) -> dict[str, Floats]:
    """Figures of samples; those that are shares are `_share`'s."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    true, answered = confusion.sum(axis=2), confusion.sum(axis=1)
    f1 = _divide(2 * hits, true + answered)
    present = (true > 0).sum(axis=1)
    return {
        "balanced_accuracy": _divide(_divide(hits, true).sum(axis=1), present),
        "macro_f1": _divide(f1.sum(axis=1), present),
        "f1": np.where(true > 0, f1, np.nan),
    }


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    out = np.zeros_like(numerator, dtype=np.float64)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out


def _roc_aucs(positive: npt.NDArray[np.bool_], score: Floats, counts: Ints) -> Floats:
    """The area of each sample; NaN for one without the class, or of nothing else.

    It is the share of pairs in which the positive image has the higher score, ties counting half
    (Hanley and McNeil, Radiology 143, 1982).
    """
    order = np.argsort(score, kind="stable")
    first_of_ties = np.flatnonzero(np.append(True, np.diff(score[order]) != 0))
    drawn, is_positive = counts[:, order].astype(np.float64), positive[order]
    positives = np.add.reduceat(drawn * is_positive, first_of_ties, axis=1)
    negatives = np.add.reduceat(drawn * ~is_positive, first_of_ties, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    won = (positives * (below + negatives / 2.0)).sum(axis=1)
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    return np.divide(won, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)


def _interval(value: float, resampled: Floats) -> Interval:
    """Resamples of which the figure is not defined, NaN, are left out."""
    tail = (1.0 - CONFIDENCE) / 2.0
    return _rounded(value, *np.nanquantile(resampled, [tail, 1.0 - tail]))


def _rounded(value: float, low: float, high: float) -> Interval:
    return Interval(
        value=round(float(value), 4), low=round(float(low), 4), high=round(float(high), 4)
    )
