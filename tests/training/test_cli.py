"""What the options of `fit` make of a recipe."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from training.cli import app
from training.commands.learning import override
from training.recipes.catalog import RECIPES

PAPER = RECIPES["paper-densenet121"]


def test_a_teacher_alone_brings_a_weight_and_a_temperature() -> None:
    recipe = override(PAPER, None, None, teacher="models/x/1")
    assert (recipe.distillation_weight, recipe.distillation_temperature) == (0.5, 2.0)
    recipe = override(PAPER, None, None, teacher="models/x/1", distillation_weight=0.9)
    assert (recipe.distillation_weight, recipe.distillation_temperature) == (0.9, 2.0)
    again = override(recipe, None, None, teacher="models/y/1")
    assert (again.teacher, again.distillation_weight) == ("models/y/1", 0.9)


def test_a_weight_needs_a_teacher() -> None:
    with pytest.raises(ValueError, match="needs a teacher"):
        override(PAPER, None, None, distillation_weight=0.5)


def test_an_initial_model_replaces_the_backbones_weights_and_keeps_layers_frozen() -> None:
    recipe = override(PAPER, None, None, initial_model="models/x/1")
    assert (recipe.backbone_weights, recipe.frozen_layers) == ("none", 100)
    recipe = override(PAPER, None, None, backbone_weights="none")
    assert (recipe.backbone_weights, recipe.frozen_layers) == ("none", 0)


def test_carried_over_weights_are_written_in_keras_format_from_the_known_package_alone(
    tmp_path: Path,
) -> None:
    package = tmp_path / "package.tgz"
    package.write_bytes(b"not it")

    def refusal(*options: str) -> str:
        result = CliRunner().invoke(app, ["resnet50-weights", *options])
        assert result.exit_code == 1
        return result.output

    data = ("--data", str(tmp_path))
    assert "must end in .weights.h5" in refusal(*data, "--output", str(tmp_path / "w.npz"))
    output = tmp_path / "w.weights.h5"
    assert "SHA-256 differs" in refusal(*data, "--package", str(package), "--output", str(output))
    assert not output.exists()
