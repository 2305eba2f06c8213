"""The commands `dermhybrid audit`: verify, archive and report the record of answers."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.console import fail
from app.domain.errors import DermHybridError
from app.domain.notice import RESEARCH_USE_NOTICE

if TYPE_CHECKING:
    from app.audit_chain import Chain

audit = typer.Typer(help="The record of every answer.", no_args_is_help=True)

_Folders = Annotated[
    list[Path],
    typer.Argument(
        metavar="DIRECTORY...",
        help="AUDIT_DIR of the service; before it, the folders of its archive, the oldest first.",
        exists=True,
        file_okay=False,
    ),
]


@audit.command("verify")
def verify_audit(directories: _Folders) -> None:
    """Find every edit, gap and exchange in the record of answers. Exit status 1 if there is one."""
    from app.audit_archive import CHAINS
    from app.audit_chain import Chain

    defects, intact = 0, []
    try:
        for name, folder in CHAINS.items():
            chain = None
            for directory in directories:
                chain = Chain(directory / folder, chain)
                for defect in chain.defects(goes_on=directory is not directories[-1]):
                    typer.echo(defect)
                    defects += 1
            intact.append(f"{name}: {_describe(chain)}")
    except OSError as error:
        fail(f"{error}. Is it being archived? Then verify it again.", error)
    if defects:
        raise typer.Exit(1)
    for line in intact:
        typer.echo(line)


@audit.command("archive")
def archive_audit(
    directory: Annotated[
        Path,
        typer.Argument(
            help="AUDIT_DIR of the service, which may go on.", exists=True, file_okay=False
        ),
    ],
    destination: Annotated[
        Path, typer.Argument(help="Folder for them: a new one, or that of the last time.")
    ],
    days: Annotated[
        int | None,
        typer.Option(
            help="Keep files with a record of so many days; else each finished one goes.",
            min=1,
            max=36_500,
        ),
    ] = None,
) -> None:
    """Move finished files elsewhere; the log is verified first. Run it again if it was stopped."""
    from app.audit_archive import CHAINS, archive
    from app.audit_chain import read_anchor

    before = None if days is None else datetime.now(UTC) - timedelta(days=days)
    moved: Counter[Path] = Counter()
    try:
        for path in archive(directory, destination, before):
            typer.echo(f"moved {path}")
            moved[path.parent] += 1
        for name, folder in CHAINS.items():
            anchor = read_anchor(directory / folder)
            said = f"up to record {anchor.sequence}, hash {anchor.hash}" if anchor else "no record"
            typer.echo(f"{name}: {moved[directory / folder]} files moved; archived: {said}")
    except (DermHybridError, OSError) as error:
        fail(str(error), error)


@audit.command("report")
def report_audit(
    directories: _Folders,
    models: Annotated[
        Path, typer.Option(help="Folder of the models, whose test figures drift is counted from.")
    ] = Path("models"),
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Agreement with diagnoses that came back, confusion, decisions, and drift, by model."""
    from app.audit_report import read_reports, to_json, to_text
    from app.domain.ensemble import ENSEMBLE_NAME, read_ensemble
    from app.domain.manifest import MANIFEST_NAME, read_manifest

    try:
        manifests = [read_manifest(path.parent)[0] for path in models.glob(f"*/*/{MANIFEST_NAME}")]
        measured = {f"{m.name}@{m.version}": m.metrics for m in manifests}
        if (models / ENSEMBLE_NAME).exists():
            ensemble = read_ensemble(models / ENSEMBLE_NAME)
            measured[f"{ensemble.name}@{ensemble.version}"] = ensemble.metrics
        reports = read_reports(*directories)
    except (DermHybridError, OSError) as error:
        fail(str(error), error)
    if as_json:
        typer.echo(json.dumps(to_json(reports, measured), indent=2))
    else:
        typer.echo(f"{to_text(reports, measured)}\n\n{RESEARCH_USE_NOTICE}")


def _describe(chain: "Chain | None") -> str:
    """The end of an intact chain, and of the part that is not at hand or was verified with it."""
    if chain is None or not chain.head or not chain.head[0]:
        return "no record"
    intact = f"intact up to record {chain.head[0]}, hash {chain.head[1]}"
    if chain.anchor is None:
        return intact
    archived = f"records up to {chain.anchor.sequence} are archived, hash {chain.anchor.hash}"
    return f"{intact}; {archived}"
