"""Figures against scikit-learn's and against answers known by hand."""

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from app.domain.labels import CLASS_INDEX, LABELS
from app.domain.measurements import Interval, OperatingPoint
from training.metrics import (
    _roc_aucs,
    measure,
    measure_operating_points,
    measure_subgroups,
)

RANDOM = np.random.default_rng(0)
TRUE = RANDOM.integers(0, 7, 300)
PROBABILITIES = RANDOM.dirichlet(np.ones(7), 300).astype(np.float32)
PROBABILITIES[np.arange(300), TRUE] += 0.25
PROBABILITIES /= PROBABILITIES.sum(axis=1, keepdims=True)
LESIONS = np.array([f"HAM_{i // 2}" for i in range(300)], dtype=object)


def test_point_values_are_scikit_learns() -> None:
    metrics = measure("test", TRUE, PROBABILITIES, LESIONS, seed=1, num_resamples=50)
    answer = PROBABILITIES.argmax(axis=1)
    assert metrics.accuracy.value == pytest.approx(accuracy_score(TRUE, answer), abs=1e-4)
    assert metrics.balanced_accuracy.value == pytest.approx(
        balanced_accuracy_score(TRUE, answer), abs=1e-4
    )
    assert metrics.macro_f1.value == pytest.approx(
        f1_score(TRUE, answer, average="macro"), abs=1e-4
    )
    assert metrics.confusion_matrix == confusion_matrix(TRUE, answer).tolist()
    expected = precision_recall_fscore_support(TRUE, answer)
    for index, label in enumerate(LABELS):
        figures = metrics.per_class[label]
        received = (figures.precision.value, figures.recall.value, figures.f1.value)
        assert received == pytest.approx([e[index] for e in expected[:3]], abs=1e-4)
        assert figures.support == expected[3][index]
        auc = roc_auc_score(index == TRUE, PROBABILITIES[:, index])
        assert figures.roc_auc.value == pytest.approx(auc, abs=1e-4)


def test_the_area_of_ties_and_of_repeated_images_is_scikit_learns() -> None:
    coarse = (PROBABILITIES.astype(np.float64) * 8).round() / 8
    counts = np.random.default_rng(2).integers(0, 4, (20, 300))
    for index in range(7):
        positive = np.equal(TRUE, index)
        expected = [
            roc_auc_score(positive, coarse[:, index], sample_weight=count) for count in counts
        ]
        np.testing.assert_allclose(_roc_aucs(positive, coarse[:, index], counts), expected)


def test_interval_of_accuracy_is_the_binomial_one_for_single_images() -> None:
    alone = np.arange(300).astype(str).astype(object)
    accuracy = measure("test", TRUE, PROBABILITIES, alone, seed=1).accuracy
    error = np.sqrt(accuracy.value * (1 - accuracy.value) / 300)
    assert accuracy.low == pytest.approx(accuracy.value - 1.96 * error, abs=0.012)
    assert accuracy.high == pytest.approx(accuracy.value + 1.96 * error, abs=0.012)


def test_repeat_photographs_widen_the_interval() -> None:
    true, probabilities = np.repeat(TRUE, 4), np.repeat(PROBABILITIES, 4, axis=0)
    lesions = np.repeat(np.arange(300), 4).astype(str).astype(object)
    images = np.arange(1200).astype(str).astype(object)
    grouped = measure("test", true, probabilities, lesions, seed=1, num_resamples=400).accuracy
    naive = measure("test", true, probabilities, images, seed=1, num_resamples=400).accuracy
    assert (grouped.high - grouped.low) > 1.6 * (naive.high - naive.low)


def test_missing_class_and_missing_answer_are_no_crash() -> None:
    true = np.array([0, 0, 1, 1, 5, 5])
    probabilities = np.tile(np.array([1, 0, 0, 0, 0, 0, 0], np.float32), (6, 1))
    groups = np.arange(6).astype(str).astype(object)
    metrics = measure("validation", true, probabilities, groups, seed=1, num_resamples=50)
    absent, never_answered = metrics.per_class["df"], metrics.per_class["bcc"]
    assert absent.support == 0
    assert absent.roc_auc == Interval(value=0.5, low=0.0, high=1.0)
    assert absent.recall == never_answered.precision == Interval(value=0.0, low=0.0, high=1.0)
    assert metrics.balanced_accuracy.value == pytest.approx(1 / 3, abs=1e-4)


