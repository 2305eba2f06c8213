"""The ensemble's weights are those of least cross-entropy."""

from pathlib import Path

import numpy as np
import pytest

from tests.tiny_artifact import write_tiny_artifact
from training.calibration import apply_temperature
from training.combine import EnsembleError, combine, fit_weights
from training.prepare import PreparedData

RANDOM = np.random.default_rng(5)
EVIDENCE = RANDOM.normal(0, 1.5, (2, 4000, 7))
LABELS = (
    (
        apply_temperature(EVIDENCE.sum(axis=0).astype(np.float32), 1.0).cumsum(axis=1)
        < RANDOM.random((4000, 1))
    )
    .sum(axis=1)
    .clip(max=6)
)
HALVES = [apply_temperature(half.astype(np.float32), 1.0) for half in EVIDENCE]


def test_independent_evidence_of_equal_worth_weighs_the_same() -> None:
    weights = fit_weights({"a": HALVES[0], "b": HALVES[1]}, LABELS)
    assert weights["a"] == pytest.approx(0.5, abs=0.03)
    assert sum(weights.values()) == pytest.approx(1.0, abs=1e-3)


def test_an_ensemble_is_made_where_it_is_served_from(data: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(EnsembleError, match=r"from a file ensemble\.json alone"):
        combine([], data, tmp_path / "ensemble-2.json", print, version=1, git_commit="0" * 40)
    assert list(tmp_path.iterdir()) == []


def test_members_lie_where_the_service_looks_for_them(data: PreparedData, tmp_path: Path) -> None:
    member = write_tiny_artifact(tmp_path / "mine", "tiny")
    output = tmp_path / "models" / "ensemble.json"
    with pytest.raises(EnsembleError, match="does not lie in"):
        combine([member], data, output, print, version=1, git_commit="0" * 40)
    assert not output.parent.exists()


def test_a_model_that_knows_nothing_gets_no_weight() -> None:
    noise = apply_temperature(RANDOM.normal(0, 2, (4000, 7)).astype(np.float32), 1.0)
    weights = fit_weights({"a": HALVES[0], "b": HALVES[1], "noise": noise}, LABELS)
    assert weights["noise"] < 0.03
