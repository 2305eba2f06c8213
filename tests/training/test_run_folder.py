"""A run is bound to its very split, and keeps what later processes need."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from training.config import Protocol
from training.prepare import PreparedData, prepare
from training.recipes.catalog import RECIPES
from training.run_folder import RunError, check_data, claim, read_processes, record_process

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
    with pytest.raises(RunError, match="no artifact"):
        claim(tmp_path / "run", recipe, data)
    assert not (tmp_path / "run").exists()

    artifact.mkdir(parents=True)
    (artifact / "manifest.json").write_text("one")
    claim(tmp_path / "run", recipe, data)
    claim(tmp_path / "run", recipe, data)
    (artifact / "manifest.json").write_text("another")
    with pytest.raises(RunError, match="another"):
        claim(tmp_path / "run", recipe, data)


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


def test_every_process_is_recorded(tmp_path: Path) -> None:
    record_process(tmp_path, None, clean=False)
    record_process(tmp_path, "a" * 40, clean=True)
    first, second = read_processes(tmp_path)
    assert (first["git_commit"], first["clean"]) == (None, False)
    assert (second["git_commit"], second["clean"]) == ("a" * 40, True)
