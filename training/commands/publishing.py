"""From a run to what is served: export, quantize, decide, ensemble, verify, sign."""

from pathlib import Path
from typing import Annotated

import typer

from training.commands.console import (
    CommitOption,
    DataOption,
    RunArgument,
    bar,
    clean_commit,
    headline,
    refusals,
)
from training.prepare import load_prepared

SignedArgument = Annotated[
    Path, typer.Argument(help="models/NAME/VERSION, or models/ensemble.json.", exists=True)
]


def export(
    run: RunArgument,
    models: Annotated[Path, typer.Option(help="Folder of all artifacts.")] = Path("models"),
    version: Annotated[int, typer.Option(min=1, help="Of the new artifact.")] = 1,
    commit: CommitOption = None,
) -> None:
    """Write the SavedModel, its manifest and its model card."""
    with refusals():
        from training.export import export as export_run

        folder = export_run(run, models, version, git_commit=commit or clean_commit())
    typer.echo(str(folder))


def quantize(
    artifact: Annotated[Path, typer.Argument(help="models/NAME/VERSION.", exists=True)],
    data: DataOption,
    commit: CommitOption = None,
) -> None:
    """Add the 8-bit form to an artifact that is not published yet."""
    with refusals():
        from training.quantize import quantize as quantize_artifact

        prepared = load_prepared(data)
        with bar("images") as report:
            made = quantize_artifact(
                artifact, prepared, report, git_commit=commit or clean_commit()
            )
    typer.echo(
        f"{artifact}: accuracy {made.accuracy.before:.4f} in float32, {made.accuracy.after:.4f} in "
        f"8 bits; {made.other_answers:.4f} of the answers name another class"
    )


def decide(
    artifact: Annotated[Path, typer.Argument(help="models/NAME/VERSION.", exists=True)],
    data: DataOption,
    commit: CommitOption = None,
) -> None:
    """Issue an artifact's next version, with rules for reporting, referring and rejecting."""
    with refusals():
        from training.decide import decide as issue

        prepared = load_prepared(data)
        with bar("images") as report:
            folder = issue(artifact, prepared, report, git_commit=commit or clean_commit())
    typer.echo(str(folder))


def ensemble(
    members: Annotated[list[Path], typer.Argument(help="models/NAME/VERSION of each.")],
    data: DataOption,
    output: Annotated[Path, typer.Option(help="File to make.")] = Path("models/ensemble.json"),
    version: Annotated[int, typer.Option(min=1, help="Of the ensemble.")] = 1,
    commit: CommitOption = None,
) -> None:
    """Weigh and calibrate artifacts as one on the validation part; measure on the test part."""
    with refusals():
        from training.combine import combine

        prepared = load_prepared(data)
        with bar("images") as report:
            made = combine(
                members,
                prepared,
                output,
                report,
                version=version,
                git_commit=commit or clean_commit(),
            )
    typer.echo(f"{output}: {headline(made.metrics)}")


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
    with refusals():
        from app.inference.signatures import read_public_keys
        from training.sign import check

        keys = None if public_keys is None else read_public_keys(public_keys)
        manifest = check(artifact, keys)
    signed = "" if keys is None else f", and signed by a key in {public_keys}"
    typer.echo(f"{artifact}: {manifest.name} version {manifest.version} is intact{signed}")


def sign_artifact(
    artifact: SignedArgument,
    key: Annotated[Path, typer.Option(help="PEM file of an Ed25519 private key.")],
) -> None:
    """Check an artifact as `verify` does, then write a signature beside its manifest."""
    with refusals():
        from training.sign import read_private_key, sign

        def ask() -> str:
            return str(typer.prompt("Passphrase", hide_input=True, err=True))

        signature = sign(artifact, read_private_key(key, ask))
    typer.echo(str(signature))
