"""The sections of the benchmark; each gives JSON values and says what they are."""

import asyncio
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from app.domain.manifest import read_manifest, write_manifest
from app.inference.runtimes import engine_maker
from tests.bench import bare
from tests.bench.client import LOST, Load, ask, closed_loop, connect, open_loop
from tests.bench.heatmap_share import heatmap_share
from tests.bench.overhead import overhead
from tests.bench.servers import (
    PEERS,
    Call,
    Server,
    ServerError,
    raw_call,
    serve_peer,
)
from tests.bench.setup import Bench
from tests.bench.viewer import drop_to_result

CONCURRENCIES: Final = (1, 2, 4, 8, 16, 32)
PEER_CONCURRENCIES: Final = (1, 16, 32)
OVERLOAD: Final = 3.0
HEALTH_INTERVAL_SECONDS: Final = 0.1
NUM_RELOADS: Final = 10
SETTLE_SECONDS: Final = 5.0
"""After a new version answers, the old one ends its last requests and is let go."""

NUM_STOPPED: Final = 200
FOLDER_SIZES: Final = (8, 520)
NUM_FOLDER_ROUNDS: Final = 3
_READY: Final = Call("/health/ready", b"", "")


def stages(bench: Bench) -> dict[str, Any]:
    """Medians of each stage of an answer without a server, by model and runtime, taking turns."""
    engines = {
        f"{folder.parent.name}@{folder.name}, {runtime}": engine_maker(runtime)(folder)
        for folder in bench.artifacts
        for runtime in bench.runtimes()
    }
    watches = {name: bare.Stopwatch() for name in engines}
    for number in range(bench.rounds + 5):
        for name, engine in engines.items():
            watch = watches[name] if number >= 5 else bare.Stopwatch()
            bare.answer(engine, bench.jpeg, watch)
    return {name: bare.medians(watch.seconds) for name, watch in watches.items()}


def heatmaps(bench: Bench) -> dict[str, Any]:
    """What heatmaps add to the model's own time."""
    threads = len(os.sched_getaffinity(0))
    return {
        folder.parent.name: heatmap_share(folder, bench.rounds, threads)
        for folder in bench.artifacts
    }


def latency(bench: Bench) -> dict[str, Any]:
    """Load at several concurrencies, with and without heatmap, by model and runtime."""
    found: dict[str, Any] = {}
    for runtime in bench.runtimes():
        with bench.project(runtime) as server:
            for folder, with_heatmap in itertools.product(bench.artifacts, (True, False)):
                name = f"{folder.parent.name}@{folder.name}, {runtime}"
                name += "" if with_heatmap else ", no heatmap"
                call = bench.call(folder, heatmap=with_heatmap)
                found[name] = {
                    str(n): asyncio.run(closed_loop(server.port, call, n, bench.seconds)).summary()
                    for n in CONCURRENCIES
                }
    return found


def peers(bench: Bench) -> dict[str, Any]:
    """The default model in float32 OpenVINO under the service and its peers, in two rounds."""
    artifact = _default_artifact(bench)
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
        for _, n in itertools.product(range(2), PEER_CONCURRENCIES):
            for name, (server, call) in targets.items():
                load = asyncio.run(closed_loop(server.port, call, n, bench.seconds))
                loads.setdefault((name, n), []).append(load)
        for (name, n), parts in loads.items():
            found.setdefault(name, {})[str(n)] = _together(parts).summary()
        for name, (server, _) in targets.items():
            found[name]["resident_mb"] = round(server.resident_mb())
    return found


def overload(bench: Bench, seconds: float = 60.0) -> dict[str, Any]:
    """Three times the requests that the service can answer, and what becomes of them."""
    artifact = _default_artifact(bench)
    call = bench.call(artifact)
    with bench.project("openvino") as server:
        capacity = asyncio.run(closed_loop(server.port, call, 16, 2 * bench.seconds)).throughput()
        before = server.resident_mb()
        load, health = asyncio.run(_overload(server, call, OVERLOAD * capacity, seconds))
        after = server.resident_mb()
    return {
        "capacity_per_second": round(capacity, 2),
        "offered_per_second": round(OVERLOAD * capacity, 2),
        "seconds": seconds,
        "goodput_share": round(load.throughput() / capacity, 4),
        "statuses": {str(status): len(times) for status, times in load.latencies.items()},
        "rejected_p50_ms": round(load.quantile(0.5, 503), 2),
        "rejected_p99_ms": round(load.quantile(0.99, 503), 2),
        "health_p50_ms": round(health.quantile(0.5), 2),
        "health_p99_ms": round(health.quantile(0.99), 2),
        "resident_mb_before": round(before),
        "resident_mb_after": round(after),
    }


