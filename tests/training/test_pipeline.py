"""prepare -> fit -> evaluate -> export -> verify -> serve, by the commands of the README."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from app.main import create_app
from app.settings import Settings
from tests.conftest import REPOSITORY, SHARED
from training.cards import model_card
from training.cli import app
from training.prepare import Part, load_prepared
from training.run_folder import read_history

pytestmark = pytest.mark.slow

COMMIT = "0" * 40


def run(*arguments: str | Path | int, code: int = 0) -> str:
    """What a command prints, in this process: its start would load TensorFlow each time."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    assert code == 0 or isinstance(done.exception, SystemExit), done.exception  # a clear refusal
    return done.output


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, synthetic_dataset: tuple[Path, Path]) -> Path:
    """A prepared dataset: real images where they are at hand, synthetic lesions elsewhere."""
    root = tmp_path_factory.mktemp("dataset")
    images, metadata = synthetic_dataset
    real = SHARED / "ham10000"
    if (real / "HAM10000_metadata.csv").exists():
        table = pd.read_csv(real / "HAM10000_metadata.csv")
        subset = table.groupby("dx").head(14)
        images, metadata = root / "images", root / "HAM10000_metadata.csv"
        images.mkdir()
        for image_id in subset["image_id"]:
            shutil.copy(real / "images" / f"{image_id}.jpg", images)
        subset.to_csv(metadata, index=False)
    output = root / "prepared"
    run("prepare", "--images", images, "--metadata", metadata, "--output", output)
    return output


OPTIONS = ("--image-size", 32, "--max-epochs", 2, "--batch-size", 8)
FLOAT32 = ("--precision", "float32")


