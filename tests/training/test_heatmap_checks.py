"""The measures of heatmaps tell a right map from a wrong one."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

from app.domain.golden import Outputs
from app.domain.heatmap_checks import LEAST_IN_LESION, MOST_AT_BORDER
from app.domain.images import RgbImage
from app.domain.manifest import read_manifest
from app.inference.tensorflow_engine import TensorFlowEngine
from tests.conftest import REPOSITORY
from tests.tiny_artifact import write_tiny_artifact
from training.cli import app
from training.heatmap_checks import CENTRE, SCOPES, curve_areas, measure, shuffled_model
from training.heatmap_page import OUTPUT, SOURCE, failures, render
from training.prepare import Part, PreparedData
from training.readme import NAMES, newest_artifact


def looks_at_one_quadrant(images: RgbImage) -> Outputs:
    """A classifier of the contrast in the upper left quarter; blurred, it sees nothing there."""
    contrast = images[:, :112, :112].astype(np.float32).std(axis=(1, 2, 3)) / 80
    first = np.clip(contrast, 0.2, 1.0)
    rest = np.repeat((1 - first)[:, None] / 6, 6, axis=1)
    return {"probabilities": np.concatenate([first[:, None], rest], axis=1)}


def quadrant(rows: slice, columns: slice) -> npt.NDArray[np.float32]:
    values = np.zeros((7, 7), np.float32)
    values[rows, columns] = 1.0
    return values


def test_the_right_map_has_the_better_areas() -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (224, 224, 3), np.uint8)
    maps = {
        "right": quadrant(slice(0, 3), slice(0, 3)),
        "wrong": quadrant(slice(4, 7), slice(4, 7)),
        "centre": CENTRE,
    }
    areas = curve_areas(looks_at_one_quadrant, image, maps, random)
    clean, gone = areas["ends"]
    assert clean > 0.85
    assert gone == pytest.approx(0.2)
    assert areas["right"][0] < areas["centre"][0] < areas["wrong"][0]
    assert areas["right"][1] > areas["centre"][1] > areas["wrong"][1]
    # The right map's quarter is gone after a quarter of the pixels, and back after a quarter.
    assert areas["right"][0] < 0.45
    assert areas["right"][1] > 0.7


def test_a_flat_map_does_not_favour_a_side() -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (224, 224, 3), np.uint8)
    flat = {"flat": np.ones((7, 7), np.float32)}
    mirrored = curve_areas(looks_at_one_quadrant, image[::-1, ::-1], flat, random)["flat"]
    assert curve_areas(looks_at_one_quadrant, image, flat, random)["flat"] == pytest.approx(
        mirrored, abs=0.03
    )


@pytest.fixture(scope="module")
def artifact(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model "trained" on the data: its attention is the darkness, whatever it learnt."""
    return write_tiny_artifact(
        tmp_path_factory.mktemp("models"),
        "tiny",
        attention=True,
        seed=3,
        data_fingerprint=data.fingerprint,
        split_fingerprint=data.split_fingerprint,
    )


@pytest.fixture(scope="module")
def measured(artifact: Path, data: PreparedData) -> dict[str, Any]:
    found = measure([artifact], data, 1)
    again: dict[str, Any] = json.loads(json.dumps(found))
    assert again == found  # nothing in it that JSON has not
    return found


def test_a_map_that_no_weight_changes_fails_and_the_page_says_so(
    measured: dict[str, Any],
) -> None:
    methods = measured["models"]["Tiny, version 1"]["methods"]
    for scope in SCOPES:
        assert methods["attention"]["shuffled"][scope] == {"correlation": 1.0, "constant": 0.0}
        changed = methods["grad-cam"]["shuffled"][scope]
        assert changed["constant"] > 0 or changed["correlation"] < 0.999
    # A map that is turned into its opposite has changed.
    opposite = deepcopy(methods["attention"])
    opposite["shuffled"]["all"].update(correlation=-0.9, constant=0.0)
    assert not any("when all" in s for s in failures(measured, "attention", opposite))
    failed = failures(measured, "attention", methods["attention"])
    assert any("when all its weights are shuffled" in sentence for sentence in failed)
    page = render(measured)
    assert "rank correlation 1.00) when all its weights are shuffled" in page
    assert f"{measured['num_images']} images of the validation part" in page


def test_what_is_measured_is_the_validation_part(
    measured: dict[str, Any], data: PreparedData
) -> None:
    assert measured["num_images"] == len(data.rows(Part.VALIDATION))
    assert measured["every"] == 1
    model = measured["models"]["Tiny, version 1"]
    assert set(model["methods"]) == {"attention", "grad-cam"}
    for found in model["methods"].values():
        place = found["place"]
        assert 0 <= place["flagged"]["border-dominated"] <= 1
        low, middle, high = place["share_at_border"]
        assert 0 <= low <= middle <= high <= 1


def test_the_command_writes_the_figures_and_their_page(
    artifact: Path, data: PreparedData, tmp_path: Path
) -> None:
    output, page = tmp_path / "heatmaps.json", tmp_path / "heatmaps.md"
    options = ["--data", data.directory, "--every", "3", "--output", output, "--page", page]
    ran = CliRunner().invoke(app, [str(word) for word in ("heatmaps", artifact, *options)])
    assert ran.exit_code == 0, ran.output
    assert page.read_text(encoding="utf-8") == render(json.loads(output.read_text()))


def test_other_data_are_refused(tiny_models: Path, data: PreparedData) -> None:
    with pytest.raises(ValueError, match="other data or another split"):
        measure([tiny_models / "tiny_plain" / "2"], data, 1)


def test_shuffling_keeps_a_variables_values_and_nothing_else(
    artifact: Path, data: PreparedData
) -> None:
    images = data.images[:2]
    intact = TensorFlowEngine(artifact).predict(images)
    for ranks, same in (((3, 4), True), ((2,), False)):
        shuffled = shuffled_model(artifact, ranks, np.random.default_rng(0))(images)
        np.testing.assert_array_equal(shuffled["features"], intact["features"])
        assert np.array_equal(shuffled["logits"], intact["logits"]) is same


def test_the_committed_page_and_bounds_are_the_measured_ones() -> None:
    committed = json.loads((REPOSITORY / SOURCE).read_text(encoding="utf-8"))
    assert (REPOSITORY / OUTPUT).read_text(encoding="utf-8") == render(committed)
    assert committed["thresholds"] == {
        "most_at_border": MOST_AT_BORDER,
        "least_in_lesion": LEAST_IN_LESION,
    }
    assert committed["num_images"] >= 100
    default, _ = read_manifest(newest_artifact(NAMES[0]))
    assert f"{default.title}, version {default.version}" in committed["models"]
