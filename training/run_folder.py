"""The folder of a training run: what lies in it, and how it is written.

```
RUN/
    recipe.json      what is trained; a run folder belongs to one recipe, one dataset and the
                     very artifacts (teacher, initial model) that the recipe names
    state.json       progress, and the name of the checkpoint that belongs to it
    state-<epoch>-<step>-<random>/ weights and optimizer
    best-<epoch>.weights.h5  weights of this stage's best validation accuracy
    interpolated.weights.h5  between them and the initial model's, where the recipe says so
    processes.jsonl  a line each time that it was taken up: when, and with which code
    history.jsonl    a line an epoch
    tensorboard/     the same figures for TensorBoard
    result.json      written last, when the run is finished
    calibration.json temperature and operating points, after `calibrate`
```

Every file is replaced as a whole, so that a kill leaves the old one or the new one. Knows
nothing of TensorFlow.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from app.domain.manifest import read_manifest
from training.config import Recipe
from training.prepare import PreparedData
from training.progress import Progress

CHECKPOINT_SECONDS: Final = 120.0
"""Default pause between checkpoints: a kill loses at most this much training, or a validation."""
RESULT_NAME: Final = "result.json"


class RunError(Exception):
    """A run folder that cannot be used as asked."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run.

    Attributes:
        steps: Optimizer steps over all stages.
        epochs: Epochs over all stages.
        best_epoch: Whose weights `best_weights` names.
        best_validation_accuracy: Of that epoch, or of the interpolated weights.
        seconds: Spent training.
        hardware: What the run's last process trained on, in words.
    """

    steps: int
    epochs: int
    best_epoch: int
    best_validation_accuracy: float
    seconds: float
    hardware: str


@dataclass(frozen=True, slots=True)
class RunOwner:
    """What a run folder belongs to.

    Attributes:
        recipe: What is trained.
        data_fingerprint: SHA-256 of the dataset.
        split_seed: Of its split.
        split_fingerprint: SHA-256 of the split itself.
        teacher_fingerprint: SHA-256 of the teacher's manifest, which lists the digests of all
            its files; "" without a teacher.
        initial_model_fingerprint: The same of the initial model.
    """

    recipe: Recipe
    data_fingerprint: str
    split_seed: int
    split_fingerprint: str
    teacher_fingerprint: str = ""
    initial_model_fingerprint: str = ""


def claim(run: Path, recipe: Recipe, data: PreparedData) -> None:
    """Bind a folder to a recipe, a dataset and the recipe's artifacts, or check that it is.

    Raises:
        RunError: It belongs to others, the data was split by another protocol, or an
            artifact was trained on another split.
        ManifestError: An artifact is missing or has another's name.
    """
    owner = _owner(recipe, data)
    run.mkdir(parents=True, exist_ok=True)
    path = run / "recipe.json"
    if path.exists():
        _check_owner(run, owner)
    else:
        write_json(path, {**asdict(owner), "recipe": recipe.to_json()})


def check_claim(run: Path, recipe: Recipe, data: PreparedData) -> None:
    """Check that a folder is bound as `claim` would do.

    Raises:
        RunError: As `claim`; or it is not there.
        ManifestError: As `claim`.
    """
    _check_owner(run, _owner(recipe, data))


def _check_owner(run: Path, owner: RunOwner) -> None:
    if read_run_owner(run) != owner:
        raise RunError(
            f"{run} holds a run of another recipe, dataset, teacher or initial model; name another "
            "folder."
        )


def _owner(recipe: Recipe, data: PreparedData) -> RunOwner:
    if data.protocol is not recipe.protocol:
        raise RunError(
            f"The recipe wants protocol {recipe.protocol}, {data.directory} was split by "
            f"{data.protocol}. Run `python -m training prepare --protocol {recipe.protocol}`."
        )
    return RunOwner(
        recipe,
        data.fingerprint,
        data.seed,
        data.split_fingerprint,
        _artifact_fingerprint(recipe.teacher, data),
        _artifact_fingerprint(recipe.initial_model, data),
    )


def _artifact_fingerprint(artifact: str, data: PreparedData) -> str:
    """SHA-256 of the manifest of an artifact of this very split; "" for no artifact."""
    if not artifact:
        return ""
    manifest, digest = read_manifest(Path(artifact).resolve())
    if manifest.training.split_fingerprint != data.split_fingerprint:
        raise RunError(
            f"{artifact} was trained on another split than {data.directory} holds; it may know "
            "images that this run is measured on. Name an artifact of the same split."
        )
    return digest


def check_data(run: Path, data: PreparedData) -> RunOwner:
    """Check that a run was trained on this very split, so that no part leaks into another.

    Raises:
        RunError: It was not.
    """
    owner = read_run_owner(run)
    received = (data.protocol, data.fingerprint, data.split_fingerprint)
    if (owner.recipe.protocol, owner.data_fingerprint, owner.split_fingerprint) != received:
        raise RunError(
            f"{run} was trained on other data or another split than {data.directory} holds; its "
            "figures there would be measured on training images."
        )
    return owner


def read_run_owner(run: Path) -> RunOwner:
    """The recipe and dataset that a run folder belongs to.

    Raises:
        RunError: It is no run folder.
    """
    try:
        values = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
        return RunOwner(**{**values, "recipe": Recipe.from_json(values["recipe"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{run} is no run folder of this version ({type(error).__name__}: {error})."
        ) from error


def record_process(run: Path, commit: str | None, *, clean: bool) -> None:
    """Note the code that a process trains with.

    Args:
        run: The run's folder.
        commit: Of the checkout; None outside of one.
        clean: Whether the code was exactly the commit's.
    """
    line = {"started": datetime.now(UTC).isoformat(timespec="seconds"), "git_commit": commit}
    _write_lines(run / "processes.jsonl", [*read_processes(run), {**line, "clean": clean}])


def read_processes(run: Path) -> list[dict[str, Any]]:
    """What `record_process` noted, oldest first."""
    return _read_lines(run / "processes.jsonl")


def best_weights(run: Path, epoch: int) -> Path:
    """The file with the weights of an epoch that was its stage's best."""
    return run / f"best-{epoch}.weights.h5"


