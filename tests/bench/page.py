"""The benchmark's Markdown page and its plots, from the JSON alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  after the choice of its backend

IMAGES: Final = "images"
PAPER_MS: Final = {"cnn_densenet121": 32.0, "cnn_resnet50v2_attention": 45.0}
"""Inference time of the paper's table III, on its GPU."""


def write_page(results: dict[str, Any], page: Path) -> None:
    """Write `docs/bench.md` and its plots; sections that were not measured are left out."""
    lines = [
        "# Benchmark",
        "",
        "Made by `make bench`, which writes `docs/results/bench.json` and this page. Latencies are "
        "of whole requests over HTTP from a client on the same machine, which shares its "
        "processor; compare rows with each other, not with another machine's. One synthetic JPEG "
        "of 600 x 450 pixels; answers have the overlay as a PNG of that size unless it says "
        "otherwise.",
        "",
        *_origins(results),
        "",
    ]
    for name, writer in _WRITERS.items():
        if name in results:
            lines += [*writer(results[name]["results"], page.parent / IMAGES), ""]
    page.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _origins(results: dict[str, Any]) -> list[str]:
    groups: dict[tuple[str, str, str], list[str]] = {}
    for name, section in results.items():
        origin = section["hardware"], section["git_commit"], section["client"]
        groups.setdefault(origin, []).append(name)
    return [
        f"- {', '.join(names)}: {hardware}, commit `{commit}`, requests by {client}."
        for (hardware, commit, client), names in groups.items()
    ]


def _table(heading: list[str], rows: list[list[Any]]) -> list[str]:
    return [
        f"| {' | '.join(heading)} |",
        f"|{'---|' * len(heading)}",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
    ]


def _stages(found: dict[str, Any], images: Path) -> list[str]:
    names = list(next(iter(found.values())))
    rows = []
    for key, stages in found.items():
        rows.append(
            [key, *(f"{stages[name]:.1f}" for name in names), f"{sum(stages.values()):.1f}"]
        )
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(found) + 1.5))
    left = [0.0] * len(found)
    for name in names:
        widths = [stages[name] for stages in found.values()]
        axes.barh(list(found), widths, left=left, label=name)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
    axes.legend(fontsize=8)
    _save(figure, images / "bench-stages.png")
    return [
        "## Stages of an answer",
        "",
        "Without a server, one image at a time, medians in milliseconds; all rows took turns.",
        "",
        *_table(["model, runtime", *names, "sum"], rows),
        "",
        *_speedups(found),
        "",
        f"![Stages]({IMAGES}/bench-stages.png)",
    ]


def _speedups(found: dict[str, Any]) -> list[str]:
    """Each model's fastest runtime beside TensorFlow, and the paper's times."""
    models = dict.fromkeys(key.split(", ")[0] for key in found)
    lines = []
    for model in models:
        rows = {
            key.split(", ")[1]: stages for key, stages in found.items() if key.startswith(model)
        }
        fastest = min(rows, key=lambda runtime: rows[runtime]["model"])
        ratio = rows["tensorflow"]["model"] / rows[fastest]["model"]
        total = sum(rows[fastest].values())
        line = f"- {model}: `{fastest}` runs the model {ratio:.1f} times as fast as TensorFlow."
        paper_ms = PAPER_MS.get(model.split("@")[0])
        if paper_ms is not None:
            slowest = max(rows[fastest], key=lambda name: rows[fastest][name])
            line += (
                f" A whole answer takes {total:.0f} ms, the paper's inference "
                f"{paper_ms:.0f} ms (its GPU); stage {slowest!r} has "
                f"{rows[fastest][slowest] / total:.0%} of the time."
            )
        lines.append(line)
    return lines