@pytest.fixture(scope="module")
def artifacts(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both hybrids, trained for two short epochs, exported; one in bfloat16, one in float32."""
    root = tmp_path_factory.mktemp("artifacts")
    for name, precision in (("scratch-densenet121", FLOAT32), ("scratch-resnet50v2-attention", ())):
        folder = root / name
        run("fit", name, "--data", dataset, "--run", folder, *OPTIONS, *precision)
        run("calibrate", folder, "--data", dataset)
        run("evaluate", folder, "--data", dataset, "--part", "test")
        run("export", folder, "--models", root / "models", "--commit", COMMIT)
    return root


def test_the_service_serves_what_was_trained(artifacts: Path, lesion_png: bytes) -> None:
    settings = Settings(models_dir=artifacts / "models")
    with TestClient(create_app(settings)) as client:
        for name, method in (
            ("cnn_densenet121", "grad-cam"),
            ("cnn_resnet50v2_attention", "attention"),
        ):
            body = client.post(
                "/predict", params={"model": name}, files={"image": lesion_png}
            ).json()
            assert sum(body["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
            assert body["heatmap"]["method"] == method
            detail = client.get(f"/models/{name}").json()
            measured = json.loads(
                (artifacts / _run_of(name) / "evaluation-test" / "metrics.json").read_text()
            )
            assert detail["metrics"] == measured


def _run_of(name: str) -> str:
    return name.replace("cnn_", "scratch-").replace("_", "-")


def test_evaluation_leaves_figures_and_a_report(artifacts: Path, dataset: Path) -> None:
    folder = artifacts / "scratch-resnet50v2-attention" / "evaluation-test"
    for name in (
        "confusion_matrix.png",
        "curves.png",
        "failures.png",
        "heatmaps.png",
        "reliability.png",
    ):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
        assert name in (folder / "report.md").read_text()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (
        f"| accuracy | {metrics['accuracy']['value']:.4f} |" in (folder / "report.md").read_text()
    )
    assert sum(map(sum, metrics["confusion_matrix"])) == metrics["num_images"]
    calibration = json.loads((folder.parent / "calibration.json").read_text())
    prepared = load_prepared(dataset)
    assert calibration["num_images"] == len(prepared.rows(Part.VALIDATION))
    assert metrics["num_images"] == len(prepared.rows(Part.TEST)) != calibration["num_images"]
    wrong = metrics["num_images"] - sum(row[i] for i, row in enumerate(metrics["confusion_matrix"]))
    failures = metrics["failures"]
    assert len(failures) == min(8, wrong)
    assert all(f["truth"] != f["answer"] for f in failures)
    certainty = [f["probability"] for f in failures]
    assert certainty == sorted(certainty, reverse=True)
    assert [(p["target"], p["required_sensitivity"]) for p in metrics["operating_points"]] == [
        ("melanoma", 0.9),
        ("melanoma", 0.95),
        ("malignancy", 0.9),
        ("malignancy", 0.95),
    ]


def test_the_mean_over_symmetries_is_measured_apart(artifacts: Path, dataset: Path) -> None:
    folder = artifacts / "scratch-densenet121"
    run("evaluate", folder, "--data", dataset)
    plain = (folder / "evaluation-validation" / "metrics.json").read_bytes()
    run("evaluate", folder, "--data", dataset, "--augmented")
    assert (folder / "evaluation-validation" / "metrics.json").read_bytes() == plain
    averaged = json.loads((folder / "evaluation-validation-augmented" / "metrics.json").read_text())
    assert averaged["num_images"] == json.loads(plain)["num_images"]


def test_order_of_calibration_and_test_part_is_enforced(artifacts: Path, dataset: Path) -> None:
    folder = artifacts / "scratch-densenet121"
    assert "cannot be calibrated any more" in " ".join(
        run("calibrate", folder, "--data", dataset, code=1).split()
    )
    measured = folder / "evaluation-test"
    looked_at = measured.rename(folder / "evaluation-test-augmented")
    try:
        output = run("calibrate", folder, "--data", dataset, code=1)
        assert "cannot be calibrated any more" in " ".join(output.split())
    finally:
        looked_at.rename(measured)
    hidden = (folder / "calibration.json").rename(folder / "hidden.json")
    try:
        output = run("evaluate", folder, "--data", dataset, "--part", "test", code=1)
        assert "before the test part" in " ".join(output.split())
    finally:
        hidden.rename(folder / "calibration.json")


def test_a_finished_run_stays_as_it_was(artifacts: Path, dataset: Path) -> None:
    folder = artifacts / "scratch-densenet121"
    before = {path.name: path.read_bytes() for path in folder.glob("*.json*")}
    run("fit", "scratch-densenet121", "--data", dataset, "--run", folder, *OPTIONS, *FLOAT32)
    assert {path.name: path.read_bytes() for path in folder.glob("*.json*")} == before


def test_history_has_a_line_an_epoch(artifacts: Path) -> None:
    history = read_history(artifacts / "scratch-densenet121")
    assert [line["epoch"] for line in history] == [0, 1]
    assert {"loss", "validation_loss", "validation_accuracy", "learning_rate"} <= set(history[0])
    assert list((artifacts / "scratch-densenet121" / "tensorboard").glob("events*"))


def test_model_card_tells_the_manifests_truth(artifacts: Path) -> None:
    from app.domain.manifest import read_manifest

    folder = artifacts / "models" / "cnn_densenet121" / "1"
    manifest, _ = read_manifest(folder)
    card = (folder / "MODEL_CARD.md").read_text()
    assert card == model_card(manifest.model_copy(update={"files": {}}))
    for words in (
        "Not a medical device",
        "CC BY-NC",
        "calibrated by one temperature",
        manifest.git_commit,
    ):
        assert words in card


def test_verify_accepts_the_artifact_and_names_what_was_changed(
    artifacts: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cnn_densenet121" / "1"
    shutil.copytree(artifacts / "models" / "cnn_densenet121" / "1", folder)
    assert "intact" in run("verify", folder)
    (folder / "MODEL_CARD.md").write_text("better than it is")
    assert "MODEL_CARD.md" in " ".join(run("verify", folder, code=1).split())


def test_a_published_version_is_not_overwritten(artifacts: Path) -> None:
    run_folder = artifacts / "scratch-densenet121"
    output = run("export", run_folder, "--models", artifacts / "models", "--commit", COMMIT, code=1)
    assert "never changes" in output


def test_commands_refuse_what_does_not_fit(artifacts: Path, dataset: Path, tmp_path: Path) -> None:
    other = artifacts / "scratch-densenet121"
    changed = (*FLOAT32, "--image-size", 64, "--max-epochs", 2, "--batch-size", 8)
    text = run("fit", "scratch-densenet121", "--data", dataset, "--run", other, *changed, code=1)
    assert "another recipe" in " ".join(text.split())
    text = run(
        "fit", "paper-densenet121", "--data", dataset, "--run", tmp_path / "p", *OPTIONS, code=1
    )
    assert "--protocol paper" in " ".join(text.split())
    assert "no run folder" in run("evaluate", tmp_path, "--data", dataset, code=1)


def test_a_killed_run_resumes_and_takes_the_same_number_of_steps(
    dataset: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    arguments = [
        str(argument)
        for argument in (
            ("fit", "lite-efficientnet-lite0", "--data", dataset, "--run", folder)
            + OPTIONS
            + ("--checkpoint-seconds", 0)
        )
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "training", *arguments],
        cwd=REPOSITORY,
        stderr=subprocess.DEVNULL,
        env=os.environ,
    )
    state = folder / "state.json"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if state.exists() and json.loads(state.read_text())["progress"]["step"] >= 2:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    killed_at = json.loads(state.read_text())["progress"]
    assert killed_at["step"] >= 2
    assert not (folder / "result.json").exists()

    run(*arguments)
    result = json.loads((folder / "result.json").read_text())
    steps_of_an_epoch = math.ceil(len(load_prepared(dataset).rows(Part.TRAIN)) / 8)
    assert result["steps"] == 2 * steps_of_an_epoch > killed_at["step"]
    assert result["epochs"] == 2
    assert [line["epoch"] for line in read_history(folder)] == [0, 1]
    assert len(list(folder.glob("state-*"))) == 1
