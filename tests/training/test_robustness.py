"""Disturbances are small and what they do is counted rightly."""

from pathlib import Path

import numpy as np
import pytest

from app.domain.images import RgbImage
from app.inference.tensorflow_engine import TensorFlowEngine
from tests.conftest import PLAIN_MODEL
from tests.tiny_artifact import write_tiny_artifact
from tests.tiny_rules import tiny_calibration, tiny_point, tiny_rules, write_tiny_ensemble
from training.prepare import Part, PreparedData
from training.robustness import DISTURBANCES, SEED, measure, write
from training.synthetic import draw_lesion


@pytest.fixture(scope="module")
def image() -> RgbImage:
    return draw_lesion(3, 4, 224, 224)


@pytest.mark.parametrize("name", DISTURBANCES)
def test_a_disturbance_is_small_and_repeatable(image: RgbImage, name: str) -> None:
    first, second = (DISTURBANCES[name](image, np.random.default_rng(SEED)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    assert (first != image).any()
    compared = image[:, ::-1] if name == "mirrored" else image
    assert np.abs(first.astype(int) - compared).mean() < 13


def test_grain_has_the_levels_of_its_name(image: RgbImage) -> None:
    for levels in (1, 4):
        disturb = DISTURBANCES[f"grain of {levels} level{'s' * (levels > 1)}"]
        noise = disturb(image, np.random.default_rng(SEED)).astype(int) - image
        assert (noise.min(), noise.max()) == (-levels, levels)
        assert abs(noise.mean()) < 0.1


def test_models_of_another_split_are_not_measured(tiny_models: Path, data: PreparedData) -> None:
    with pytest.raises(ValueError, match="another split"):
        measure([tiny_models / PLAIN_MODEL / "2"], data, 2, lambda *_: None)


def test_answers_are_compared_with_the_undisturbed_ones(data: PreparedData, tmp_path: Path) -> None:
    members = [
        write_tiny_artifact(
            tmp_path,
            name,
            attention=name == "two",
            seed=seed,
            split_fingerprint=data.split_fingerprint,
            data_fingerprint=data.fingerprint,
            calibration=tiny_calibration(tiny_point()),
            decision=tiny_rules(),
        )
        for seed, name in enumerate(("one", "two"))
    ]
    write_tiny_ensemble(tmp_path, members, (0.5, 0.5))
    targets = [members[0], tmp_path / "ensemble.json"]
    seen: list[tuple[int, int]] = []
    measured = measure(targets, data, 2, lambda done, total: seen.append((done, total)))
    rows = data.rows(Part.VALIDATION)[::2]
    assert (measured["num_images"], measured["every"]) == (len(rows), 2)
    assert len(rows) > 3
    assert len(measured["models"]) == 2
    assert seen[-1][0] == seen[-1][1] == len(rows) * 2 * (1 + len(DISTURBANCES))

    engine = TensorFlowEngine(targets[0])
    calm = engine.predict(data.images[rows])["probabilities"]
    moved = engine.predict(data.images[rows][:, :, ::-1])["probabilities"]
    change = np.abs(calm - moved).max(axis=1)
    model = next(iter(measured["models"].values()))
    labels = data.labels(rows)
    assert model["accuracy"] == pytest.approx((calm.argmax(1) == labels).mean(), abs=1e-4)
    assert model["disturbances"]["mirrored"] == pytest.approx(
        {
            "accuracy": (moved.argmax(1) == labels).mean(),
            "changed": (moved.argmax(1) != calm.argmax(1)).mean(),
            "median": np.median(change),
            "p99": np.percentile(change, 99),
        },
        abs=1e-4,
    )
    write(measured, tmp_path / "new" / "robustness.json")
    assert (tmp_path / "new" / "robustness.json").read_text().endswith("}\n")
