"""What the service adds to the work itself."""

import asyncio
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.bench.client import Load, ask
from tests.bench.connections import connect
from tests.bench.servers import Call, Server
from tests.bench.setup import Bench

NUM_STARTS: Final = 3
"""A process has its luck with the memory that it gets: both are started so often."""

WARM_UP: Final = 5


def overhead(bench: Bench) -> dict[str, Any]:
    """A request of the service beside the bare work in a process of its own, taking turns."""
    found: dict[str, Any] = {}
    jpeg = bench.log("image").with_suffix(".jpg")
    jpeg.parent.mkdir(parents=True, exist_ok=True)
    jpeg.write_bytes(bench.jpeg)
    pairs: dict[str, list[tuple[float, float]]] = {}
    for _ in range(NUM_STARTS):
        with bench.project("openvino") as server:
            for folder in bench.artifacts:
                with _bare(folder, jpeg) as bare:
                    turns = _take_turns(server, bench.call(folder), bare, bench.rounds)
                    pairs.setdefault(folder.parent.name, []).append(asyncio.run(turns))
    for name, measured in pairs.items():
        bare_ms, served_ms = (statistics.median(values) for values in zip(*measured, strict=True))
        found[name] = {
            "bare_p50_ms": round(bare_ms, 2),
            "service_p50_ms": round(served_ms, 2),
            "overhead_ms": round(served_ms - bare_ms, 2),
            "overhead_share": round(served_ms / bare_ms - 1.0, 4),
            "by_start_ms": [round(served - alone, 2) for alone, served in measured],
        }
    return found


class _Bare:
    """The work without a server, in a process that waits in between as a server does."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._ask, self._answers = process.stdin, process.stdout

    def work(self) -> float:
        """Do it once; how many seconds that took."""
        self._ask.write("\n")
        self._ask.flush()
        return float(self._answers.readline())


@contextmanager
def _bare(folder: Path, jpeg: Path) -> Iterator[_Bare]:
    command = [sys.executable, "-m", "tests.bench.bare", str(folder), str(jpeg)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield _Bare(process)  # it ends where its input does


async def _take_turns(server: Server, call: Call, bare: _Bare, rounds: int) -> tuple[float, float]:
    """Medians in milliseconds, of the bare work and of the service."""
    alone, load = [], Load()
    async with connect() as connections:
        for _ in range(rounds + WARM_UP):
            alone.append(bare.work())
            load.add(*await ask(connections, server.port, call))
    served = load.latencies[200]
    return statistics.median(alone[WARM_UP:]) * 1e3, statistics.median(served[WARM_UP:]) * 1e3
