"""Temperature and thresholds against answers known by construction."""

import numpy as np
import pytest

from app.domain.labels import CLASS_INDEX
from training.calibration import apply_temperature, calibrate, choose_threshold, fit_temperature
from training.metrics import calibration_error, reliability

RANDOM = np.random.default_rng(3)
LOGITS = RANDOM.normal(0, 2, (6000, 7)).astype(np.float32)
TRUE_PROBABILITIES = apply_temperature(LOGITS, 1.0)
LABELS = (TRUE_PROBABILITIES.cumsum(axis=1) < RANDOM.random((6000, 1))).sum(axis=1).clip(max=6)
LESIONS = np.arange(6000).astype(str).astype(object)


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(factor: float) -> None:
    assert fit_temperature(LOGITS * factor, LABELS) == pytest.approx(factor, rel=0.04)


def test_calibration_undoes_overconfidence_and_says_by_how_much() -> None:
    calibration = calibrate(LOGITS * 3, LABELS, LESIONS, seed=1)
    assert calibration.error_before > 0.2
    assert calibration.error_after < 0.02
    assert calibration.num_images == 6000


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    probabilities = np.zeros((10, 7), np.float32)
    probabilities[:, 0], probabilities[:, 1] = 0.9, 0.1
    labels = np.array([0] * 5 + [1] * 5)
    assert calibration_error(labels, probabilities) == pytest.approx(0.4, abs=1e-4)
    (single,) = reliability(labels, probabilities)
    assert (single.num_images, single.confidence, single.accuracy) == (10, 0.9, 0.5)


def test_operating_points_reach_their_sensitivity_with_the_highest_threshold() -> None:
    calibration = calibrate(LOGITS, LABELS, LESIONS, seed=1)
    probabilities = apply_temperature(LOGITS, calibration.temperature)
    named = {(p.target, p.required_sensitivity): p for p in calibration.operating_points}
    assert set(named) == {(t, s) for t in ("melanoma", "malignancy") for s in (0.90, 0.95)}
    assert named["malignancy", 0.9].labels == ["akiec", "bcc", "mel"]
    for (_, required), point in named.items():
        columns = [CLASS_INDEX[label] for label in point.labels]
        score, target = probabilities[:, columns].sum(axis=1), np.isin(LABELS, columns)
        assert required <= point.sensitivity.value < required + 0.01
        found = (score[target] >= point.threshold + 0.005).mean()
        assert found < required, "a higher threshold would have done"
        specificity = (score[~target] < point.threshold).mean()
        assert point.specificity.value == pytest.approx(specificity, abs=1e-4)
        assert point.sensitivity.low < point.sensitivity.value < point.sensitivity.high


def test_threshold_counts_whole_images_and_never_rounds_up() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], np.float32)
    everything = np.ones(10, bool)
    assert choose_threshold(scores, everything, 0.9) == pytest.approx(0.2, abs=1e-5)
    assert (scores >= choose_threshold(scores, everything, 0.9)).sum() == 9
    assert (scores >= choose_threshold(scores, everything, 0.85)).sum() == 9
    assert choose_threshold(scores, ~everything, 0.9) == 0.0
