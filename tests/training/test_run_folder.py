"""A run is bound to its very split, and keeps what later processes need."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from app.domain.errors import ManifestError
from tests.tiny_artifact import write_tiny_artifact
from training.config import Protocol
from training.prepare import PreparedData, prepare
from training.recipes.catalog import RECIPES
from training.run_folder import (
    RunError,
    check_data,
    claim,
    read_processes,
    read_run_owner,
    record_process,
)

RECIPE = RECIPES["scratch-densenet121"]


def prepared(
    dataset: tuple[Path, Path], output: Path, protocol: Protocol, seed: int
) -> PreparedData:
    root, metadata = dataset
    return prepare([root], metadata, output, protocol, seed, lambda _done, _total: None)


def test_figures_on_another_split_of_the_same_images_are_refused(
    synthetic_dataset: tuple[Path, Path], tmp_path: Path
) -> None:
    own = prepared(synthetic_dataset, tmp_path / "own", Protocol.LESION, 1)
    run = tmp_path / "run"
    claim(run, RECIPE, own)
    assert check_data(run, own).recipe == RECIPE
    for name, protocol, seed in (("paper", Protocol.PAPER, 1), ("seed", Protocol.LESION, 2)):
        other = prepared(synthetic_dataset, tmp_path / name, protocol, seed)
        assert other.fingerprint == own.fingerprint
        with pytest.raises(RunError, match="measured on training images"):
            check_data(run, other)
        with pytest.raises(RunError):
            claim(run, RECIPE, other)


@pytest.mark.parametrize("field", ["teacher", "initial_model"])
def test_a_run_does_not_go_on_with_another_artifact_in_the_same_folder(
    synthetic_dataset: tuple[Path, Path], tmp_path: Path, field: str
) -> None:
    data = prepared(synthetic_dataset, tmp_path / "data", Protocol.LESION, 1)
    artifact = tmp_path / "models" / "tiny" / "1"
    recipe = (
        replace(RECIPE, teacher=str(artifact), distillation_weight=0.5)
        if field == "teacher"
        else replace(RECIPE, initial_model=str(artifact))
    )
    run = tmp_path / "run"
    with pytest.raises(ManifestError, match="cannot be read"):
        claim(run, recipe, data)

    write_tiny_artifact(tmp_path / "models", "tiny")
    with pytest.raises(RunError, match="another split"):
        claim(run, recipe, data)
    assert not run.exists()

    shutil.rmtree(artifact)
    write_tiny_artifact(
        tmp_path / "models", "tiny", seed=1, split_fingerprint=data.split_fingerprint
    )
    claim(run, recipe, data)
    claim(run, recipe, data)
    shutil.rmtree(artifact)
    write_tiny_artifact(
        tmp_path / "models", "tiny", seed=2, split_fingerprint=data.split_fingerprint
    )
    with pytest.raises(RunError, match="another"):
        claim(run, recipe, data)


def test_a_run_folder_from_before_these_fields_is_still_its_recipes(
    synthetic_dataset: tuple[Path, Path], tmp_path: Path
) -> None:
    data = prepared(synthetic_dataset, tmp_path / "data", Protocol.LESION, 1)
    run = tmp_path / "run"
    claim(run, RECIPE, data)
    values = json.loads((run / "recipe.json").read_text())
    del values["teacher_fingerprint"], values["initial_model_fingerprint"]
    for name in ("teacher", "initial_model", "metadata", "distillation_weight"):
        del values["recipe"][name]
    (run / "recipe.json").write_text(json.dumps(values))
    claim(run, RECIPE, data)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"recipe": {"backbone": "VGG"}}'])
def test_a_damaged_recipe_is_no_run_folder(tmp_path: Path, content: str) -> None:
    (tmp_path / "recipe.json").write_text(content)
    with pytest.raises(RunError, match="no run folder"):
        read_run_owner(tmp_path)


def test_every_process_is_recorded(tmp_path: Path) -> None:
    record_process(tmp_path, None, clean=False)
    record_process(tmp_path, "a" * 40, clean=True)
    first, second = read_processes(tmp_path)
    assert (first["git_commit"], first["clean"]) == (None, False)
    assert (second["git_commit"], second["clean"]) == ("a" * 40, True)