async def _overload(server: Server, call: Call, rate: float, seconds: float) -> tuple[Load, Load]:
    health = Load()

    async def probe() -> None:
        async with connect() as session:
            while True:
                health.add(*await ask(session, server.port, _READY))
                await asyncio.sleep(HEALTH_INTERVAL_SECONDS)

    probing = asyncio.create_task(probe())
    try:
        return await open_loop(server.port, call, rate, seconds), health
    finally:
        probing.cancel()


def stop(bench: Bench) -> dict[str, Any]:
    """SIGTERM while 200 requests are in flight."""
    call = bench.call(_default_artifact(bench))
    with bench.project("openvino", max_predictions_in_progress=NUM_STOPPED) as server:
        load = asyncio.run(_stop(server, call))
        status = server.process.wait(60)
    statuses = {str(status): len(times) for status, times in load.latencies.items() if status}
    lost = len(load.latencies.get(LOST, []))
    return {"in_flight": NUM_STOPPED, "statuses": statuses, "lost": lost, "exit_status": status}


async def _stop(server: Server, call: Call) -> Load:
    load = Load()
    async with connect() as session:

        async def send() -> None:
            load.add(*await ask(session, server.port, call))

        async with asyncio.TaskGroup() as requests:
            for _ in range(NUM_STOPPED):
                requests.create_task(send())
            await asyncio.sleep(1.0)
            server.process.send_signal(signal.SIGTERM)
    return load


def reloads(bench: Bench) -> dict[str, Any]:
    """Ten reloads, each of a new version of the default model, while requests are answered."""
    original = _default_artifact(bench)
    with TemporaryDirectory(prefix="bench-models-") as scratch:
        folder = Path(scratch) / original.parent.name / original.name
        shutil.copytree(original, folder)
        with bench.project("openvino", models_dir=scratch) as server:
            call = raw_call(bench.jpeg)
            loads = [asyncio.run(closed_loop(server.port, call, 4, bench.seconds))]
            memory = [_settled_mb(server)]
            for _ in range(NUM_RELOADS):
                folder = _next_version(folder)
                server.process.send_signal(signal.SIGHUP)
                loads.append(asyncio.run(closed_loop(server.port, call, 4, bench.seconds)))
                served = _wait_for_version(server.port, int(folder.name))
                memory.append(_settled_mb(server))
    load = _together(loads)
    return {
        "reloads": served - int(original.name),
        "resident_mb": [round(megabytes) for megabytes in memory],
        "growth_share": round(memory[-1] / memory[0] - 1.0, 4),
        "statuses": {str(status): len(times) for status, times in load.latencies.items()},
    }


def _settled_mb(server: Server) -> float:
    time.sleep(SETTLE_SECONDS)
    return server.resident_mb()


def _wait_for_version(port: int, version: int) -> int:
    """The version that is served, the expected one as soon as it is; a reload takes its time."""
    give_up = time.monotonic() + 120
    while True:
        listed = subprocess.check_output(["curl", "-s", f"http://127.0.0.1:{port}/models"])
        served = int(json.loads(listed)["models"][0]["version"])
        if served >= version or time.monotonic() > give_up:
            return served
        time.sleep(0.05)


def _next_version(folder: Path) -> Path:
    """Give an artifact the next version number; nothing else of it changes."""
    manifest, _ = read_manifest(folder)
    following = manifest.model_copy(update={"version": manifest.version + 1})
    renamed = folder.with_name(str(following.version))
    folder.rename(renamed)
    write_manifest(renamed, following)
    return renamed


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


def _default_artifact(bench: Bench) -> Path:
    """Of the model that answers where none is named."""
    return max(bench.artifacts, key=lambda f: read_manifest(f)[0].metrics.balanced_accuracy.value)


def _together(loads: list[Load]) -> Load:
    """Several loads as one."""
    whole = Load(sum(load.seconds for load in loads))
    for load in loads:
        for status, times in load.latencies.items():
            whole.latencies.setdefault(status, []).extend(times)
    return whole


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