def _heatmaps(found: dict[str, Any], _images: Path) -> list[str]:
    rows = [
        [model, runtime, f"{f['bare']:.1f}", f"{f['whole']:.1f}", f"{f['share']:+.1%}"]
        for model, runtimes in found.items()
        for runtime, f in runtimes.items()
    ]
    return [
        "## What heatmaps cost the model",
        "",
        "The network with probabilities as its only output, and with the maps; medians in "
        "milliseconds, taking turns.",
        "",
        *_table(["model", "runtime", "probabilities", "with maps", "more"], rows),
    ]


def _overhead(found: dict[str, Any], _images: Path) -> list[str]:
    rows = [
        [
            model,
            f"{f['bare_p50_ms']:.1f}",
            f"{f['plain_p50_ms']:.1f} ({f['plain_overhead_ms']:+.1f})",
            f"{f['service_p50_ms']:.1f}",
            f"{f['overhead_ms']:+.1f} ({f['overhead_share']:+.1%})",
            ", ".join(f"{ms:+.1f}" for ms in f["by_start_ms"]),
        ]
        for model, f in found.items()
    ]
    return [
        "## What the service adds",
        "",
        "A request at concurrency 1 beside decoding, model and overlay in a process without a "
        "server, taking turns; OpenVINO, milliseconds. The same work in a handler of plain FastAPI "
        "(`tests/bench/peers/async_def.py`: no checks, limits, batches, log or metrics) shows what "
        "the framework, HTTP and the client take by themselves. All are started several times, "
        "for a process has its luck with the memory that it gets; medians over the starts.",
        "",
        *_table(["model", "bare", "plain FastAPI", "service", "more", "by start"], rows),
    ]


def _latency(found: dict[str, Any], _images: Path) -> list[str]:
    concurrencies = list(next(iter(found.values())))
    cell = "{requests_per_second:.1f} ({p50_ms:.0f}, {p95_ms:.0f}, {p99_ms:.0f})"
    rows = [
        [key, *(cell.format(**loads[n]) for n in concurrencies)] for key, loads in found.items()
    ]
    return [
        "## Latency and throughput",
        "",
        "Requests a second, and in brackets p50, p95 and p99 in milliseconds, by the number of "
        "callers who each wait for an answer before they ask again.",
        "",
        *_table(["model, runtime", *concurrencies], rows),
    ]


def _peers(found: dict[str, Any], images: Path) -> list[str]:
    measured = {name: loads for name, loads in found.items() if "failed" not in loads}
    concurrencies = [n for n in next(iter(measured.values())) if n.isdigit()]
    cell = "{requests_per_second:.1f} ({p50_ms:.0f}, {p99_ms:.0f})"
    rows = [
        [name, *(cell.format(**loads[n]) for n in concurrencies), loads["resident_mb"]]
        for name, loads in measured.items()
    ]
    figure, both = plt.subplots(1, 2, figsize=(10, 3.6))
    for axes, key, title in (
        (both[0], "requests_per_second", "requests a second"),
        (both[1], "p99_ms", "p99, milliseconds"),
    ):
        for name, loads in measured.items():
            width = 2.5 if name == "DermHybrid" else 1.2
            values = [loads[n][key] for n in concurrencies]
            axes.plot(concurrencies, values, marker="o", linewidth=width, label=name)
        axes.set_xlabel("callers")
        axes.set_title(title, fontsize=10)
        axes.set_ylim(bottom=0)
    both[0].legend(fontsize=7)
    _save(figure, images / "bench-peers.png")
    failed = [
        f"- {name}: not measured: {f['failed']}" for name, f in found.items() if "failed" in f
    ]
    return [
        "## Beside other servers",
        "",
        "The default model in OpenVINO, float32, with this project's own decoding and overlay "
        "under every server (`tests/bench/peers/`), batches of up to 8 where a server makes them. "
        "All ran at once and were loaded for a few seconds each, in turns. Requests a second, in "
        "brackets p50 and p99 in milliseconds, by callers; memory of all processes in MB.",
        "",
        *_table(["server", *concurrencies, "MB"], rows),
        "",
        *([*failed, ""] if failed else []),
        f"![Peers]({IMAGES}/bench-peers.png)",
    ]


