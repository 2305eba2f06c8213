"""What is to become of an answer: report it, refer it to a person, or reject it (ADR-0014).

Pure functions; every threshold comes from the model's manifest.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from app.domain.labels import CLASS_INDEX, LABELS
from app.domain.measurements import OperatingPoint
from app.domain.rules import DecisionRules, PredictionSetRule


class Action(StrEnum):
    """What is to become of an answer."""

    REPORT = "report"
    """Nothing speaks against reading it, as research software's answer."""
    REFER = "refer"
    """A person must look at the picture before anything is read into the answer."""
    REJECT = "reject"
    """There is no answer."""


class Reason(StrEnum):
    """Why an answer is not simply reported, the gravest first."""

    OUT_OF_DISTRIBUTION = "out-of-distribution"
    POOR_QUALITY = "poor-quality"
    NO_RULES = "no-rules"
    MALIGNANCY = "malignancy"
    LOW_CONFIDENCE = "low-confidence"
    LARGE_SET = "large-set"
    DISAGREEMENT = "disagreement"


_BEFORE_THE_ANSWER: Final = frozenset(
    {Reason.OUT_OF_DISTRIBUTION, Reason.POOR_QUALITY, Reason.NO_RULES}
)
"""Reasons in the picture or the model, whatever the answer."""

_SENTENCES: Final[Mapping[Reason, str]] = {
    Reason.OUT_OF_DISTRIBUTION: "The picture is unlike the dermatoscopic images that the model "
    "was trained on.",
    Reason.POOR_QUALITY: "A check of the picture's quality found something.",
    Reason.NO_RULES: "It was not measured when this model's answers can be relied on.",
    Reason.MALIGNANCY: "The probability of a malignant lesion is above its operating point.",
    Reason.LOW_CONFIDENCE: "The confidence is below the level at which the model is right often "
    "enough.",
    Reason.LARGE_SET: "Too many diagnoses remain possible.",
    Reason.DISAGREEMENT: "The models disagree.",
}
_FIRST_WORDS: Final[Mapping[Action, str]] = {
    Action.REPORT: "No reason was found against reading this answer as what it is, a research "
    "model's. It is no all-clear.",
    Action.REFER: "A specialist has to look at this picture.",
    Action.REJECT: "No answer is given for this picture.",
}


@dataclass(frozen=True, slots=True)
class Gates:
    """Which findings about a picture reject its answer; otherwise they refer it.

    Attributes:
        reject_novelty: For a picture that is out of distribution.
        reject_quality: For one of poor quality.
    """

    reject_novelty: bool = True
    reject_quality: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a decision is made from.

    Attributes:
        probabilities: (7,) float32, calibrated where there are rules.
        novelty: The picture's score; None without rules, under which it counts as too high.
        disagreement: Of an ensemble's members, the same; None for a model.
        poor_quality: Whether the quality gate found something.
    """

    probabilities: npt.NDArray[np.float32]
    novelty: float | None = None
    disagreement: float | None = None
    poor_quality: bool = False


@dataclass(frozen=True, slots=True)
class PredictionSet:
    """The classes that remain possible.

    Attributes:
        coverage: Share of images whose set was to hold the true class.
        labels: By falling probability, at least one.
        pooled: Classes for which that share is not promised, as in the rule.
    """

    coverage: float
    labels: tuple[str, ...]
    pooled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OperatingPointResult:
    """An operating point applied to an answer.

    Attributes:
        point: The rule.
        probability: Sum over its classes.
        positive: Whether that is at or above its threshold.
    """

    point: OperatingPoint
    probability: float
    positive: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to become of an answer.

    Attributes:
        action: What to do.
        reasons: Why, the gravest first; none for `report`, and none from the answer for `reject`.
        sentence: The same for a person.
        prediction_sets: As in the rules; none without rules.
        operating_points: As in the calibration; none without one.
        novelty: The score, and the one above which a picture is out of distribution; None
            without rules or a score.
    """

    action: Action
    reasons: tuple[Reason, ...]
    sentence: str
    prediction_sets: tuple[PredictionSet, ...]
    operating_points: tuple[OperatingPointResult, ...]
    novelty: tuple[float, float] | None


