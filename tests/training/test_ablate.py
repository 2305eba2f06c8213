"""Ablations vary one thing each, are trained once, and never touch the test part."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.domain.measurements import Metrics
from tests.tiny_artifact import tiny_metrics, write_tiny_artifact
from tests.training.tiny_recipe import TINY
from training import ablate as ablations
from training.cli import app
from training.config import Recipe, Stage
from training.evaluate import evaluate, measure_as_trained
from training.export import ExportError, export
from training.fit import fit
from training.prepare import Part, PreparedData
from training.recipes.catalog import RECIPES
from training.run_folder import RunError, RunResult, claim, read_result, write_result

LITE = ablations.reduced(RECIPES["lite-efficientnet-lite0"], 64, 2, 5)


def differences(one: Recipe, other: Recipe) -> set[str]:
    values, others = one.to_json(), other.to_json()
    return {name for name in values if values[name] != others[name]}


def test_a_reduced_recipe_is_one_short_stage_at_the_first_rate() -> None:
    recipe = RECIPES["lite-efficientnet-lite0"]
    assert LITE.stages == (Stage(64, 2, recipe.stages[0].learning_rate, 5),)
    assert differences(LITE, recipe) == {"stages"}


def test_every_variant_differs_from_the_base_in_its_own_fields() -> None:
    base = ablations.reduced(RECIPES["lite-efficientnet-lite0"], 224, 2, None)
    made = ablations.variants(base, "models/tiny/1")
    assert tuple(made) == ablations.VARIANTS
    assert {name: differences(recipe, base) for name, recipe in made.items()} == {
        "base": set(),
        "distilled": {"teacher", "distillation_weight", "distillation_temperature"},
        "flatten": {"cnn_reduction"},
        "metadata": {"metadata"},
        "no-attention": {"attention"},
        "no-augmentation": {"augmentation"},
        "no-cnn-path": {"cnn_path"},
        "no-imagenet": {"backbone_weights", "frozen_layers"},
    }


def test_what_a_recipe_lacks_is_no_variant() -> None:
    densenet = ablations.reduced(RECIPES["scratch-densenet121"], 64, 1, None)
    made = ablations.variants(densenet)
    assert list(made) == ["base", "metadata", "no-augmentation", "no-cnn-path"]
    assert "base" in ablations.variants(replace(densenet, metadata=True))
    assert "metadata" not in ablations.variants(replace(densenet, metadata=True))
    assert list(ablations.choose(made, ["no-cnn-path", "base"])) == ["base", "no-cnn-path"]
    assert ablations.choose(made, ()) == made
    with pytest.raises(ValueError, match="no variant flatten, no-attention"):
        ablations.choose(made, ["no-attention", "flatten", "base"])


class Trainer:
    """Stands in for training: notes whom it trained, and can die before a variant."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trained: list[str] = []
        self.dies_at = ""
        monkeypatch.setattr(ablations, "fit", self.fit)
        monkeypatch.setattr(ablations, "measure_as_trained", self.measure)

    def fit(self, recipe: Recipe, data: PreparedData, run: Path, **_options: Any) -> None:
        if run.name == self.dies_at:
            raise KeyboardInterrupt
        claim(run, recipe, data)
        self.trained.append(run.name)
        write_result(run, RunResult(10, 2, 1, 0.5, 12.5, "nothing"))

    def measure(self, _run: Path, _data: PreparedData, part: Part) -> Metrics:
        assert part is Part.VALIDATION
        return tiny_metrics()


