"""Rules are chosen as their papers say, and do on fresh data what they promise."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from app.domain.labels import CLASS_INDEX, LABELS
from tests.tiny_rules import tiny_calibration, tiny_point
from training.calibration import apply_temperature
from training.novelty import fit_feature_space
from training.rules import (
    Answers,
    choose_confidence,
    conformal_thresholds,
    make_rules,
    measure_outcome,
)


def answers(num_images: int, seed: int, *, members: bool = False) -> Answers:
    """Answers that are right as often as they say."""
    random = np.random.default_rng(seed)
    evidence = random.normal(0, 2.0, (num_images, 7)).astype(np.float32)
    probabilities = apply_temperature(evidence, 1.0)
    labels = (probabilities.cumsum(axis=1) < random.random((num_images, 1))).sum(axis=1).clip(max=6)
    return Answers(
        probabilities,
        labels,
        np.arange(num_images).astype(object),
        random.exponential(1.0, num_images),
        random.random(num_images) if members else None,
    )


def each_its_own(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
    """Lesions of one image each."""
    return np.arange(len(labels)).astype(object)


def test_sets_cover_fresh_images_as_promised() -> None:
    rules = make_rules(
        answers(7000, 1),
        answers(7000, 2),
        tiny_calibration(tiny_point()),
        num_components=3,
        git_commit="0" * 40,
        seed=1,
    )
    for rule in rules.prediction_sets:
        assert rule.pooled == []
        assert rule.measured.coverage.value == pytest.approx(rule.coverage, abs=0.015)
        for label in LABELS:
            assert rule.measured.per_class[label] == pytest.approx(rule.coverage, abs=0.03)
    assert rules.prediction_sets[0].measured.mean_size < rules.prediction_sets[1].measured.mean_size
    assert rules.novelty.accepted_validation == pytest.approx(0.95, abs=1e-3)
    assert rules.novelty.accepted_test == pytest.approx(0.95, abs=0.01)
    assert rules.max_disagreement is None


def test_the_threshold_is_the_finite_sample_quantile() -> None:
    probabilities = np.zeros((19 * 7, 7), np.float32)
    labels = np.repeat(np.arange(7), 19)
    own = np.tile(np.linspace(0.1, 0.9, 19, dtype=np.float32), 7)
    probabilities[np.arange(len(labels)), labels] = own
    thresholds, pooled = conformal_thresholds(probabilities, labels, each_its_own(labels), 0.9)
    # (19 + 1) * 0.9 = 18 of each class's 19 images are to be covered.
    assert thresholds["mel"] == pytest.approx(np.sort(own[:19])[1], abs=1e-6)
    assert pooled == []
    thresholds, pooled = conformal_thresholds(probabilities, labels, each_its_own(labels), 0.95)
    assert thresholds["mel"] == pytest.approx(0.1, abs=1e-6)
    assert pooled == []


def test_a_class_of_too_few_images_takes_the_threshold_of_all() -> None:
    sample = answers(3000, 3)
    keep = (sample.labels != 3) | (np.cumsum(sample.labels == 3) <= 8)
    probabilities, labels = sample.probabilities[keep], sample.labels[keep]
    groups = each_its_own(labels)
    thresholds, pooled = conformal_thresholds(probabilities, labels, groups, 0.9)
    assert pooled == [LABELS[3]]
    covered = probabilities[np.arange(len(labels)), labels] >= thresholds[LABELS[3]]
    assert covered.mean() == pytest.approx(0.9, abs=0.005)


def test_many_images_of_few_lesions_are_too_few() -> None:
    sample = answers(3000, 3)
    groups = sample.groups.copy()
    groups[sample.labels == 3] = groups[sample.labels == 3] % 8
    _, pooled = conformal_thresholds(sample.probabilities, sample.labels, groups, 0.9)
    assert pooled == [LABELS[3]]


def test_a_higher_coverage_takes_no_class_away() -> None:
    sample = answers(3000, 3)
    keep = (sample.labels != 3) | (np.cumsum(sample.labels == 3) <= 10)
    validation = Answers(
        # Where it is the truth, the rare class is hardly seen: its own threshold is low.
        np.where(sample.labels[:, None] == 3, sample.probabilities / 100, sample.probabilities)[
            keep
        ],
        sample.labels[keep],
        sample.groups[keep],
        sample.novelty[keep],
    )
    own, pooled = (
        conformal_thresholds(validation.probabilities, validation.labels, validation.groups, level)
        for level in (0.90, 0.95)
    )
    assert own[1] == []
    assert pooled[1] == [LABELS[3]]
    assert pooled[0][LABELS[3]] > own[0][LABELS[3]]
    rules = make_rules(
        validation,
        answers(500, 7),
        tiny_calibration(tiny_point()),
        num_components=3,
        git_commit="0" * 40,
        seed=1,
    )
    ninety, ninety_five = rules.prediction_sets
    assert ninety_five.pooled == [LABELS[3]]
    for label in LABELS:
        assert ninety_five.thresholds[label] <= ninety.thresholds[label]


def test_no_rule_is_chosen_on_the_test_part() -> None:
    validation = answers(2000, 1, members=True)
    test = answers(2000, 2, members=True)
    assert test.disagreement is not None
    other = replace(
        test,
        labels=(test.labels + 1) % 7,
        novelty=test.novelty * 2,
        disagreement=test.disagreement * 2,
    )
    first, second = (
        make_rules(
            validation,
            part,
            tiny_calibration(tiny_point()),
            num_components=None,
            git_commit="0" * 40,
            seed=1,
        )
        for part in (test, other)
    )
    assert first.outcome != second.outcome
    assert first.max_disagreement == second.max_disagreement
    assert first.novelty.threshold == second.novelty.threshold
    assert first.referral.min_confidence == second.referral.min_confidence
    for one, two in zip(first.prediction_sets, second.prediction_sets, strict=True):
        assert one.thresholds == two.thresholds


def test_the_confidence_is_the_least_that_is_right_often_enough() -> None:
    confidence = np.array([0.95, 0.9, 0.8, 0.7, 0.7, 0.6], np.float32)
    probabilities = np.zeros((6, 7), np.float32)
    probabilities[:, 0] = confidence
    probabilities[:, 1] = 1 - confidence
    labels = np.array([0, 0, 1, 0, 1, 0])  # right, right, wrong, right, wrong, right
    assert choose_confidence(probabilities, labels, 0.7) == pytest.approx(0.9, abs=2e-6)
    # 4 of 6 are right in all; the two of 0.7 cannot be told apart.
    assert choose_confidence(probabilities, labels, 0.66) == pytest.approx(0.6, abs=2e-6)
    assert choose_confidence(probabilities, 1 - labels, 1.0) == 1.0


def test_the_outcome_counts_what_decisions_say() -> None:
    calibration = tiny_calibration(tiny_point(threshold=0.25))
    test = answers(2000, 5, members=True)
    rules = make_rules(
        answers(2000, 4, members=True),
        test,
        calibration,
        num_components=None,
        git_commit="0" * 40,
        seed=1,
    )
    outcome = rules.outcome
    assert outcome.reported + outcome.referred + outcome.rejected == pytest.approx(1.0, abs=2e-4)
    assert outcome.rejected == outcome.reasons["out-of-distribution"]
    assert outcome.reasons["disagreement"] == pytest.approx(0.05, abs=0.015)
    malignant = test.probabilities[:, [0, 1, 4]].sum(axis=1) >= 0.25
    assert outcome.reasons["malignancy"] == pytest.approx(malignant.mean(), abs=1e-4)
    assert outcome.accuracy.value > (test.probabilities.argmax(axis=1) == test.labels).mean()
    assert 0 < outcome.num_malignant_reported_benign < outcome.num_malignant / 4
    is_malignant = np.isin(test.labels, [0, 1, 4])
    assert outcome.num_malignant == is_malignant.sum()
    by_class = outcome.reported_benign_by_class
    assert by_class is not None
    assert list(by_class) == ["akiec", "bcc", "mel"]
    assert sum(by_class.values()) == outcome.num_malignant_reported_benign
    assert all(0 < n < (test.labels == CLASS_INDEX[label]).sum() for label, n in by_class.items())
    melanomas = replace(test, labels=np.full_like(test.labels, CLASS_INDEX["mel"]))
    of_melanomas = measure_outcome(rules, melanomas, calibration, seed=1)
    assert of_melanomas.reported_benign_by_class == {
        "akiec": 0,
        "bcc": 0,
        "mel": of_melanomas.num_malignant_reported_benign,
    }
    assert (
        outcome.num_malignant_rejected
        == (is_malignant & (test.novelty > rules.novelty.threshold)).sum()
    )
    found = outcome.malignant_of_reported
    assert found is not None
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(
        outcome.num_malignant_reported_benign / (outcome.reported * len(test.labels)), abs=0.01
    )
    assert measure_outcome(rules, test, calibration, seed=1) == outcome


def test_the_curve_falls_with_the_share_that_is_kept() -> None:
    rules = make_rules(
        answers(3000, 6),
        answers(3000, 7),
        tiny_calibration(),
        num_components=3,
        git_commit="0" * 40,
        seed=1,
    )
    curve = rules.referral.curve
    assert [point.referred for point in curve] == sorted(point.referred for point in curve)
    assert curve[0].referred == 0.0
    assert curve[-1].accuracy > curve[0].accuracy + 0.2
    assert rules.referral.accuracy.value == pytest.approx(0.92, abs=0.03)


def test_a_feature_space_holds_what_explains_the_variance() -> None:
    random = np.random.default_rng(8)
    basis = np.linalg.qr(random.normal(size=(20, 20)))[0]
    spread = np.array([5.0, 3.0, 2.0] + [0.01] * 17)
    features = (random.normal(size=(500, 20)) * spread @ basis.T + 7.0).astype(np.float32)
    space = fit_feature_space(features)
    assert space.components.shape == (3, 20)
    inside = (random.normal(size=(50, 20)) * spread @ basis.T + 7.0).astype(np.float32)
    outside = inside + 4.0 * basis[:, 10].astype(np.float32)
    assert space.residual(outside).min() > 10 * space.residual(inside).max()
