"""Choose the rules of decisions on the validation part, and measure them on the test part."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.domain.decision import (
    Action,
    Decision,
    Evidence,
    Gates,
    Reason,
    decide,
    lower_thresholds,
    predicted_set,
)
from app.domain.labels import CLASS_INDEX, CLASSES, LABELS, Malignancy
from app.domain.measurements import Calibration
from app.domain.rules import (
    DecisionRules,
    NoveltyRule,
    Outcome,
    PredictionSetRule,
    ReferralPoint,
    ReferralRule,
    SetCoverage,
)
from training.metrics import share

COVERAGES: Final = (0.90, 0.95)
MAX_SET_SIZE: Final = 2
REQUIRED_ACCURACY: Final = 0.92
REFERRING_SENSITIVITY: Final = 0.90
ACCEPTED: Final = 0.95
"""Share of validation images that are not out of distribution, and that do not disagree."""

_CURVE: Final = np.arange(0.0, 0.951, 0.05)
_DIGITS: Final = 1e6

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model or an ensemble made of one part of the data.

    Attributes:
        probabilities: (num_images, 7) float32, calibrated.
        labels: (num_images,) int64 class indices, the truth.
        groups: (num_images,) lesion identifiers.
        novelty: (num_images,) float, the score of being out of distribution.
        disagreement: (num_images,) float of an ensemble's members; None for a model.
    """

    probabilities: Floats
    labels: Ints
    groups: npt.NDArray[np.object_]
    novelty: npt.NDArray[np.floating]
    disagreement: npt.NDArray[np.floating] | None = None


def make_rules(
    validation: Answers,
    test: Answers,
    calibration: Calibration,
    *,
    num_components: int | None,
    git_commit: str,
    seed: int,
) -> DecisionRules:
    """Choose every rule on the validation part and measure it on the test part.

    Args:
        validation: What the rules are chosen on.
        test: What they are measured on.
        calibration: Whose operating point of malignancy is applied.
        num_components: Of the model's feature space; None for an ensemble.
        git_commit: Of this code.
        seed: Of the resamples.
    """
    threshold = _round_up(np.quantile(validation.novelty, ACCEPTED))
    chosen: dict[str, Any] = {
        "git_commit": git_commit,
        "prediction_sets": _choose_sets(validation, test, seed),
        "max_set_size": MAX_SET_SIZE,
        "referral": _choose_referral(validation, test, seed),
        "referring_sensitivity": REFERRING_SENSITIVITY,
        "max_disagreement": None
        if validation.disagreement is None
        else _round_up(np.quantile(validation.disagreement, ACCEPTED)),
        "novelty": NoveltyRule(
            num_components=num_components,
            threshold=threshold,
            accepted_validation=_mean(validation.novelty <= threshold),
            accepted_test=_mean(test.novelty <= threshold),
        ),
    }
    # The outcome is measured with these very rules, which are not whole without it.
    unmeasured = DecisionRules.model_construct(**chosen)
    outcome = measure_outcome(unmeasured, test, calibration, seed=seed)
    return DecisionRules(**chosen, outcome=outcome)


def conformal_thresholds(
    probabilities: Floats, labels: Ints, groups: npt.NDArray[np.object_], coverage: float
) -> tuple[dict[str, float], list[str]]:
    """Split conformal prediction for each class by itself, with score 1 - p.

    Vovk, "Conditional Validity of Inductive Conformal Predictors", ACML 2012; rare classes as in
    Ding, Angelopoulos, Bates, Jordan and Tibshirani, "Class-Conditional Conformal Prediction with
    Many Classes", NeurIPS 2023.

    Args:
        probabilities: (num_images, 7) float32.
        labels: (num_images,) int64 class indices.
        groups: (num_images,) lesion identifiers; images of one lesion are no new evidence.
        coverage: In (0, 1).

    Returns:
        The least probability that puts each class into a set, rounded down; and the classes
        of too few lesions, whose threshold is of all classes together.
    """
    of_truth = probabilities[np.arange(len(labels)), labels]
    thresholds, pooled = {}, []
    for index, label in enumerate(LABELS):
        scores = of_truth[labels == index]
        num_lesions = len(np.unique(groups[labels == index].astype(str)))
        if _rank(num_lesions, coverage) > num_lesions:
            pooled.append(label)
            scores = of_truth
        rank = min(_rank(len(scores), coverage), len(scores))
        thresholds[label] = _round_down(np.sort(scores)[::-1][rank - 1])
    return thresholds, pooled


