"""The folder of a training run: what lies in it, and how it is written.

```
RUN/
    recipe.json      what is trained; a run folder belongs to one recipe and one dataset
    state.json       progress, and the name of the checkpoint that belongs to it
    state-<step>/    weights and optimizer
    best.weights.h5  weights of the last stage's best validation accuracy: the result
    history.jsonl    a line an epoch
    tensorboard/     the same figures for TensorBoard
    result.json      written last, when the run is finished
```

Every file is replaced as a whole, so that a kill leaves the old one or the new one. Knows
nothing of TensorFlow.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from training.config import Recipe
from training.prepare import PreparedData
from training.progress import Progress

BEST_WEIGHTS: Final = "best.weights.h5"


class RunError(Exception):
    """A run folder that cannot be used as asked."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run.

    Attributes:
        steps: Optimizer steps over all stages.
        epochs: Epochs over all stages.
        best_epoch: Whose weights are in `best.weights.h5`.
        best_validation_accuracy: Of that epoch.
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
    """

    recipe: Recipe
    data_fingerprint: str
    split_seed: int


def claim(run: Path, recipe: Recipe, data: PreparedData) -> None:
    """Bind a folder to a recipe and a dataset, or check that it is."""
    run.mkdir(parents=True, exist_ok=True)
    owner = RunOwner(recipe, data.fingerprint, data.seed)
    path = run / "recipe.json"
    if not path.exists():
        values = {
            "recipe": recipe.to_json(),
            "data_fingerprint": owner.data_fingerprint,
            "seed": owner.split_seed,
        }
        _write_atomically(path, json.dumps(values, indent=2) + "\n")
    elif read_run_owner(run) != owner:
        raise RunError(f"{run} holds a run of another recipe or dataset; name another folder.")


def read_run_owner(run: Path) -> RunOwner:
    """The recipe and dataset that a run folder belongs to.

    Raises:
        RunError: It is no run folder.
    """
    try:
        values = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{run} is no run folder: {error}") from error
    return RunOwner(Recipe.from_json(values["recipe"]), values["data_fingerprint"], values["seed"])


def read_state(run: Path) -> tuple[str, Progress] | None:
    """The last checkpoint's folder name and its progress; None before the first."""
    path = run / "state.json"
    if not path.exists():
        return None
    values = json.loads(path.read_text(encoding="utf-8"))
    return values["checkpoint"], Progress.from_json(values["progress"])


def write_state(run: Path, checkpoint: str, progress: Progress) -> None:
    """Make a checkpoint the one to go on from."""
    values = {"checkpoint": checkpoint, "progress": progress.to_json()}
    _write_atomically(run / "state.json", json.dumps(values))


def read_history(run: Path) -> list[dict[str, Any]]:
    """The epochs that a run has completed, oldest first."""
    path = run / "history.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def append_history(run: Path, line: dict[str, Any]) -> None:
    """Add an epoch; one that a kill made the run repeat is replaced."""
    lines = [entry for entry in read_history(run) if entry["epoch"] < line["epoch"]]
    text = "".join(json.dumps(entry) + "\n" for entry in [*lines, line])
    _write_atomically(run / "history.jsonl", text)


def write_result(run: Path, result: RunResult) -> None:
    """Declare a run finished."""
    _write_atomically(run / "result.json", json.dumps(asdict(result), indent=2) + "\n")


def read_result(run: Path) -> RunResult:
    """The result of a finished run.

    Raises:
        RunError: The run is not finished.
    """
    if not (run / "result.json").exists():
        raise RunError(f"{run} is not finished; run `python -m training fit` again to resume it.")
    return RunResult(**json.loads((run / "result.json").read_text(encoding="utf-8")))


def _write_atomically(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.new")
    with scratch.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