def test_a_share_of_none_or_all_has_the_interval_of_as_many_lesions() -> None:
    # 0 of 10 lesions, of two photographs each: up to 0.28 by Wilson, not 0.
    true = np.repeat([4, 5], 20)
    probabilities = np.tile(np.eye(7, dtype=np.float32)[5], (40, 1))
    lesions = np.array([f"HAM_{i // 2}" for i in range(40)], dtype=object)
    metrics = measure("test", true, probabilities, lesions, seed=1, num_resamples=50)
    assert metrics.per_class["mel"].recall == Interval(value=0.0, low=0.0, high=0.2775)
    assert metrics.per_class["nv"].recall == Interval(value=1.0, low=0.7225, high=1.0)


def test_figures_of_nothing_and_of_all_are_as_uncertain_as_their_shares() -> None:
    true = np.repeat([4, 5], 10)
    lesions = np.arange(20).astype(object)
    right = np.eye(7, dtype=np.float32)[true]
    metrics = measure("test", true, right, lesions, seed=1, num_resamples=50)
    melanoma, certain = metrics.per_class["mel"], Interval(value=1.0, low=0.7225, high=1.0)
    assert melanoma.f1 == melanoma.roc_auc == certain
    assert metrics.balanced_accuracy == metrics.macro_f1 == certain

    metrics = measure("test", true, right[::-1], lesions, seed=1, num_resamples=50)
    melanoma = metrics.per_class["mel"]
    # F1 of a recall of 0.2775 at a precision of 1.
    assert melanoma.f1 == metrics.macro_f1 == Interval(value=0.0, low=0.0, high=0.4345)
    assert (
        melanoma.roc_auc == metrics.balanced_accuracy == Interval(value=0.0, low=0.0, high=0.2775)
    )


def test_resamples_without_a_class_do_not_pull_its_interval_down() -> None:
    # Of two lesions of melanoma, one resample in seven has none.
    true = np.array([4] * 20 + [5] * 10)
    answered = np.array([4, 5] * 10 + [5] * 10)
    lesions = np.array(["a"] * 10 + ["b"] * 10 + [f"c{i}" for i in range(10)], dtype=object)
    metrics = measure(
        "test", true, np.eye(7, dtype=np.float32)[answered], lesions, seed=1, num_resamples=400
    )
    recall = metrics.per_class["mel"].recall
    assert (recall.value, recall.low, recall.high) == (0.5, 0.5, 0.5)
    assert metrics.per_class["mel"].roc_auc.low == 0.75


def test_same_seed_same_intervals() -> None:
    first = measure("test", TRUE, PROBABILITIES, LESIONS, seed=1, num_resamples=50)
    assert first == measure("test", TRUE, PROBABILITIES, LESIONS, seed=1, num_resamples=50)


def test_operating_points_count_by_hand() -> None:
    probabilities = np.zeros((4, 7), np.float32)
    probabilities[:, CLASS_INDEX["mel"]] = [0.9, 0.2, 0.6, 0.1]
    probabilities[:, CLASS_INDEX["nv"]] = 1.0 - probabilities.sum(axis=1)
    labels = np.array([CLASS_INDEX[name] for name in ("mel", "mel", "nv", "nv")])
    zero = Interval(value=0, low=0, high=0)
    point = OperatingPoint(
        target="melanoma",
        labels=["mel"],
        required_sensitivity=0.9,
        threshold=0.2,
        sensitivity=zero,
        specificity=zero,
    )
    groups = np.arange(4).astype(str).astype(object)
    (low,) = measure_operating_points([point], labels, probabilities, groups, seed=1)
    assert (low.sensitivity.value, low.specificity.value) == (1.0, 0.5)
    higher = point.model_copy(update={"threshold": 0.7})
    (high,) = measure_operating_points([higher], labels, probabilities, groups, seed=1)
    assert (high.sensitivity.value, high.specificity.value) == (0.5, 1.0)


def test_subgroups_are_measured_apart_and_small_ones_left_out() -> None:
    sex = np.array(["female"] * 140 + ["male"] * 141 + ["unknown"] * 19, object)
    groups = measure_subgroups(TRUE, PROBABILITIES, LESIONS, {"sex": sex}, seed=1)
    assert [(g.value, g.num_images) for g in groups] == [("female", 140), ("male", 141)]
    right = np.equal(PROBABILITIES.argmax(axis=1), TRUE)
    melanoma = np.equal(TRUE, CLASS_INDEX["mel"])
    assert groups[0].accuracy.value == pytest.approx(right[:140].mean(), abs=1e-4)
    assert groups[0].num_melanomas == melanoma[:140].sum()
    recall = groups[0].melanoma_recall
    assert recall is not None
    assert recall.value == pytest.approx(right[:140][melanoma[:140]].mean(), abs=1e-4)
