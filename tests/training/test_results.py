"""`docs/results.md` holds what the committed JSON says, and nothing else."""

import json
from pathlib import Path

import pytest

from app.domain.manifest import read_manifest
from app.domain.measurements import Interval
from tests.conftest import REPOSITORY
from tests.tiny_artifact import tiny_metrics, write_tiny_artifact
from training.ablate import AblationRow, reduced
from training.recipes.catalog import RECIPES
from training.results import MODELS, OUTPUT, SOURCES, render


def test_the_committed_page_is_what_the_command_writes() -> None:
    expected = render(REPOSITORY / MODELS, REPOSITORY / SOURCES)
    assert (REPOSITORY / OUTPUT).read_text(encoding="utf-8") == expected


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_tiny_artifact(tmp_path / "models", "cnn_densenet121")
    write_tiny_artifact(tmp_path / "models", "cnn_densenet121", version=10)
    # What a killed export leaves, and one that failed.
    (tmp_path / "models" / ".export-x" / "cnn_densenet121" / "11").mkdir(parents=True)
    (tmp_path / "models" / "cnn_resnet50v2_attention").mkdir()
    return tmp_path / "models"


def test_missing_measurements_are_said_to_be_missing(models: Path, tmp_path: Path) -> None:
    page = render(models, tmp_path / "none")
    assert "not measured yet (`python -m training ablate`)" in page
    assert "| not trained |" in page
    assert "| not calibrated |" in page
    assert "Tiny, version 10 | 0.8622 | 0.5000 (0.4000 to 0.6000)" in page
    assert "version 1 |" not in page
    assert page.endswith("\n")
    assert not page.endswith("\n\n")


def test_measurements_are_shown_beside_the_papers(models: Path, tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    (sources / "paper-protocol").mkdir(parents=True)
    leaked = tiny_metrics().model_dump(mode="json")
    leaked["accuracy"] = {"value": 0.8711, "low": 0.85, "high": 0.89}
    (sources / "paper-protocol" / "cnn_densenet121.json").write_text(json.dumps(leaked))
    interval = Interval(value=0.61, low=0.6, high=0.62)
    row = AblationRow("no-attention", interval, interval, interval, 3, 600.0, "a machine")
    base = reduced(RECIPES["lite-efficientnet-lite0"], 96, 3, None)
    ablations = {"base": base.to_json(), "variants": [row.to_json()]}
    (sources / "ablations.json").write_text(json.dumps(ablations))
    times = {
        f"{path.parent.name}@{path.name}, {runtime}": {"decode": 1.0, "model": milliseconds}
        for path in models.glob("*/*/")
        for runtime, milliseconds in (("tensorflow", 87.4), ("openvino", 12.6))
    }
    stages = {"stages": {"hardware": "a machine", "results": times}}
    (sources / "bench.json").write_text(json.dumps(stages))
    found = {"accuracy": 0.712, "changed": 0.123, "median": 0.034, "p99": 0.456}
    tested = {"accuracy": 0.789, "disturbances": {"grain of 1 level": found}}
    robustness = {"num_images": 401, "every": 4, "models": {"Tiny, version 10": tested}}
    (sources / "robustness.json").write_text(json.dumps(robustness))
    page = render(models, sources)
    assert "| 87 / 13 | " in page
    assert "| 0.8711 (0.8500 to 0.8900) |" in page
    assert "| no-attention | 0.6100 (0.6000 to 0.6200) |" in page
    assert "one stage of 3 epochs at 96 pixels" in page
    assert "| Tiny, version 10 | none | 0.789 |" in page
    assert "| grain of 1 level | 0.712 | 0.123 | 0.034 | 0.456 |" in page
    assert "not measured" not in page.lower()


def test_every_committed_model_is_on_the_page() -> None:
    page = (REPOSITORY / OUTPUT).read_text(encoding="utf-8")
    for path in (REPOSITORY / MODELS).glob("*/*/manifest.json"):
        manifest, _ = read_manifest(path.parent)
        accuracy = manifest.metrics.accuracy
        assert f"{accuracy.value:.4f} ({accuracy.low:.4f} to {accuracy.high:.4f})" in page
