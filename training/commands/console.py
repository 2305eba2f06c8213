"""What the commands have in common: options and what they mean, refusals, a progress bar."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from app.domain.errors import ArtifactError
from app.domain.measurements import Metrics
from training.config import Recipe
from training.markdown import in_words
from training.prepare import DatasetError
from training.provenance import running_code
from training.recipes.catalog import RECIPES

console = Console(stderr=True)

DataOption = Annotated[Path, typer.Option("--data", help="Folder that `prepare` wrote.")]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a run.")]
RecipeArgument = Annotated[str, typer.Argument(help=f"One of: {', '.join(RECIPES)}.")]
TeacherOption = Annotated[
    Path | None, typer.Option(help="Artifact models/NAME/VERSION to imitate.", exists=True)
]
CommitOption = Annotated[
    str | None, typer.Option(help="Commit of this code, outside of a clean checkout.")
]


def headline(metrics: Metrics) -> str:
    """Accuracies in one line."""
    return (
        f"accuracy {in_words(metrics.accuracy, 4)}, "
        f"balanced accuracy {metrics.balanced_accuracy.value:.4f}"
    )


def find_recipe(name: str) -> Recipe:
    """A recipe of the catalogue by its name."""
    if name not in RECIPES:
        raise typer.BadParameter(f"no recipe {name!r}; expected one of {list(RECIPES)}")
    return RECIPES[name]


def clean_commit() -> str:
    """The commit of this code, which must not have been changed since."""
    code = running_code()
    if code.git_commit is None or not code.clean:
        raise ValueError(
            "The artifact could not be traced to its code: this is no git checkout, or app/, "
            "training/ or uv.lock differ from the commit. Commit them, or name the commit that "
            "holds this code with --commit."
        )
    return code.git_commit


@contextmanager
def refusals() -> Iterator[None]:
    """Turn expected failures into a message and exit status 1."""
    from training.combine import EnsembleError
    from training.export import ExportError
    from training.run_folder import RunError
    from training.sign import SigningError

    try:
        yield
    except DatasetError as error:
        console.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
        for problem in error.problems:
            console.print(f"  {problem}", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except (
        RunError,
        ExportError,
        EnsembleError,
        SigningError,
        ArtifactError,
        ValueError,
        OSError,
    ) as error:
        console.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from error


@contextmanager
def bar(unit: str) -> Iterator[Callable[..., None]]:
    """A progress bar on standard error; called with (done, total, description)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(unit, total=None)

        def report(done: int, total: int, description: str = unit) -> None:
            progress.update(task, completed=done, total=total, description=description)

        yield report