def choose_confidence(probabilities: Floats, labels: Ints, required_accuracy: float) -> float:
    """The least confidence for which the answers at or above it are right often enough.

    Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017.

    Returns:
        Rounded down; 1 where no confidence does it.
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    right = (probabilities.argmax(axis=1) == labels)[order]
    accuracy = np.cumsum(right) / np.arange(1, len(right) + 1)
    # Answers of one confidence come together or not at all.
    last_of_its_kind = np.append(np.diff(confidence[order]) != 0, True)
    enough = np.flatnonzero((accuracy >= required_accuracy) & last_of_its_kind)
    return _round_down(confidence[order][enough[-1]]) if len(enough) else 1.0


def measure_outcome(
    rules: DecisionRules, answers: Answers, calibration: Calibration, *, seed: int
) -> Outcome:
    """Decide on every image and count; both gates' findings reject or refer as by default."""
    actions = np.array([d.action for d in _decide_all(rules, answers, calibration, Gates())])
    # A rejection keeps reasons of the answer to itself; all of them are counted here.
    open_gates = Gates(reject_novelty=False, reject_quality=False)
    decisions = _decide_all(rules, answers, calibration, open_gates)
    unapplied = {Reason.NO_RULES, Reason.POOR_QUALITY}
    if rules.max_disagreement is None:
        unapplied.add(Reason.DISAGREEMENT)
    malignant = {
        c.label: CLASS_INDEX[c.label] for c in CLASSES if c.malignancy is not Malignancy.BENIGN
    }
    indices = list(malignant.values())
    predicted = answers.probabilities.argmax(axis=1)
    is_malignant, reported = np.isin(answers.labels, indices), actions == Action.REPORT
    reported_benign = reported & ~np.isin(predicted, indices)
    return Outcome(
        reported=_mean(reported),
        referred=_mean(actions == Action.REFER),
        rejected=_mean(actions == Action.REJECT),
        accuracy=share(predicted == answers.labels, reported, answers.groups, seed=seed),
        num_malignant=int(is_malignant.sum()),
        num_malignant_rejected=int((is_malignant & (actions == Action.REJECT)).sum()),
        malignant_of_reported=share(is_malignant, reported_benign, answers.groups, seed=seed),
        num_malignant_reported_benign=int((is_malignant & reported_benign).sum()),
        reported_benign_by_class={
            label: int((reported_benign & (answers.labels == index)).sum())
            for label, index in malignant.items()
        },
        reasons={
            reason.value: _mean(np.array([reason in decision.reasons for decision in decisions]))
            for reason in Reason
            if reason not in unapplied
        },
    )


def _decide_all(
    rules: DecisionRules, answers: Answers, calibration: Calibration, gates: Gates
) -> list[Decision]:
    return [
        decide(
            Evidence(
                answers.probabilities[row],
                float(answers.novelty[row]),
                None if answers.disagreement is None else float(answers.disagreement[row]),
            ),
            rules,
            calibration.operating_points,
            gates,
        )
        for row in range(len(answers.labels))
    ]


def _choose_sets(validation: Answers, test: Answers, seed: int) -> list[PredictionSetRule]:
    """A rule for each coverage; no threshold is above its class's at a lower coverage."""
    rules = []
    least = dict.fromkeys(LABELS, 1.0)
    for coverage in COVERAGES:
        found, pooled = conformal_thresholds(
            validation.probabilities, validation.labels, validation.groups, coverage
        )
        least = lower_thresholds(least, found)
        rules.append(
            PredictionSetRule(
                coverage=coverage,
                thresholds=least,
                pooled=pooled,
                measured=_measure_sets(least, test, seed),
            )
        )
    return rules


def _measure_sets(thresholds: dict[str, float], test: Answers, seed: int) -> SetCoverage:
    sets = [predicted_set(thresholds, row) for row in test.probabilities]
    hit = np.array([LABELS[label] in s for label, s in zip(test.labels, sets, strict=True)])
    sizes = np.array([len(s) for s in sets])
    return SetCoverage(
        coverage=share(hit, np.ones(len(hit), bool), test.groups, seed=seed),
        per_class={
            label: _mean(hit[test.labels == index])
            for index, label in enumerate(LABELS)
            if (test.labels == index).any()
        },
        mean_size=round(float(sizes.mean()), 4),
        singletons=_mean(sizes == 1),
    )


def _choose_referral(validation: Answers, test: Answers, seed: int) -> ReferralRule:
    least = choose_confidence(validation.probabilities, validation.labels, REQUIRED_ACCURACY)
    confidence = test.probabilities.max(axis=1)
    right = test.probabilities.argmax(axis=1) == test.labels
    kept, everything = confidence >= least, np.ones(len(right), bool)
    order = np.argsort(-confidence, kind="stable")
    sizes = [max(1, round((1.0 - referred) * len(right))) for referred in _CURVE]
    return ReferralRule(
        required_accuracy=REQUIRED_ACCURACY,
        min_confidence=least,
        referred=share(~kept, everything, test.groups, seed=seed),
        accuracy=share(right, kept, test.groups, seed=seed),
        curve=[
            ReferralPoint(
                referred=round(1.0 - size / len(right), 4), accuracy=_mean(right[order[:size]])
            )
            for size in sizes
        ],
    )


def _rank(count: int, coverage: float) -> int:
    """The order statistic of `count` scores that covers one more image, counted from 1."""
    return int(np.ceil((count + 1) * coverage - 1e-9))


def _round_down(value: float) -> float:
    return float(np.floor(float(value) * _DIGITS) / _DIGITS)


def _round_up(value: float) -> float:
    return float(np.ceil(float(value) * _DIGITS) / _DIGITS)


def _mean(hits: npt.NDArray[np.bool_]) -> float:
    return round(float(hits.mean()), 4)
