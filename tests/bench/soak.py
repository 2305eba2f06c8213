"""`make soak`: an hour at 70 % of the capacity, and what latency and memory did."""

import asyncio
import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.request import Request, urlopen

import typer
from matplotlib.figure import Figure

from app.audit_chain import log_files, read_head
from tests.bench.__main__ import FIRST_PORT, example_jpeg
from tests.bench.client import CAPACITY_CALLERS, CLIENT_SECONDS, LOST, Load, ask, find_capacity
from tests.bench.connections import HOST, connect
from tests.bench.servers import READY, Call, Server, raw_call, serve_project
from training.hardware import describe_hardware
from training.provenance import running_code
from training.readme import MODELS, served

RESULTS: Final = Path("docs/results/soak.json")
PAGE: Final = Path("docs/soak.md")
PLOT: Final = "soak.png"
SHARE: Final = 0.7
CAPACITY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Interval:
    """What was measured of the requests that were sent in one interval.

    Attributes:
        statuses: Number of requests by status; 0 for a lost connection.
        p50_ms: Median latency of those that were answered with 200, in milliseconds.
        p99_ms: 99th percentile of the same.
        ready_ms: Of one request to `/health/ready` in the interval.
        ready_status: Of the same request.
        resident_mb: Memory of the service at its end.
        open_files: The service's file descriptors at its end.
        threads: Its threads at its end.
    """

    statuses: dict[str, int]
    p50_ms: float
    p99_ms: float
    ready_ms: float
    ready_status: int
    resident_mb: int
    open_files: int
    threads: int


