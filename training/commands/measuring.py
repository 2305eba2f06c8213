"""What runs and artifacts are worth: `calibrate`, `evaluate`, and pages of measurements."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from training.commands.console import DataOption, RunArgument, bar, headline, refusals
from training.prepare import Part, load_prepared


def calibrate(run: RunArgument, data: DataOption) -> None:
    """Fit the temperature of a finished run and choose its operating points."""
    with refusals():
        from training.evaluate import calibrate_run

        prepared = load_prepared(data)
        with bar("images") as report:
            calibration = calibrate_run(run, prepared, report)
    typer.echo(
        f"{run}: temperature {calibration.temperature:.4f}, expected calibration error "
        f"{calibration.error_before:.4f} before, {calibration.error_after:.4f} after"
    )


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
        Part | None,
        typer.Option(
            help="With --data: part to measure; the test part once per recipe.",
            show_default=Part.VALIDATION.value,
        ),
    ] = None,
    augmented: Annotated[
        bool, typer.Option(help="With --data: mean answer over eight symmetries.")
    ] = False,
    images: Annotated[Path | None, typer.Option(help="Folder of images from elsewhere.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV: image and dx, or ISIC's one-hot columns; lesion_id where known."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder to make for the figures.")] = None,
) -> None:
    """Measure a run on its data, or an artifact or the ensemble on labelled images."""
    with refusals():
        if data is not None and not (images or labels or output):
            from training.evaluate import evaluate as evaluate_run
            from training.evaluate import evaluation_folder

            part = part or Part.VALIDATION
            folder = evaluation_folder(target, part, augmented=augmented)
            prepared = load_prepared(data)
            with bar("images") as report:
                metrics = evaluate_run(target, prepared, part, report, augmented=augmented)
        elif not (data or part or augmented) and images and labels and output:
            from training.external import evaluate_external

            folder = output
            with bar("images") as report:
                metrics = evaluate_external(target, images, labels, output, report)
        else:
            raise typer.BadParameter("give either --data, or --images, --labels and --output")
    typer.echo(f"{folder}: {headline(metrics)}")


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
    with refusals():
        from training.robustness import measure, write

        prepared = load_prepared(data)
        with bar("images") as report:
            write(measure(targets, prepared, every, report), output)
    typer.echo(str(output))


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
    with refusals():
        from training.heatmap_checks import measure
        from training.heatmap_page import render

        prepared = load_prepared(data)
        with bar("images") as report:
            measured = measure(targets, prepared, every, report)
        _publish(measured, output, page, render)


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
    with refusals():
        from training.novelty_checks import measure
        from training.novelty_page import render

        prepared = load_prepared(data)
        with bar("images") as report:
            measured = measure(targets, prepared, every, report)
        _publish(measured, output, page, render)


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
    with refusals():
        from training.quality import measure
        from training.quality_page import render

        prepared = load_prepared(data)
        with bar("images") as report:
            measured = measure(prepared, every, masks, report)
        _publish(measured, output, page, render)


def _publish(
    measured: dict[str, Any], output: Path, page: Path, render: Callable[[dict[str, Any]], str]
) -> None:
    """Write figures down, and the page that is made of them."""
    from training.robustness import write

    write(measured, output)
    page.write_text(render(measured), encoding="utf-8")
    typer.echo(f"{output}, {page}")
