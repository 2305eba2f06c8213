"""An ensemble has everything that its rules are about, or is not loaded."""

from pathlib import Path

import numpy as np
import pytest

from app.domain.errors import ManifestError
from app.inference.ensembles import load_ensemble
from app.inference.models import load_model
from app.inference.tensorflow_engine import TensorFlowEngine
from tests.tiny_artifact import write_tiny_artifact
from tests.tiny_rules import tiny_calibration, tiny_point, tiny_rules, write_tiny_ensemble


def write_member(models: Path, name: str, novelty: float | None) -> Path:
    """A member whose pictures are novel above that score; None for one without rules."""
    return write_tiny_artifact(
        models,
        name,
        calibration=tiny_calibration(tiny_point()),
        decision=None if novelty is None else tiny_rules(novelty=novelty),
    )


def test_novelty_is_the_mean_of_scores_by_their_thresholds(tmp_path: Path) -> None:
    folders = [write_member(tmp_path, "one", 0.5), write_member(tmp_path, "two", 0.25)]
    write_tiny_ensemble(tmp_path, folders, (0.5, 0.5))
    models = [load_model(folder, TensorFlowEngine) for folder in folders]
    picture = np.full((1, 224, 224, 3), (200, 20, 20), np.uint8)
    answer = load_ensemble(tmp_path, models).predict_batch(picture)[0]
    score = answer.members[0].novelty
    assert score is not None
    assert score > 0.1
    assert answer.members[1].novelty == pytest.approx(score)
    assert answer.novelty == pytest.approx((score / 0.5 + score / 0.25) / 2)


def test_a_member_without_rules_is_refused(tmp_path: Path) -> None:
    folders = [write_member(tmp_path, "one", 0.5), write_member(tmp_path, "two", None)]
    write_tiny_ensemble(tmp_path, folders, (0.5, 0.5))
    models = [load_model(folder, TensorFlowEngine) for folder in folders]
    with pytest.raises(ManifestError, match=r"ensemble\.json: its member two@1 has no `decision`"):
        load_ensemble(tmp_path, models)
