"""The sections that press the service: overload, a stop under load, reloads under load."""

import asyncio
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from app.domain.manifest import read_manifest, write_manifest
from tests.bench.client import (
    LOST,
    Load,
    ask,
    closed_loop,
    find_capacity,
    open_loop,
    together,
)
from tests.bench.connections import connect
from tests.bench.servers import READY, Call, Server, raw_call
from tests.bench.setup import Bench

OVERLOAD: Final = 3.0
HEALTH_INTERVAL_SECONDS: Final = 0.1
NUM_RELOADS: Final = 10
SETTLE_SECONDS: Final = 5.0
"""After a new version answers, the old one ends its last requests and is let go."""

NUM_STOPPED: Final = 200


def overload(bench: Bench, seconds: float = 60.0) -> dict[str, Any]:
    """Three times the requests that the service can answer, and what becomes of them."""
    artifact = bench.default_artifact()
    call = bench.call(artifact)
    with bench.project("openvino") as server:
        found = find_capacity(server.port, call, 2 * bench.seconds)
        before = server.resident_mb()
        load, health = asyncio.run(_overload(server, call, OVERLOAD * found, seconds))
        after = server.resident_mb()
        again = find_capacity(server.port, call, 2 * bench.seconds)
    capacity = (found + again) / 2.0  # the machine's speed moves while it is loaded
    return {
        "capacity_per_second": round(capacity, 2),
        "capacity_before_and_after": [round(found, 2), round(again, 2)],
        "offered_per_second": round(OVERLOAD * found, 2),
        "seconds": seconds,
        "goodput_share": round(load.throughput() / capacity, 4),
        "statuses": load.statuses(),
        "health_statuses": health.statuses(),
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
        async with connect() as connections:
            while True:
                health.add(*await ask(connections, server.port, READY))
                await asyncio.sleep(HEALTH_INTERVAL_SECONDS)

    probing = asyncio.create_task(probe())
    try:
        return await open_loop(server.port, call, rate, seconds), health
    finally:
        probing.cancel()


def stop(bench: Bench) -> dict[str, Any]:
    """SIGTERM while 200 requests are in flight."""
    call = bench.call(bench.default_artifact())
    with bench.project("openvino", max_predictions_in_progress=NUM_STOPPED) as server:
        load = asyncio.run(_stop(server, call))
        status = server.process.wait(60)
    statuses = load.statuses()
    lost = statuses.pop(str(LOST), 0)
    return {"in_flight": NUM_STOPPED, "statuses": statuses, "lost": lost, "exit_status": status}


async def _stop(server: Server, call: Call) -> Load:
    load = Load()
    async with connect() as connections:

        async def send() -> None:
            load.add(*await ask(connections, server.port, call))

        async with asyncio.TaskGroup() as requests:
            for _ in range(NUM_STOPPED):
                requests.create_task(send())
            await asyncio.sleep(1.0)
            server.process.send_signal(signal.SIGTERM)
    return load


def reloads(bench: Bench) -> dict[str, Any]:
    """Ten reloads, each of a new version of the default model, while requests are answered."""
    original = bench.default_artifact()
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
    load = together(loads)
    return {
        "reloads": served - int(original.name),
        "resident_mb": [round(megabytes) for megabytes in memory],
        "growth_share": round(memory[-1] / memory[0] - 1.0, 4),
        "statuses": load.statuses(),
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