def main(
    minutes: Annotated[int, typer.Option(help="How long.", min=1)] = 60,
    interval: Annotated[float, typer.Option(help="Seconds of each row.", min=1, max=60)] = 60.0,
    note: Annotated[str, typer.Option(help="What else the machine did, in a sentence.")] = "",
) -> None:
    """Soak the service with the default model in OpenVINO, audit log on; write page and plot."""
    logs, records = Path("runs/bench-logs"), Path("runs/soak-records")
    audit = records / time.strftime("%Y%m%d-%H%M%S")
    settings = {"models_dir": MODELS.resolve(), "runtime": "openvino", "audit_dir": audit}
    with serve_project(FIRST_PORT, logs / "soak.log", **settings) as server:
        found = soak(server, raw_call(example_jpeg()), round(minutes * 60 / interval), interval)
    results = {
        "hardware": f"{describe_hardware()}, {platform.system()}",
        "model": default_model(),
        "git_commit": running_code().git_commit,
        "note": note,
        "audit_bytes_per_answer": audit_bytes_per_answer(audit),
        **found,
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_page(results, PAGE)


def default_model() -> str:
    """`name@version` of the committed model that answers where none is named."""
    manifest = served()[0]
    return f"{manifest.name}@{manifest.version}"


def superseded(results: dict[str, Any]) -> list[str]:
    """A sentence where the figures are of another model than the one that answers by now."""
    now = default_model()
    if results["model"] == now:
        return []
    return [
        f"The default model is `{now}` by now, and these figures are not of it: run `make soak` "
        "before you rely on them."
    ]


def soak(server: Server, call: Call, num_intervals: int, seconds: float) -> dict[str, Any]:
    """Find the capacity, then send `SHARE` of it at a steady rate.

    Args:
        server: A running service.
        call: What is asked.
        num_intervals: How many intervals are measured.
        seconds: Of each.
    """
    capacity = find_capacity(server.port, call, CAPACITY_SECONDS)
    intervals = asyncio.run(steady(server, call, SHARE * capacity, num_intervals, seconds))
    answer_bytes = _answer_bytes(server, call)
    return {
        "answer_bytes": answer_bytes,
        "capacity_per_second": round(capacity, 2),
        "offered_per_second": round(SHARE * capacity, 2),
        "interval_seconds": seconds,
        "intervals": [asdict(interval) for interval in intervals],
    }


def _answer_bytes(server: Server, call: Call) -> int:
    url = f"http://{HOST}:{server.port}{call.path}"
    request = Request(url, call.body, {"Content-Type": call.content_type})
    with urlopen(request, timeout=CLIENT_SECONDS) as answer:
        return len(answer.read())


def audit_bytes_per_answer(folder: Path) -> int:
    """Size of a record in the log that the service has written, on average."""
    head = read_head(folder)
    assert head is not None
    return round(sum(path.stat().st_size for path in log_files(folder)) / head[0])


async def steady(
    server: Server, call: Call, rate: float, num_intervals: int, seconds: float
) -> list[Interval]:
    """Requests at a steady rate, without a pause between the intervals.

    Latencies count from when a request was due, so that a client which is late hides nothing.

    Args:
        server: A running service.
        call: What is asked.
        rate: Requests a second.
        num_intervals: How many intervals are measured.
        seconds: Of each.
    """
    per_interval = max(1, round(rate * seconds))
    loads = [Load(seconds) for _ in range(num_intervals)]
    probes: list[asyncio.Task[tuple[int, float]]] = []
    ends: list[tuple[int, int, int]] = []

    async def send(load: Load, due: float) -> None:
        late = time.perf_counter() - due
        status, latency = await ask(connections, server.port, call)
        load.add(status, late + latency)

    async with connect() as connections, asyncio.TaskGroup() as requests:
        started = time.perf_counter()
        for number in range(num_intervals * per_interval):
            due = started + number / per_interval * seconds
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            requests.create_task(send(loads[number // per_interval], due))
            if (number + 1) % per_interval == 0:
                probes.append(requests.create_task(ask(connections, server.port, READY)))
                ends.append(_look_at(server))
    return [
        Interval(
            statuses=load.statuses(),
            p50_ms=round(load.quantile(0.5), 1),
            p99_ms=round(load.quantile(0.99), 1),
            ready_ms=round(probe.result()[1] * 1e3, 1),
            ready_status=probe.result()[0],
            resident_mb=megabytes,
            open_files=files,
            threads=threads,
        )
        for load, probe, (megabytes, files, threads) in zip(loads, probes, ends, strict=True)
    ]


def _look_at(server: Server) -> tuple[int, int, int]:
    return round(server.resident_mb()), server.process.num_fds(), server.process.num_threads()


def write_page(results: dict[str, Any], page: Path) -> None:
    """Write `docs/soak.md` and its plot from the JSON alone."""
    intervals = [Interval(**interval) for interval in results["intervals"]]
    minutes = len(intervals) * results["interval_seconds"] / 60
    total: dict[str, int] = {}
    for interval in intervals:
        for status, number in interval.statuses.items():
            total[status] = total.get(status, 0) + number
    answered = ", ".join(f"{number:,} x {status}" for status, number in sorted(total.items()))
    lost = total.get(str(LOST), 0)
    not_ready = sum(interval.ready_status != 200 for interval in intervals)
    quarter = max(1, len(intervals) // 4)
    first, last = intervals[:quarter], intervals[-quarter:]
    _draw(intervals, results["interval_seconds"], page.parent / "images" / PLOT)
    rows = [
        ("latency p50, ms", "p50_ms"),
        ("latency p99, ms", "p99_ms"),
        ("`/health/ready`, ms", "ready_ms"),
        ("memory, MB", "resident_mb"),
        ("open files", "open_files"),
        ("threads", "threads"),
    ]
    page.write_text(
        "\n".join(
            [
                "# Soak",
                "",
                f"Made by `make soak`: {results['hardware']}, commit `{results['git_commit']}`. "
                f"{results['offered_per_second']:.1f} requests a second for {minutes:.0f} minutes, "
                f"{SHARE:.0%} of the {results['capacity_per_second']:.1f} that {CAPACITY_CALLERS} "
                "callers got straight before; one drawn JPEG of 600 x 450 pixels, "
                f"`{results['model']}` in OpenVINO, heatmap and audit log included. The client is "
                "on the same machine and takes its share of the processor.",
                *superseded(results),
                *([results["note"]] if results["note"] else []),
                "",
                f"Answers: {answered}; {lost} lost. `/health/ready` was asked {len(intervals)} "
                f"times and was not 200 {not_ready} times. Latencies count from when a request "
                "was due.",
                "",
                f"| median of the intervals | first {quarter} | last {quarter} |",
                "|---|---|---|",
                *(
                    f"| {title} | {_median(first, name):g} | {_median(last, name):g} |"
                    for title, name in rows
                ),
                "",
                f"![Latency and memory over time](images/{PLOT})",
                "",
            ]
        ),
        encoding="utf-8",
    )


def _median(intervals: list[Interval], name: str) -> float:
    values = sorted(getattr(interval, name) for interval in intervals)
    return float(values[len(values) // 2])


def _draw(intervals: list[Interval], seconds: float, path: Path) -> None:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    minutes = [(number + 1) * seconds / 60 for number in range(len(intervals))]
    for name, label in (("p50_ms", "p50"), ("p99_ms", "p99")):
        panels[0].plot(minutes, [getattr(i, name) for i in intervals], label=label)
    panels[0].set(xlabel="minutes", ylabel="latency, milliseconds")
    panels[0].legend()
    panels[1].plot(minutes, [interval.resident_mb for interval in intervals])
    panels[1].set(xlabel="minutes", ylabel="memory, MB")
    for axes in panels:
        axes.set_ylim(0, 1.1 * axes.dataLim.y1)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    typer.run(main)
