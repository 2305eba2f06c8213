"""`python -m tests.bench.capacity`: docs/capacity.md, from what `make soak` measured."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tests.bench.soak import RESULTS, SHARE, superseded

PAGE: Final = Path("docs/capacity.md")
EXAMPLES: Final = (
    ("a department", 20_000),
    ("a large hospital", 200_000),
    ("a region", 2_000_000),
    ("a national screening, every adult of 50 million every second year", 25_000_000),
    ("the same, two pictures of each of four lesions", 200_000_000),
)
DAYS_PER_YEAR: Final = 250
HOURS_PER_DAY: Final = 8
PEAK: Final = 3.0
"""Of the mean of a working hour: Mondays, and the minutes after a ward round."""
SPARE: Final = 1
"""A replica may be exchanged, or a machine lost, at the peak."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a load needs.

    Attributes:
        mean_per_second: Over the working hours.
        peak_per_second: What is planned for.
        num_replicas: Of the measured size, the spare one included.
        audit_gb_per_year: Of records, before they are compressed.
        peak_mbit_per_second: Of answers.
    """

    mean_per_second: float
    peak_per_second: float
    num_replicas: int
    audit_gb_per_year: float
    peak_mbit_per_second: float


def plan(results: dict[str, Any], pictures_per_year: int, peak: float = PEAK) -> Plan:
    """Replicas, storage and network for a load.

    Args:
        results: Of `make soak`.
        pictures_per_year: All of them in working hours.
        peak: Times the mean.
    """
    mean = pictures_per_year / (DAYS_PER_YEAR * HOURS_PER_DAY * 3600)
    replicas = math.ceil(mean * peak / (SHARE * results["capacity_per_second"]))
    return Plan(
        mean_per_second=mean,
        peak_per_second=mean * peak,
        num_replicas=max(1, replicas) + SPARE,
        audit_gb_per_year=pictures_per_year * results["audit_bytes_per_answer"] / 1e9,
        peak_mbit_per_second=mean * peak * results["answer_bytes"] * 8 / 1e6,
    )


def write_page(results: dict[str, Any], page: Path) -> None:
    """Write `docs/capacity.md` from the JSON of `make soak`."""
    intervals = results["intervals"]
    memory = max(interval["resident_mb"] for interval in intervals)
    minutes = len(intervals) * results["interval_seconds"] / 60
    answered = sum(interval["statuses"].get("200", 0) for interval in intervals)
    asked = sum(sum(interval["statuses"].values()) for interval in intervals)
    rows = [(name, number, plan(results, number)) for name, number in EXAMPLES]
    page.write_text(
        "\n".join(
            [
                "# Capacity",
                "",
                "Made by `python -m tests.bench.capacity` of what [`make soak`](soak.md) measured. "
                "For a load of your own: `python -m tests.bench.capacity --pictures-per-year N "
                "--peak N`.",
                "",
                "## Measured",
                "",
                f"One replica ({results['hardware']}; `{results['model']}` in OpenVINO, heatmap "
                "and audit log included):",
                "",
                "| | |",
                "|---|---|",
                f"| pictures a second, at most | {results['capacity_per_second']:.1f} |",
                f"| planned with, {SHARE:.0%} of it | "
                f"{SHARE * results['capacity_per_second']:.1f} |",
                f"| answered of what was asked at that rate for {minutes:.0f} minutes | "
                f"{answered:,} of {asked:,} |",
                f"| memory at most, once a minute, MB | {memory} |",
                f"| bytes of an answer with its overlay | {results['answer_bytes']:,} |",
                f"| bytes of its record in the audit log | {results['audit_bytes_per_answer']:,} |",
                "",
                "The client of that measurement was on the same cores. Another processor, "
                "other models, the ensemble or larger pictures give other figures: run `make soak` "
                "on the machine that will serve.",
                *superseded(results),
                "",
                "## Planned",
                "",
                f"Assumed, not measured: {DAYS_PER_YEAR} days of {HOURS_PER_DAY} hours in which "
                f"all pictures come, a peak of {PEAK:g} times their mean, and {SPARE} replica to "
                "spare, for an upgrade or a lost machine. Replicas are assumed to add up: each has "
                "its own processor, batcher, models and audit log, and shares nothing "
                "([ADR-0029](adr/0029-scale-out.md)); the proxy before them was not measured. The "
                "loads are examples in round numbers, not forecasts.",
                "",
                "| load | pictures a year | mean, peak a second | replicas like it | audit log, "
                "GB a year | answers at the peak, Mbit/s |",
                "|---|---|---|---|---|---|",
                *(
                    f"| {name} | {number:,} | {_figure(p.mean_per_second)}, "
                    f"{_figure(p.peak_per_second)} | {p.num_replicas} | "
                    f"{_figure(p.audit_gb_per_year)} | {_figure(p.peak_mbit_per_second)} |"
                    for name, number, p in rows
                ),
                "",
                "Two replicas are the least, whatever the load: an upgrade exchanges one of them "
                "([operations.md](operations.md)). Beyond what fits, callers get a 503 with "
                "`Retry-After` within milliseconds ([bench.md](bench.md#overload)). Pictures for "
                "the DICOM worker do not add up so: one replica has the queue, answers one after "
                "the other, and takes no more than `DICOM_MAX_WAITING`.",
                "",
            ]
        ),
        encoding="utf-8",
    )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def main(
    pictures_per_year: Annotated[
        int | None, typer.Option(help="Plan for these, and write no page.", min=1)
    ] = None,
    peak: Annotated[float, typer.Option(help="Times the mean of a working hour.", min=1)] = PEAK,
) -> None:
    """Write docs/capacity.md, or plan for a load of your own."""
    try:
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
    except OSError as error:
        raise typer.BadParameter(f"{RESULTS} is not there: run `make soak` first") from error
    if pictures_per_year is None:
        write_page(results, PAGE)
        return
    found = plan(results, pictures_per_year, peak)
    typer.echo(
        f"{found.peak_per_second:.2f} pictures a second at the peak: {found.num_replicas} replicas "
        f"like the measured one, {found.audit_gb_per_year:.2f} GB of audit log a year, "
        f"{found.peak_mbit_per_second:.1f} Mbit/s of answers."
    )


if __name__ == "__main__":
    typer.run(main)
