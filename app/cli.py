"""The command `dermhybrid`: serve, or classify files without a server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from app.access.scopes import Scope
from app.audit_cli import audit
from app.console import complain, fail
from app.domain.captions import append_caption, describe_heatmap, warn_of
from app.domain.errors import (
    AccessConfigurationError,
    DermHybridError,
    SettingsRefusedError,
    TracingUnavailableError,
)
from app.domain.heatmap_checks import check_heatmap
from app.domain.heatmaps import draw_overlay, encode_png
from app.domain.labels import LABELS
from app.domain.notice import RESEARCH_USE_NOTICE, SHORT_NOTICE
from app.domain.uploads import to_upload
from app.environment import read_settings
from app.logs import configure_logging
from app.settings import Settings

if TYPE_CHECKING:
    from app.inference.judge import Judged
    from app.inference.registry import Loaded

main = typer.Typer(
    help=f"Class probabilities for dermatoscopic images. {RESEARCH_USE_NOTICE}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

main.add_typer(audit, name="audit")
keys = typer.Typer(help="Who may call the service.", no_args_is_help=True)
main.add_typer(keys, name="keys")


@main.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
) -> None:
    """Start the service; settings come from the environment (README, "Settings")."""
    from app.main import create_app
    from app.server import Server

    settings = _read_settings()
    configure_logging(settings.log_level)
    try:
        server = Server(create_app(settings), settings, host, port)
    except (AccessConfigurationError, TracingUnavailableError) as error:
        fail(str(error), error)
    server.run()


@main.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    model: Annotated[
        str | None, typer.Option(help="Model name, or name@version; else the default.")
    ] = None,
    overlays: Annotated[
        Path | None, typer.Option(help="Folder for heatmap overlays, IMAGE.heatmap.png.")
    ] = None,
) -> None:
    """Print a table of probabilities; write overlays. Exit status 1 if a file was refused."""
    from app.inference.explain import explain
    from app.inference.files import Refused, classify, expand
    from app.inference.judge import judge

    settings = _read_settings()
    try:
        files = expand(images)
        if not files:
            raise DermHybridError("There is no image in the folders.")
        if overlays is not None and len({path.name for path in files}) < len(files):
            raise DermHybridError(
                "Two images have the same name; their overlays would be one file."
            )
        chosen = _load_model(settings, model)
    except (DermHybridError, OSError) as error:
        fail(str(error), error)
    manifest = chosen.manifest
    # A name that is cut short could be another patient's image: it is folded instead.
    table = Table(
        Column("image", overflow="fold"), "decision", "class", box=SIMPLE, padding=(0, 1, 0, 0)
    )
    for heading in ("conf.", *LABELS):
        table.add_column(heading, no_wrap=True, min_width=5)
    table.title = f"{manifest.name}@{manifest.version} {chosen.digest[:12]}, {chosen.runtime}"
    table.caption = RESEARCH_USE_NOTICE
    outcomes = classify(
        files,
        chosen,
        settings.image_limits(),
        settings.max_overlay_side,
        settings.max_batch_size,
        settings.num_image_workers(),
    )
    for outcome in outcomes:
        if isinstance(outcome, Refused):
            complain(f"{outcome.path}: {outcome.error}")
            continue
        judged = judge(chosen, outcome.prediction, outcome.upload.quality, settings.gates())
        table.add_row(escape(outcome.path.name), *_cells(judged))
        if overlays is not None and not judged.rejected:
            overlays.mkdir(parents=True, exist_ok=True)
            heatmap = explain(judged.prediction)
            words = describe_heatmap(heatmap, judged.model.drawn.qualified_name)
            drawn = draw_overlay(outcome.upload.picture, heatmap)
            upload = outcome.upload
            flags = check_heatmap(heatmap.values, upload.model_input, upload.lesion).flags
            lines = [SHORT_NOTICE, f"DermHybrid: {words}", *warn_of(flags)]
            captioned = append_caption(drawn, lines)
            (overlays / f"{outcome.path.name}.heatmap.png").write_bytes(encode_png(captioned))
    if table.row_count:
        Console().print(table)
    if table.row_count < len(files):
        raise typer.Exit(1)


@keys.command("create")
def create_api_key(
    identifier: Annotated[
        str, typer.Argument(metavar="ID", help="Names the key in the audit log.")
    ],
    file: Annotated[
        Path, typer.Option(help="File of keys that the service reads.", envvar="API_KEYS_FILE")
    ],
    scope: Annotated[list[Scope], typer.Option(help="What its holder may do; again for more.")],
    days: Annotated[
        int | None,
        typer.Option(help="After how many days it expires; else never.", min=1, max=36_500),
    ] = None,
) -> None:
    """Print a new API key, once, and append its digest to the file."""
    from datetime import UTC, datetime, timedelta

    from app.access.keys import create_key

    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    try:
        typer.echo(create_key(file, identifier, scope, expires))
    except AccessConfigurationError as error:
        fail(str(error), error)


@main.command()
def dicom(
    photograph: Annotated[Path, typer.Argument(help="A DICOM file.", exists=True, dir_okay=False)],
    output: Annotated[Path, typer.Option(help="Folder for the results, UID.dcm.")],
    frame: Annotated[int | None, typer.Option(help="Which one of several, from 1.", min=1)] = None,
    model: Annotated[
        str | None, typer.Option(help="Model name, or name@version; else the default.")
    ] = None,
) -> None:
    """Answer a DICOM photograph with a structured report and a heatmap in its study."""
    from app.inference.files import read_bytes
    from app.inference.judge import judge

    settings = _read_settings()
    limits = settings.image_limits()
    try:
        try:
            from app.api.dicom_results import make_results, to_file
            from app.interop.dicom_pixels import read_photograph
        except ImportError as error:
            raise DermHybridError("This needs the extra `interop` (docs/integrations).") from error
        read = read_photograph(read_bytes(photograph, limits), limits, frame)
        upload = to_upload(read.decoded, settings.max_overlay_side, read.named_frame)
        chosen = _load_model(settings, model)
        prediction = chosen.predict_batch(upload.model_input[None])[0]
        judged = judge(chosen, prediction, upload.quality, settings.gates())
        results = make_results(read.dataset, upload, judged)
    except (DermHybridError, OSError) as error:
        fail(str(error), error)
    output.mkdir(parents=True, exist_ok=True)
    for result in results:
        path = output / f"{result.SOPInstanceUID}.dcm"
        path.write_bytes(to_file(result))
        typer.echo(f"{result.Modality} {path}")
    typer.echo(f"{judged.decision.sentence} {RESEARCH_USE_NOTICE}")


def _read_settings() -> Settings:
    """The settings, or exit status 1 and a sentence about each that is refused."""
    try:
        return read_settings()
    except SettingsRefusedError as error:
        fail(str(error), error)


def _load_model(settings: Settings, name: str | None) -> "Loaded":
    """A model by its name, or the default one.

    Raises:
        DermHybridError: There is none, or it must not be served.
    """
    from app.inference.process import prepare_process
    from app.inference.registry import load_registry
    from app.inference.runtimes import engine_maker

    prepare_process()
    make_engine = engine_maker(settings.runtime, settings.model_threads)
    registry = load_registry(
        settings.models_dir,
        settings.default_model,
        make_engine,
        shadow_name=settings.shadow_model,
        public_keys=settings.model_public_keys,
    )
    return registry.default if name is None else registry.get(name)


def _cells(judged: "Judged") -> list[str]:
    """Decision, class, confidence and probabilities; of a rejected answer the decision alone."""
    decision, answer = judged.decision, judged.prediction
    said = " ".join([decision.action, *(f"({reason})" for reason in decision.reasons)])
    if judged.rejected:
        return [said]
    shares = [f"{p:.3f}" for p in answer.probabilities]
    return [said, answer.predicted.label, f"{answer.confidence:.3f}", *shares]