def _overload(found: dict[str, Any], _images: Path) -> list[str]:
    statuses = _statuses(found["statuses"])
    memory = f"{found['resident_mb_before']} / {found['resident_mb_after']}"
    before, after = found["capacity_before_and_after"]
    return [
        "## Overload",
        "",
        f"{found['offered_per_second']:.0f} requests a second for {found['seconds']:.0f} s where "
        f"{found['capacity_per_second']:.0f} can be answered, the mean of {before:.1f} before and "
        f"{after:.1f} afterwards: {statuses} (0 would be a lost connection).",
        "",
        *_table(
            ["", ""],
            [
                ["answered, share of the capacity", f"{found['goodput_share']:.2f}"],
                ["rejected within, p50 / p99, ms", _pair(found, "rejected")],
                ["`/health/ready`, p50 / p99, ms", _pair(found, "health")],
                ["`/health/ready`, answers", _statuses(found["health_statuses"])],
                ["memory before / after, MB", memory],
            ],
        ),
    ]


def _statuses(numbers: dict[str, int]) -> str:
    return ", ".join(f"{number:,} x {status}" for status, number in numbers.items())


def _pair(found: dict[str, Any], what: str) -> str:
    return f"{found[f'{what}_p50_ms']:.1f} / {found[f'{what}_p99_ms']:.1f}"


def _stop(found: dict[str, Any], _images: Path) -> list[str]:
    statuses = _statuses(found["statuses"])
    return [
        "## Stop",
        "",
        f"SIGTERM with {found['in_flight']} requests in flight: {statuses}; {found['lost']} lost; "
        f"exit status {found['exit_status']}.",
    ]


def _reloads(found: dict[str, Any], _images: Path) -> list[str]:
    statuses = _statuses(found["statuses"])
    memory = ", ".join(map(str, found["resident_mb"]))
    return [
        "## Reloads",
        "",
        f"{found['reloads']} reloads of a new version under load: {statuses}. Memory in MB before "
        f"the first and after each: {memory} ({found['growth_share']:+.1%}).",
    ]


def _start(found: dict[str, Any], _images: Path) -> list[str]:
    rows = [[name, f["start_seconds"], f["resident_mb"]] for name, f in found.items()]
    return [
        "## Start",
        "",
        "All models verified, warmed up and tested; medians of three starts.",
        "",
        *_table(["runtime", "seconds to ready", "MB"], rows),
    ]


def _folder(found: dict[str, Any], _images: Path) -> list[str]:
    return [
        "## Files",
        "",
        "`dermhybrid predict FOLDER`, OpenVINO, the default model: "
        f"{found['images_per_second']:.1f} images a second after the start.",
    ]


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _viewer(found: dict[str, Any], _images: Path) -> list[str]:
    return [
        "## The clinician's page",
        "",
        "From a dropped image to its answer on the screen (the second frame after it is in the "
        "page), default model, heatmap included, on the service's own machine in Chromium "
        f"{found['chromium']} without a GPU. The service's part is the time from the request to "
        "the answer's first byte; the page's is all else, by round.",
        "",
        *_table(
            ["drop to answer, p50 ms", "service, p50 ms", "page, p50 ms", "page, p95 ms", "goal"],
            [
                [
                    found["shown_p50_ms"],
                    found["service_p50_ms"],
                    found["page_p50_ms"],
                    found["page_p95_ms"],
                    f"page at most {found['goal_ms']} ms in the median",
                ]
            ],
        ),
    ]


_WRITERS: Final[dict[str, Callable[[dict[str, Any], Path], list[str]]]] = {
    "stages": _stages,
    "heatmaps": _heatmaps,
    "overhead": _overhead,
    "latency": _latency,
    "peers": _peers,
    "overload": _overload,
    "stop": _stop,
    "reloads": _reloads,
    "start": _start,
    "folder": _folder,
    "viewer": _viewer,
}
