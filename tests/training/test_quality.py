"""What is measured of the quality checks is what was done, and the page says it."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from app.domain.images import RgbImage
from app.domain.lesion import find_lesion
from app.domain.quality import ACCEPTED, ISSUES, QualityIssue
from app.domain.quality_scores import measure_quality
from tests.conftest import REPOSITORY
from training.cli import app
from training.degradations import DEGRADATIONS
from training.prepare import Part, PreparedData
from training.quality import EDGE_PERCENT, SEED, measure
from training.quality_page import OUTPUT, SOURCE, render
from training.synthetic import draw_lesion


@pytest.fixture(scope="module")
def image() -> RgbImage:
    return draw_lesion(3, 4, 224, 224)


@pytest.fixture(scope="module")
def measured(data: PreparedData) -> dict[str, Any]:
    seen: list[tuple[int, int]] = []
    found = measure(data, 9, report=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] >= seen[0][0]
    again: dict[str, Any] = json.loads(json.dumps(found))
    assert again == found  # nothing in it that JSON has not
    return found


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_a_degradation_is_repeatable_and_changes_the_picture(image: RgbImage, name: str) -> None:
    before, lesion = image.copy(), find_lesion(image)
    degrade = DEGRADATIONS[name].degrade
    first, second = (degrade(image, lesion, np.random.default_rng(SEED)) for _ in range(2))
    np.testing.assert_array_equal(image, before)
    if first is None:
        assert second is None
        assert name == "skin beside the lesion, mirrored"
        return
    assert second is not None
    np.testing.assert_array_equal(first, second)
    assert (first.shape, first.dtype) == (image.shape, image.dtype)
    assert (first != image).any()


def test_what_cannot_be_degraded_is_left_out(image: RgbImage) -> None:
    everywhere, nowhere = np.ones((224, 224), np.bool_), np.zeros((224, 224), np.bool_)
    random = np.random.default_rng(SEED)
    assert (
        DEGRADATIONS["skin beside the lesion, mirrored"].degrade(image, everywhere, random) is None
    )
    assert DEGRADATIONS["lesion's middle at an edge"].degrade(image, nowhere, random) is None


@pytest.mark.parametrize("name", ["lesion's middle at an edge", "lesion's middle at a corner"])
def test_a_cut_lesion_lies_at_the_border(name: str) -> None:
    picture = np.full((224, 224, 3), 200, np.uint8)
    cv2.circle(picture, (112, 112), 20, (90, 60, 50), -1)
    cut = DEGRADATIONS[name].degrade(picture, picture[..., 0] < 150, np.random.default_rng(1))
    assert cut is not None
    rows, columns = np.nonzero(cut[..., 0] < 150)
    far = np.abs(np.array([rows.mean(), columns.mean()]) - 111.5) > 60
    assert far.sum() == (2 if "corner" in name else 1)


def test_every_issue_but_resolution_is_degraded_for() -> None:
    tried = {issue for degradation in DEGRADATIONS.values() for issue in degradation.expected}
    assert tried == set(QualityIssue) - {QualityIssue.LOW_RESOLUTION}
    assert set(EDGE_PERCENT) == set(ACCEPTED) - {"shorter_side"} == set(ISSUES) - {"shorter_side"}


def test_ranges_are_of_the_training_part(measured: dict[str, Any], data: PreparedData) -> None:
    train = data.rows(Part.TRAIN)
    assert measured["num_train"] == len(train)
    assert measured["num_validation"] == len(data.rows(Part.VALIDATION))
    values = [measure_quality(data.images[row], 224, 224)["brightness"] for row in train]
    low, high = measured["scores"]["brightness"]["accepted"]
    assert low == pytest.approx(np.percentile(np.array(values, float), 0.5), rel=0.005)
    assert high == pytest.approx(np.percentile(np.array(values, float), 99.5), rel=0.005)
    assert measured["scores"]["shorter_side"]["accepted"] == [224.0, None]


def test_shares_are_counted(measured: dict[str, Any]) -> None:
    flagged = measured["flagged"]
    assert max(flagged["by_issue"].values()) <= flagged["any"] <= sum(flagged["by_issue"].values())
    assert flagged["by_issue"]["low-resolution"] == 0
    assert set(measured["degradations"]) == set(DEGRADATIONS)
    for found in measured["degradations"].values():
        if found["num_images"]:
            assert 0 <= found["found"] <= found["any"] <= 1
    assert measured["degradations"]["values x 0.3"]["found"] == 1


def test_the_page_says_what_is_not_found(measured: dict[str, Any]) -> None:
    page = render(measured)
    for name, found in measured["degradations"].items():
        assert f"| {name} |" in page
        named = f"{name} ({100 * (found['found'] or 0):.0f} %)" in page
        assert named == (found["found"] is not None and found["found"] < 0.9)
    assert "darker skin" in page


def test_published_masks_are_used_and_compared_with(data: PreparedData, tmp_path: Path) -> None:
    for row in data.rows(Part.VALIDATION)[::9]:
        mask = cv2.resize(find_lesion(data.images[row]).astype(np.uint8) * 255, (200, 150))
        path = tmp_path / f"{data.table['image_id'].iloc[row]}_segmentation.png"
        cv2.imwrite(str(path), mask)
    found = measure(data, 9, tmp_path)
    assert found["masks"] == "published"
    assert found["lesion"]["median_jaccard"] > 0.95
    assert "Tschandl" in render(found)
    path.unlink()
    with pytest.raises(ValueError, match="is missing or is no image"):
        measure(data, 9, tmp_path)


def test_the_command_writes_the_figures_and_their_page(data: PreparedData, tmp_path: Path) -> None:
    output, page = tmp_path / "quality.json", tmp_path / "quality.md"
    options = ["--data", data.directory, "--every", "9", "--output", output, "--page", page]
    ran = CliRunner().invoke(app, [str(word) for word in ("quality", *options)])
    assert ran.exit_code == 0, ran.output
    assert page.read_text(encoding="utf-8") == render(json.loads(output.read_text()))


def test_the_committed_page_and_ranges_are_the_measured_ones() -> None:
    committed = json.loads((REPOSITORY / SOURCE).read_text(encoding="utf-8"))
    assert (REPOSITORY / OUTPUT).read_text(encoding="utf-8") == render(committed)
    accepted = {name: tuple(found["accepted"]) for name, found in committed["scores"].items()}
    assert accepted == dict(ACCEPTED)
    assert committed["num_train"] > 6000
    assert committed["num_degraded"] >= 400
    assert committed["flagged"]["any"] < 0.08
