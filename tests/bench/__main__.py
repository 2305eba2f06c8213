"""`python -m tests.bench`: measure the service and its peers, and write what came of it."""

import io
import itertools
import json
import platform
import time
from pathlib import Path
from typing import Annotated, Final

import typer
from PIL import Image

from app.inference.process import prepare_process
from tests.bench.connections import CLIENT
from tests.bench.page import write_page
from tests.bench.sections import SECTIONS
from tests.bench.setup import Bench
from training.hardware import describe_hardware
from training.provenance import running_code
from training.readme import MODELS, NAMES, newest_artifact
from training.synthetic import draw_lesion

RESULTS: Final = Path("docs/results/bench.json")
PAGE: Final = Path("docs/bench.md")
FIRST_PORT: Final = 18100


def main(
    only: Annotated[
        list[str] | None, typer.Option(help=f"A section; repeat for more: {', '.join(SECTIONS)}.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Of each load.")] = 4.0,
    rounds: Annotated[int, typer.Option(help="Of each comparison by turns.")] = 60,
) -> None:
    """Run all sections, or replace some of those in docs/results/bench.json."""
    unknown = set(only or ()) - set(SECTIONS)
    if unknown:
        raise typer.BadParameter(f"no such section: {', '.join(sorted(unknown))}")
    bench = Bench(
        models=MODELS.resolve(),
        artifacts=[newest_artifact(name).resolve() for name in NAMES],
        jpeg=example_jpeg(),
        seconds=seconds,
        rounds=rounds,
        logs=Path("runs/bench-logs"),
        ports=itertools.count(FIRST_PORT),
    )
    prepare_process()
    results = json.loads(RESULTS.read_text()) if only and RESULTS.exists() else {}
    for name in only or SECTIONS:
        started = time.monotonic()
        results[name] = {
            "hardware": f"{describe_hardware()}, {platform.system()}",
            "git_commit": running_code().git_commit,
            "client": CLIENT,
            "seconds": seconds,
            "rounds": rounds,
            "results": SECTIONS[name](bench),
        }
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        typer.echo(f"{name}: {time.monotonic() - started:.0f} s")
    write_page(results, PAGE)


def example_jpeg() -> bytes:
    """A synthetic lesion of HAM10000's size, 600 x 450, JPEG of quality 90."""
    buffer = io.BytesIO()
    Image.fromarray(draw_lesion(7, 4)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


if __name__ == "__main__":
    typer.run(main)
