"""The block `decision` of `manifest.json` and `ensemble.json`: rules, and what they achieve.

Chosen on the validation part, measured on the test part by `python -m training decide`
(ADR-0014). `app.domain.decision` applies them.
"""

from typing import Annotated, Final

from pydantic import Field, model_validator

from app.domain.labels import LABELS
from app.domain.measurements import (
    Calibration,
    GitCommit,
    Interval,
    OperatingPoint,
    Probability,
    Strict,
)

FEATURE_SPACE_NAME: Final = "feature_space.npz"
"""Beside the manifest: `app.domain.novelty.FeatureSpace`."""


class SetCoverage(Strict):
    """What prediction sets achieve on the test part.

    Attributes:
        coverage: Share of images whose set holds the true class.
        per_class: The same by true class.
        mean_size: Classes in a set.
        singletons: Share of sets of one class.
    """

    coverage: Interval
    per_class: dict[str, Probability]
    mean_size: Annotated[float, Field(ge=1.0)]
    singletons: Probability


class PredictionSetRule(Strict):
    """Which classes are in a prediction set.

    Attributes:
        coverage: Share of images whose set is to hold the true class, for each class.
        thresholds: By class; it is in the set where its probability is at least that.
        pooled: Classes of too few validation lesions for this coverage: their threshold is of
            all classes together, or that of a lower coverage where it is lower, and nothing is
            promised for them.
        measured: On the test part.
    """

    coverage: Annotated[float, Field(gt=0.0, lt=1.0)]
    thresholds: dict[str, Probability]
    pooled: list[str]
    measured: SetCoverage

    @model_validator(mode="after")
    def _check(self) -> "PredictionSetRule":
        if set(self.thresholds) != set(LABELS):
            raise ValueError("thresholds must hold each class once")
        return self


class ReferralPoint(Strict):
    """One point of the referral curve.

    Attributes:
        referred: Share of images below some confidence.
        accuracy: Share of right answers among the others.
    """

    referred: Probability
    accuracy: Probability


class ReferralRule(Strict):
    """Below which confidence an answer is referred.

    Attributes:
        required_accuracy: Of the answers above it, on the validation part.
        min_confidence: The least confidence that gives it.
        referred: Share of test images below it.
        accuracy: Of the test images at or above it.
        curve: On the test part, by rising share referred.
    """

    required_accuracy: Probability
    min_confidence: Probability
    referred: Interval
    accuracy: Interval
    curve: list[ReferralPoint]


class NoveltyRule(Strict):
    """From which score on a picture is out of distribution.

    Attributes:
        num_components: Of the feature space; None for an ensemble, whose score is the mean of
            its members' scores, each divided by its threshold.
        threshold: A score above it is out of distribution.
        accepted_validation: Share of validation images that are not.
        accepted_test: The same of test images.
    """

    num_components: Annotated[int, Field(ge=1)] | None
    threshold: Annotated[float, Field(gt=0.0)]
    accepted_validation: Probability
    accepted_test: Probability


class Outcome(Strict):
    """What all rules together make of the test part, picture quality left aside.

    Attributes:
        reported: Share of images.
        referred: Share of images.
        rejected: Share of images.
        accuracy: Of what is reported.
        num_malignant: Test images of a malignant class.
        num_malignant_reported_benign: Of these, how many are reported as a benign class.
        reported_benign_by_class: The same by true class; None where that was not counted.
        num_malignant_rejected: Of these, how many get no answer; None where that was not counted.
        malignant_of_reported: Share of malignant images among what is reported as benign; None
            where that was not measured.
        reasons: Share of images with each reason; one may have several.
    """

    reported: Probability
    referred: Probability
    rejected: Probability
    accuracy: Interval
    num_malignant: Annotated[int, Field(ge=0)]
    num_malignant_reported_benign: Annotated[int, Field(ge=0)]
    reported_benign_by_class: dict[str, Annotated[int, Field(ge=0)]] | None = None
    num_malignant_rejected: Annotated[int, Field(ge=0)] | None = None
    malignant_of_reported: Interval | None = None
    reasons: dict[str, Probability]


class DecisionRules(Strict):
    """How to decide on an answer.

    Attributes:
        git_commit: Of the code that made them.
        prediction_sets: By rising coverage; the first one decides on `large-set`.
        max_set_size: A larger first set is referred.
        referral: On the confidence.
        referring_sensitivity: Names the operating point of malignancy from which on an answer
            is referred.
        max_disagreement: Of an ensemble's members, Jensen-Shannon divergence in base 2; None
            for a model.
        novelty: When a picture is out of distribution.
        outcome: On the test part.
    """

    git_commit: GitCommit
    prediction_sets: Annotated[list[PredictionSetRule], Field(min_length=1)]
    max_set_size: Annotated[int, Field(ge=1, le=len(LABELS))]
    referral: ReferralRule
    referring_sensitivity: Probability
    max_disagreement: Probability | None
    novelty: NoveltyRule
    outcome: Outcome

    @model_validator(mode="after")
    def _check_order(self) -> "DecisionRules":
        coverages = [rule.coverage for rule in self.prediction_sets]
        if coverages != sorted(set(coverages)):
            raise ValueError(f"prediction_sets must be of rising coverage, received {coverages}")
        return self

    def refers_at(self, point: OperatingPoint) -> bool:
        """Whether this is the operating point from which on an answer is referred."""
        return (
            point.target == "malignancy"
            and point.required_sensitivity == self.referring_sensitivity
        )

    def check_calibration(self, calibration: Calibration) -> None:
        """Check that the operating point which these rules name is there.

        Raises:
            ValueError: It is not; no answer would be referred for malignancy.
        """
        if not any(self.refers_at(point) for point in calibration.operating_points):
            raise ValueError(
                "calibration.operating_points must hold one of malignancy whose "
                "required_sensitivity is decision.referring_sensitivity, "
                f"{self.referring_sensitivity:g}"
            )
