"""What the service adds to the work itself."""

import asyncio
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tests.bench.client import Load, ask
from tests.bench.connections import connect
from tests.bench.servers import PEERS, Call, Server, serve_peer
from tests.bench.setup import Bench

NUM_STARTS: Final = 3
"""A process has its luck with the memory that it gets: all are started so often."""

WARM_UP: Final = 5
PLAIN: Final = "FastAPI, async def"
"""The peer that shows what the framework and HTTP add by themselves."""


def overhead(bench: Bench) -> dict[str, Any]:
    """A request of the service, of plain FastAPI, and the bare work in a process, taking turns."""
    found: dict[str, Any] = {}
    jpeg = bench.log("image").with_suffix(".jpg")
    jpeg.parent.mkdir(parents=True, exist_ok=True)
    jpeg.write_bytes(bench.jpeg)
    starts: dict[str, list[tuple[float, ...]]] = {}
    for _ in range(NUM_STARTS):
        with bench.project("openvino") as server:
            for folder in bench.artifacts:
                with _bare(folder, jpeg) as bare, _plain(bench, folder) as plain:
                    asked = (server, bench.call(folder)), (plain, PEERS[PLAIN].call(bench.jpeg))
                    turns = asyncio.run(_take_turns(bare, asked, bench.rounds))
                    starts.setdefault(folder.parent.name, []).append(turns)
    for name, measured in starts.items():
        alone_ms, served_ms, plain_ms = (np.array(values) for values in zip(*measured, strict=True))
        found[name] = {
            "bare_p50_ms": _median(alone_ms),
            "service_p50_ms": _median(served_ms),
            "plain_p50_ms": _median(plain_ms),
            # Of what took turns with each other.
            "overhead_ms": _median(served_ms - alone_ms),
            "overhead_share": round(float(np.median(served_ms / alone_ms)) - 1.0, 4),
            "plain_overhead_ms": _median(plain_ms - alone_ms),
            "by_start_ms": (served_ms - alone_ms).round(2).tolist(),
        }
    return found


def _median(milliseconds: npt.NDArray[np.float64]) -> float:
    return round(float(np.median(milliseconds)), 2)


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


def _plain(bench: Bench, folder: Path) -> AbstractContextManager[Server]:
    log, port = bench.log(f"overhead {PLAIN}"), next(bench.ports)
    return serve_peer(PEERS[PLAIN], port, log, folder, bench.jpeg)


async def _take_turns(
    bare: _Bare, asked: Sequence[tuple[Server, Call]], rounds: int
) -> tuple[float, ...]:
    """Medians in milliseconds, of the bare work and of each server."""
    alone, loads = [], [Load() for _ in asked]
    async with connect() as connections:
        for _ in range(rounds + WARM_UP):
            alone.append(bare.work())
            for load, (server, call) in zip(loads, asked, strict=True):
                load.add(*await ask(connections, server.port, call))
    columns = [alone, *(load.latencies[200] for load in loads)]
    return tuple(statistics.median(column[WARM_UP:]) * 1e3 for column in columns)
