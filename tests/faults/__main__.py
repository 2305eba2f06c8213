"""`python -m tests.faults`: inject every fault into the real service, and write what came of it."""

import asyncio
import json
import platform
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final

import typer

from tests.faults.page import write_page
from tests.faults.sections import FAULTS, in_order, inject
from tests.faults.stage import Stage
from training.hardware import describe_hardware
from training.provenance import running_code
from training.readme import MODELS, newest_artifact

RESULTS: Final = Path("docs/results/faults.json")
PAGE: Final = Path("docs/faults.md")
LOGS: Final = Path("runs/fault-logs")
MODEL: Final = "cnn_efficientnet_lite0"


def main(
    only: Annotated[
        list[str] | None, typer.Option(help=f"A fault; repeat for more: {', '.join(FAULTS)}.")
    ] = None,
) -> None:
    """Try every fault, or replace some of those in docs/results/faults.json.

    Ends with status 1 where the service did what it must not; its logs are in runs/fault-logs.
    """
    unknown = set(only or ()) - set(FAULTS)
    if unknown:
        raise typer.BadParameter(f"no such fault: {', '.join(sorted(unknown))}")
    found: dict[str, Any] = {}
    if only and RESULTS.exists():
        found = json.loads(RESULTS.read_text(encoding="utf-8"))
    with TemporaryDirectory(prefix="faults-") as scratch:
        folder = Path(scratch)
        shutil.copytree(MODELS / MODEL, folder / "models" / MODEL)
        stage = Stage(folder / "models", folder, LOGS.resolve())
        asyncio.run(_inject(stage, only or list(FAULTS), found))
    write_page(found, PAGE)
    if any(one["report"]["wrong"] for one in found.values()):
        raise typer.Exit(1)


async def _inject(stage: Stage, names: list[str], found: dict[str, Any]) -> None:
    started = time.monotonic()
    async for name, report in inject(stage, names):
        seconds, started = time.monotonic() - started, time.monotonic()
        found[name] = {
            "model": f"{MODEL}@{newest_artifact(MODEL).name}",
            "hardware": f"{describe_hardware()}, {platform.system()}",
            "git_commit": running_code().git_commit,
            "seconds": round(seconds, 1),
            "report": asdict(report),
        }
        typer.echo(f"{name}: {seconds:.0f} s, {report.skipped or report.seen}")
        text = json.dumps(in_order(found), indent=2) + "\n"
        RESULTS.write_text(text, encoding="utf-8")
        for sentence in report.wrong[:20]:
            typer.echo(f"  {sentence}", err=True)


if __name__ == "__main__":
    typer.run(main)