def test_a_finished_variant_is_not_trained_again(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(monkeypatch)
    made = ablations.variants(LITE)
    trainer.dies_at = "no-attention"
    with pytest.raises(KeyboardInterrupt):
        ablations.ablate(made, LITE, data, tmp_path / "runs")
    assert trainer.trained == ["base", "metadata"]
    path = tmp_path / "runs" / "ablations.json"
    assert [line["variant"] for line in json.loads(path.read_text())["variants"]] == [
        "base",
        "metadata",
    ]

    # As of a version before this field.
    values = json.loads(path.read_text())
    del values["base"]["hint_weight"]
    path.write_text(json.dumps(values))

    trainer.dies_at = ""
    rows = ablations.ablate(made, LITE, data, tmp_path / "runs")
    assert trainer.trained == list(made) == [row.variant for row in rows]
    text = path.read_text()
    assert ablations.ablate(made, LITE, data, tmp_path / "runs") == rows
    assert trainer.trained == list(made)
    assert path.read_text() == text

    # The order in which variants were trained does not show.
    one_by_one = tmp_path / "one-by-one"
    for name in reversed(made):
        ablations.ablate({name: made[name]}, LITE, data, one_by_one)
    assert (one_by_one / "ablations.json").read_text() == text
    first = json.loads(text)["variants"][0]
    assert first == {
        "variant": "base",
        **dict.fromkeys(
            ("accuracy", "balanced_accuracy", "macro_f1"), {"value": 0.5, "low": 0.4, "high": 0.6}
        ),
        "epochs": 2,
        "seconds": 12.5,
        "hardware": "nothing",
    }


def test_rows_of_another_base_or_teacher_are_not_taken(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trainer(monkeypatch)
    teacher = write_tiny_artifact(
        tmp_path / "models", "tiny", split_fingerprint=data.split_fingerprint
    )
    made = ablations.choose(ablations.variants(LITE, str(teacher)), ["distilled"])
    ablations.ablate(made, LITE, data, tmp_path / "runs")
    other = replace(LITE, seed=2)
    with pytest.raises(RunError, match="another recipe or dataset"):
        ablations.ablate({"no-attention": other}, other, data, tmp_path / "runs")
    manifest = teacher / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(RunError, match="teacher"):
        ablations.ablate(made, LITE, data, tmp_path / "runs")


@pytest.mark.slow
@pytest.mark.usefixtures("short_lite")
def test_a_metadata_hybrid_is_measured_as_it_was_validated_and_never_exported(
    data: PreparedData, tmp_path: Path
) -> None:
    recipe = replace(TINY, metadata=True, stages=(Stage(32, 1, 1e-2, 4),), batch_size=8)
    run = tmp_path / "run"
    fit(recipe, data, run)
    metrics = measure_as_trained(run, data, Part.VALIDATION)
    accuracy = read_result(run).best_validation_accuracy
    assert metrics.part == "validation"
    assert metrics.accuracy.value == pytest.approx(accuracy, abs=1e-4)
    with pytest.raises(ExportError, match="metadata"):
        export(run, tmp_path / "models", 1, git_commit="0" * 40)
    with pytest.raises(RunError, match="image alone"):
        evaluate(run, data, Part.VALIDATION, lambda *_: None)


@pytest.mark.slow
def test_one_command_trains_and_compares(data: PreparedData, tmp_path: Path) -> None:
    teacher = write_tiny_artifact(
        tmp_path / "models", "tiny", split_fingerprint=data.split_fingerprint
    )

    def run(*more: str) -> Result:
        command = ["ablate", "lite-efficientnet-lite0"]
        command += ["--data", str(data.directory), "--runs", str(tmp_path / "runs")]
        command += ["--image-size", "32", "--max-epochs", "1", "--steps-per-epoch", "1", *more]
        return CliRunner().invoke(app, command)

    chosen = ("--variants", "distilled", "--teacher", str(teacher))
    done = run(*chosen, "--variants", "no-imagenet")
    assert done.exit_code == 0, done.output
    path = tmp_path / "runs" / "ablations.json"
    lines = json.loads(path.read_text())["variants"]
    assert [line["variant"] for line in lines] == ["distilled", "no-imagenet"]
    for line in lines:
        accuracy = read_result(tmp_path / "runs" / line["variant"]).best_validation_accuracy
        assert line["accuracy"]["value"] == pytest.approx(accuracy, abs=1e-4)
        assert f"{line['variant']}: accuracy {line['accuracy']['value']:.4f}" in done.stdout
    recipe = json.loads((tmp_path / "runs" / "distilled" / "recipe.json").read_text())["recipe"]
    assert (recipe["distillation_weight"], recipe["distillation_temperature"]) == (0.5, 2.0)
    refused = run("--variants", "flatten")
    assert refused.exit_code == 1
    assert isinstance(refused.exception, SystemExit)
    assert "no variant flatten" in " ".join(refused.stderr.split())
