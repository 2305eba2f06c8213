"""The sections of the benchmark; each gives JSON values and says what they are."""

import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from app.inference.processors import available_processors
from app.inference.runtimes import engine_maker
from tests.bench import bare
from tests.bench.client import Load, closed_loop, together
from tests.bench.heatmap_share import heatmap_share
from tests.bench.overhead import overhead
from tests.bench.pressure import overload, reloads, stop
from tests.bench.servers import (
    PEERS,
    ServerError,
    serve_peer,
)
from tests.bench.setup import Bench
from tests.bench.viewer import drop_to_result

CONCURRENCIES: Final = (1, 2, 4, 8, 16, 32)
PEER_CONCURRENCIES: Final = (1, 16, 32)
NUM_PEER_ROUNDS: Final = 4
"""Of a few seconds each: one in a hundred answers is then more than one or two."""

FOLDER_SIZES: Final = (8, 520)
NUM_FOLDER_ROUNDS: Final = 3


def stages(bench: Bench) -> dict[str, Any]:
    """Medians of each stage of an answer without a server, by model and runtime, taking turns."""
    engines = {
        f"{folder.parent.name}@{folder.name}, {runtime}": engine_maker(runtime)(folder)
        for folder, runtime in bench.forms()
    }
    watches = {name: bare.Stopwatch() for name in engines}
    for number in range(bench.rounds + 5):
        for name, engine in engines.items():
            watch = watches[name] if number >= 5 else bare.Stopwatch()
            bare.answer(engine, bench.jpeg, watch)
    return {name: bare.medians(watch.seconds) for name, watch in watches.items()}


def heatmaps(bench: Bench) -> dict[str, Any]:
    """What heatmaps add to the model's own time."""
    threads = available_processors()
    return {
        folder.parent.name: heatmap_share(folder, bench.rounds, threads)
        for folder in bench.artifacts
    }


def latency(bench: Bench) -> dict[str, Any]:
    """Load at several concurrencies, with and without heatmap, by model and runtime."""
    found: dict[str, Any] = {}
    for runtime, folders in bench.runtimes().items():
        with bench.project(runtime) as server:
            for folder, with_heatmap in itertools.product(folders, (True, False)):
                name = f"{folder.parent.name}@{folder.name}, {runtime}"
                name += "" if with_heatmap else ", no heatmap"
                call = bench.call(folder, heatmap=with_heatmap)
                found[name] = {
                    str(n): asyncio.run(closed_loop(server.port, call, n, bench.seconds)).summary()
                    for n in CONCURRENCIES
                }
    return found


def peers(bench: Bench) -> dict[str, Any]:
    """The default model in float32 OpenVINO under the service and its peers, taking turns."""
    artifact = bench.default_artifact()
    found: dict[str, Any] = {}
    with ExitStack() as running:
        targets = {
            "DermHybrid": (running.enter_context(bench.project("openvino")), bench.call(artifact))
        }
        for name, peer in PEERS.items():
            try:
                server = running.enter_context(
                    serve_peer(peer, next(bench.ports), bench.log(name), artifact, bench.jpeg)
                )
            except (ServerError, subprocess.CalledProcessError) as error:
                found[name] = {"failed": str(error)[:300]}
                continue
            targets[name] = (server, peer.call(bench.jpeg))
        loads: dict[tuple[str, int], list[Load]] = {}
        for _, n in itertools.product(range(NUM_PEER_ROUNDS), PEER_CONCURRENCIES):
            for name, (server, call) in targets.items():
                load = asyncio.run(closed_loop(server.port, call, n, bench.seconds))
                loads.setdefault((name, n), []).append(load)
        for (name, n), parts in loads.items():
            found.setdefault(name, {})[str(n)] = together(parts).summary()
        for name, (server, _) in targets.items():
            found[name]["resident_mb"] = round(server.resident_mb())
    return found


def start(bench: Bench) -> dict[str, Any]:
    """Seconds to readiness with all models, and memory, by runtime; medians of three starts."""
    found: dict[str, Any] = {}
    for runtime in bench.runtimes():
        seconds, memory = [], []
        for _ in range(3):
            with bench.project(runtime) as server:
                seconds.append(server.start_seconds)
                memory.append(server.resident_mb())
        found[runtime] = {
            "start_seconds": round(statistics.median(seconds), 2),
            "resident_mb": round(statistics.median(memory)),
        }
    return found


def folder(bench: Bench) -> dict[str, Any]:
    """Images a second of `dermhybrid predict FOLDER`, by the difference of two folders' times."""
    command = [str(Path(sys.executable).with_name("dermhybrid")), "predict"]
    environment = {
        **os.environ,
        "RUNTIME": "openvino",
        "MODELS_DIR": str(bench.models),
        "OUT_OF_DISTRIBUTION_GATE": "advise",
    }
    seconds: dict[int, list[float]] = {size: [] for size in FOLDER_SIZES}
    with TemporaryDirectory(prefix="bench-images-") as scratch:
        for size in FOLDER_SIZES:
            (Path(scratch) / str(size)).mkdir()
            for number in range(size):
                (Path(scratch) / str(size) / f"{number:03d}.jpg").write_bytes(bench.jpeg)
        for _, size in itertools.product(range(NUM_FOLDER_ROUNDS), FOLDER_SIZES):
            started = time.perf_counter()
            subprocess.run(
                [*command, str(Path(scratch) / str(size))],
                env=environment,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            seconds[size].append(time.perf_counter() - started)
    few, many = FOLDER_SIZES
    # A start takes seconds, and seconds more or less from one to the next.
    short, long = statistics.median(seconds[few]), statistics.median(seconds[many])
    return {
        "images_per_second": round((many - few) / (long - short), 2),
        "start_seconds": round(short, 2),
    }


def viewer(bench: Bench) -> dict[str, Any]:
    """From a dropped image to its answer on the clinician's page, in Chromium."""
    # By default a drawn lesion gets a refusal, which is less to show.
    with bench.project("openvino", out_of_distribution_gate="advise") as server:
        return drop_to_result(f"http://127.0.0.1:{server.port}", bench.jpeg, bench.rounds)


SECTIONS: Final = {
    "stages": stages,
    "heatmaps": heatmaps,
    "overhead": overhead,
    "latency": latency,
    "peers": peers,
    "overload": overload,
    "stop": stop,
    "reloads": reloads,
    "start": start,
    "folder": folder,
    "viewer": viewer,
}