def interpolated_weights(run: Path) -> Path:
    """The file with the weights between the best and the initial model's."""
    return run / "interpolated.weights.h5"


def read_state(run: Path) -> tuple[str, Progress] | None:
    """The last checkpoint's folder name and its progress; None before the first."""
    path = run / "state.json"
    if not path.exists():
        return None
    values = json.loads(path.read_text(encoding="utf-8"))
    return values["checkpoint"], Progress.from_json(values["progress"])


def write_state(run: Path, checkpoint: str, progress: Progress) -> None:
    """Make a checkpoint the one to go on from, and delete what it replaces."""
    for path in [*(run / checkpoint).iterdir(), *run.glob("best-*")]:
        _flush(path)
    values = {"checkpoint": checkpoint, "progress": progress.to_json()}
    _write_atomically(run / "state.json", json.dumps(values))
    for folder in run.glob("state-*"):
        if folder.name != checkpoint:
            shutil.rmtree(folder, ignore_errors=True)
    for path in run.glob("best-*"):
        if path != best_weights(run, progress.best_epoch):
            path.unlink()


def read_history(run: Path) -> list[dict[str, Any]]:
    """The epochs that a run has completed, oldest first."""
    return _read_lines(run / "history.jsonl")


def append_history(run: Path, line: dict[str, Any]) -> None:
    """Add an epoch; one that a kill made the run repeat is replaced."""
    lines = [entry for entry in read_history(run) if entry["epoch"] < line["epoch"]]
    _write_lines(run / "history.jsonl", [*lines, line])


def write_result(run: Path, result: RunResult) -> None:
    """Declare a run finished."""
    write_json(run / RESULT_NAME, asdict(result))


def read_result(run: Path) -> RunResult:
    """The result of a finished run.

    Raises:
        RunError: The run is not finished.
    """
    if not (run / RESULT_NAME).exists():
        raise RunError(f"{run} is not finished; run `python -m training fit` again to resume it.")
    return RunResult(**json.loads((run / RESULT_NAME).read_text(encoding="utf-8")))


def write_json(path: Path, values: Any) -> None:
    """Write values indented, as a whole."""
    _write_atomically(path, json.dumps(values, indent=2) + "\n")


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    _write_atomically(path, "".join(json.dumps(entry) + "\n" for entry in lines))


def _write_atomically(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(text, encoding="utf-8")
    _flush(scratch)
    scratch.replace(path)


def _flush(path: Path) -> None:
    """Have a file on disk before anything refers to it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
