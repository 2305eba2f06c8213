"""`decide`, `ensemble` and `novelty`: from calibrated artifacts to rules that are served."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from app.domain.ensemble import ENSEMBLE_NAME, read_ensemble
from app.domain.labels import LABELS
from app.domain.manifest import read_manifest
from app.domain.rules import FEATURE_SPACE_NAME
from app.main import create_app
from app.settings import Settings
from tests.conftest import REPOSITORY
from tests.tiny_artifact import write_tiny_artifact
from tests.tiny_rules import tiny_calibration, tiny_point
from training.cli import app
from training.foreign import foreign_images
from training.novelty_page import OUTPUT, SOURCE, render
from training.prepare import PreparedData

NAMES = ("one", "two")
COMMIT = "1" * 40


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def models(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny artifacts with rules (version 2; version 1 has none) and their ensemble."""
    models = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(NAMES):
        folder = write_tiny_artifact(
            models,
            name,
            seed=seed,
            attention=name == "two",
            calibration=tiny_calibration(tiny_point(), tiny_point("melanoma", ["mel"])),
            data_fingerprint=data.fingerprint,
            split_fingerprint=data.split_fingerprint,
        )
        run("decide", folder, "--data", data.directory, "--commit", COMMIT)
    members = [models / name / "2" for name in NAMES]
    output = models / ENSEMBLE_NAME
    arguments = ("--data", data.directory, "--output", output, "--commit", COMMIT, "--version", 3)
    run("ensemble", *members, *arguments)
    return models


@pytest.mark.parametrize("name", NAMES)
def test_a_version_with_rules_has_the_same_weights(models: Path, name: str) -> None:
    before, _ = read_manifest(models / name / "1")
    after, _ = read_manifest(models / name / "2")
    assert after.decision is not None
    assert after.decision.git_commit == COMMIT
    assert after.decision.novelty.accepted_validation == pytest.approx(0.95, abs=0.05)
    assert [rule.coverage for rule in after.decision.prediction_sets] == [0.9, 0.95]
    changed = {FEATURE_SPACE_NAME, "MODEL_CARD.md"}
    assert {k: v for k, v in after.files.items() if k not in changed} == {
        k: v for k, v in before.files.items() if k not in changed
    }
    assert (after.calibration, after.metrics) == (before.calibration, before.metrics)
    card = (models / name / "2" / "MODEL_CARD.md").read_text()
    assert "## When an answer is reported" in card
    assert f"{after.decision.outcome.reported:.1%} of the images are reported" in card


def test_a_version_is_not_made_twice(models: Path, data: PreparedData) -> None:
    message = run("decide", models / "one/1", "--data", data.directory, "--commit", COMMIT, code=1)
    assert "a published version never changes" in message


def test_rules_need_calibration_and_the_same_split(tmp_path: Path, data: PreparedData) -> None:
    for calibration, expected in (
        (None, "was not calibrated"),
        (tiny_calibration(), "another split"),
    ):
        folder = write_tiny_artifact(tmp_path / expected, "tiny", calibration=calibration)
        message = run("decide", folder, "--data", data.directory, "--commit", COMMIT, code=1)
        assert expected in message
        assert not (folder.parent / "2").exists()


def test_an_ensemble_needs_members_with_rules(
    models: Path, data: PreparedData, tmp_path: Path
) -> None:
    for member in ("one/1", "two/2"):
        shutil.copytree(models / member, tmp_path / member)
    output = tmp_path / ENSEMBLE_NAME
    message = run(
        "ensemble",
        tmp_path / "one/1",
        tmp_path / "two/2",
        "--data",
        data.directory,
        "--output",
        output,
        "--commit",
        COMMIT,
        code=1,
    )
    assert "one@1 has no rules" in message
    assert not output.exists()


def test_the_ensemble_is_served_with_its_rules(models: Path, lesion_png: bytes) -> None:
    manifest = read_ensemble(models / ENSEMBLE_NAME)
    assert (manifest.version, manifest.git_commit) == (3, COMMIT)
    assert manifest.decision.max_disagreement is not None
    assert sum(member.weight for member in manifest.members) == pytest.approx(1.0, abs=1e-3)
    # Both scores are divided by their thresholds: an ordinary picture is below 1 in both.
    assert 0 < manifest.decision.novelty.threshold < 2
    with TestClient(create_app(Settings(models_dir=models, default_model="ensemble"))) as client:
        answer = client.post("/predict", files={"image": lesion_png}).json()
        card = client.get("/models/ensemble/card").text
    assert answer["model"]["version"] == 3
    assert answer["out_of_distribution"]["threshold"] == manifest.decision.novelty.threshold
    assert [found["coverage"] for found in answer["prediction_sets"]] == [0.9, 0.95]
    assert "| [one](one/2/MODEL_CARD.md) | 2 |" in card


def test_pictures_of_other_things_are_counted(
    models: Path, data: PreparedData, tmp_path: Path
) -> None:
    output, page = tmp_path / "novelty.json", tmp_path / "novelty.md"
    targets = [models / "one" / "2", models / ENSEMBLE_NAME]
    files = ("--output", output, "--page", page)
    run("novelty", *targets, "--data", data.directory, "--every", 1, *files)
    measured = json.loads(output.read_text())
    assert sum(measured["kinds"].values()) == measured["num_pictures"] == len(foreign_images())
    assert list(measured["models"]) == ["Tiny, version 2", "Ensemble of 2 models"]
    for found in measured["models"].values():
        total = sum(measured["kinds"][kind] * share for kind, share in found["by_kind"].items())
        assert total / measured["num_pictures"] == pytest.approx(found["refused"], abs=1e-3)
    methods = measured["methods"]["Tiny, version 2"]
    assert len(methods) == 5
    # What is shipped is one of the methods, with the same threshold.
    shipped = measured["models"]["Tiny, version 2"]["refused"]
    assert methods["residual outside of the principal components"] == pytest.approx(
        shipped, abs=0.02
    )
    assert page.read_text() == render(measured)


def test_foreign_pictures_are_model_inputs_and_the_same_every_time() -> None:
    pictures, again = foreign_images(), foreign_images()
    for one, other in zip(pictures, again, strict=True):
        assert one.image.shape == (224, 224, 3)
        assert one.image.dtype == np.uint8
        assert one.kind == other.kind
        np.testing.assert_array_equal(one.image, other.image)


@pytest.mark.skipif(not (REPOSITORY / SOURCE).exists(), reason="not measured yet")
def test_the_committed_page_is_made_from_the_committed_figures() -> None:
    measured = json.loads((REPOSITORY / SOURCE).read_text(encoding="utf-8"))
    assert (REPOSITORY / OUTPUT).read_text(encoding="utf-8") == render(measured)
    assert set(LABELS).isdisjoint(measured["kinds"])