def decide(
    evidence: Evidence,
    rules: DecisionRules | None,
    operating_points: Sequence[OperatingPoint],
    gates: Gates,
) -> Decision:
    """Decide on an answer.

    Args:
        evidence: The answer, and what was found out about its picture.
        rules: Of the model; without them an answer is never reported.
        operating_points: Of the model's calibration.
        gates: What rejects.
    """
    sets = tuple(_prediction_sets(rules.prediction_sets if rules else (), evidence.probabilities))
    points = tuple(_apply(point, evidence.probabilities) for point in operating_points)
    found = set[Reason]()
    if evidence.poor_quality:
        found.add(Reason.POOR_QUALITY)
    if rules is None:
        found.add(Reason.NO_RULES)
    else:
        found |= _reasons(evidence, rules, points, len(sets[0].labels))
    rejecting = {
        reason
        for reason, rejects in (
            (Reason.OUT_OF_DISTRIBUTION, gates.reject_novelty),
            (Reason.POOR_QUALITY, gates.reject_quality),
        )
        if rejects
    }
    action = Action.REJECT if found & rejecting else Action.REFER if found else Action.REPORT
    if action is Action.REJECT:
        found &= _BEFORE_THE_ANSWER  # the others would tell what the answer is that is not given
    reasons = tuple(reason for reason in Reason if reason in found)
    novelty = (
        (evidence.novelty, rules.novelty.threshold)
        if rules and evidence.novelty is not None
        else None
    )
    sentence = " ".join([_FIRST_WORDS[action], *(_SENTENCES[reason] for reason in reasons)])
    return Decision(action, reasons, sentence, sets, points, novelty)


def _reasons(
    evidence: Evidence,
    rules: DecisionRules,
    points: Sequence[OperatingPointResult],
    set_size: int,
) -> set[Reason]:
    checks = {
        Reason.OUT_OF_DISTRIBUTION: _exceeds(evidence.novelty, rules.novelty.threshold),
        Reason.MALIGNANCY: any(
            result.positive for result in points if rules.refers_at(result.point)
        ),
        Reason.LOW_CONFIDENCE: float(evidence.probabilities.max()) < rules.referral.min_confidence,
        Reason.LARGE_SET: set_size > rules.max_set_size,
        Reason.DISAGREEMENT: rules.max_disagreement is not None
        and _exceeds(evidence.disagreement, rules.max_disagreement),
    }
    return {reason for reason, holds in checks.items() if holds}


def _exceeds(score: float | None, limit: float) -> bool:
    """Whether a score is above its limit, or missing or no number, and so none to trust."""
    return score is None or not score <= limit


def _prediction_sets(
    rules: Sequence[PredictionSetRule], probabilities: npt.NDArray[np.float32]
) -> Iterator[PredictionSet]:
    """A set for each rule, each with all classes of those of lower coverage.

    A class of too few images for a coverage has a threshold of all classes there, which may be
    above its own: raising the coverage would take it away.
    """
    least = dict.fromkeys(LABELS, 1.0)
    for rule in rules:
        least = lower_thresholds(least, rule.thresholds)
        labels = predicted_set(least, probabilities)
        yield PredictionSet(rule.coverage, labels, tuple(rule.pooled))


def lower_thresholds(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """The lower of two thresholds of each class."""
    return {label: min(one[label], other[label]) for label in LABELS}


def predicted_set(
    thresholds: Mapping[str, float], probabilities: npt.NDArray[np.float32]
) -> tuple[str, ...]:
    """The classes of a prediction set by falling probability, the most probable always.

    Args:
        thresholds: By class, as in `PredictionSetRule`.
        probabilities: (7,) float32.
    """
    by_label = dict(zip(LABELS, probabilities.tolist(), strict=True))
    first, *others = sorted(LABELS, key=by_label.__getitem__, reverse=True)
    return (first, *(label for label in others if by_label[label] >= thresholds[label]))


def _apply(point: OperatingPoint, probabilities: npt.NDArray[np.float32]) -> OperatingPointResult:
    # Rounding of the sum in float32 must not make 1.0000001 of it.
    total = min(1.0, float(probabilities[[CLASS_INDEX[label] for label in point.labels]].sum()))
    return OperatingPointResult(point, total, total >= point.threshold)


def disagreement(answers: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float64]:
    """Jensen-Shannon divergence of some models' answers, all of equal weight (Lin, 1991).

    Args:
        answers: (batch, 7) float32 of each model, at least one.

    Returns:
        (batch,) float64 in bits, from 0 for the same answers to the logarithm of their number.
    """
    stacked = np.stack(answers).astype(np.float64)
    divergence = _entropy(stacked.mean(axis=0)) - _entropy(stacked).mean(axis=0)
    return np.asarray(np.maximum(divergence, 0.0))


def _entropy(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    logarithms = np.log2(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return np.asarray(-(probabilities * logarithms).sum(axis=-1))
