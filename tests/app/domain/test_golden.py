"""What outputs a model owes, whatever computes them."""

from pathlib import Path

import numpy as np
import pytest

from app.domain.errors import GoldenExampleError
from app.domain.golden import check_golden, check_outputs, golden_input
from app.domain.manifest import read_manifest
from tests.conftest import PLAIN_MODEL


def outputs(probabilities: list[float]) -> dict[str, np.ndarray]:
    row = np.array([probabilities], np.float32)
    return {
        "logits": np.log(row),
        "probabilities": row,
        "class_activation": np.zeros((1, 7, 7, 7), np.float32),
        "features": np.zeros((1, 3), np.float32),
        "attention": np.zeros((1, 7, 7), np.float32),
    }


EVEN = [1 / 7] * 7


def test_complete_outputs_pass() -> None:
    check_outputs(outputs(EVEN), 1, has_attention=True)


@pytest.mark.parametrize("name", list(outputs(EVEN)))
def test_missing_misshapen_or_infinite_output_is_named(name: str) -> None:
    good = outputs(EVEN)
    with pytest.raises(GoldenExampleError, match=name):
        check_outputs({k: v for k, v in good.items() if k != name}, 1, has_attention=True)
    with pytest.raises(GoldenExampleError, match=name):
        check_outputs({**good, name: good[name][:, None]}, 1, has_attention=True)
    with pytest.raises(GoldenExampleError, match=name):
        check_outputs({**good, name: np.full_like(good[name], np.nan)}, 1, has_attention=True)


def test_attention_that_the_manifest_denies_is_refused() -> None:
    with pytest.raises(GoldenExampleError, match="manifest promises"):
        check_outputs(outputs(EVEN), 1, has_attention=False)


def test_probabilities_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(GoldenExampleError, match="sum to"):
        check_outputs(outputs([0.2] * 7), 1, has_attention=True)


def test_golden_answer_must_be_reproduced(tiny_models: Path) -> None:
    artifact = tiny_models / PLAIN_MODEL / "1"
    manifest, _ = read_manifest(artifact)
    expected = manifest.golden_example.probabilities
    assert golden_input(artifact, manifest).shape == (1, 224, 224, 3)
    check_golden(artifact, manifest, without_attention(expected), "tensorflow")
    with pytest.raises(GoldenExampleError, match=r"golden_input\.png"):
        check_golden(artifact, manifest, without_attention(expected[::-1]), "tensorflow")


def without_attention(probabilities: list[float]) -> dict[str, np.ndarray]:
    return {k: v for k, v in outputs(probabilities).items() if k != "attention"}
