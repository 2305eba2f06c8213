"""Load on a server from one event loop, and what came of it."""

import asyncio
import statistics
import time
from dataclasses import dataclass, field
from typing import Any, Final

from tests.bench.connections import Connections, connect
from tests.bench.servers import Call

CAPACITY_CALLERS: Final = 16
"""Enough to keep every processor busy, and few enough that nobody is refused."""

LOST: Final = 0
"""In place of a status: the connection broke before an answer came."""

CLIENT_SECONDS: Final = 120.0


@dataclass(slots=True)
class Load:
    """Answers to some requests.

    Attributes:
        seconds: Of the whole load.
        latencies: Seconds of each request, by status; `LOST` for none.
    """

    seconds: float = 0.0
    latencies: dict[int, list[float]] = field(default_factory=dict)

    def add(self, status: int, latency: float) -> None:
        """Count an answer."""
        self.latencies.setdefault(status, []).append(latency)

    def throughput(self, status: int = 200) -> float:
        """Answers of a status a second."""
        return len(self.latencies.get(status, [])) / self.seconds

    def quantile(self, share: float, status: int = 200) -> float:
        """Latency that a share of the answers of a status stays within, in milliseconds."""
        ordered = sorted(self.latencies[status])
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3

    def statuses(self) -> dict[str, int]:
        """How many answers there are of each status, as JSON values."""
        return {str(status): len(times) for status, times in sorted(self.latencies.items())}

    def summary(self) -> dict[str, Any]:
        """Throughput, latencies and statuses as JSON values."""
        return {
            "requests_per_second": round(self.throughput(), 2),
            "p50_ms": round(statistics.median(self.latencies[200]) * 1e3, 2),
            "p95_ms": round(self.quantile(0.95), 2),
            "p99_ms": round(self.quantile(0.99), 2),
            "statuses": self.statuses(),
        }


async def closed_loop(port: int, call: Call, concurrency: int, seconds: float) -> Load:
    """Callers who each send the next request when the last one is answered.

    Args:
        port: Of the server.
        call: What they ask.
        concurrency: How many callers.
        seconds: How long they begin new requests.
    """
    load = Load()
    async with connect() as connections:
        started = time.perf_counter()

        async def caller() -> None:
            while time.perf_counter() - started < seconds:
                load.add(*await ask(connections, port, call))

        await asyncio.gather(*(caller() for _ in range(concurrency)))
        load.seconds = time.perf_counter() - started
    return load


def find_capacity(port: int, call: Call, seconds: float) -> float:
    """Answers a second of a server that is kept busy.

    Args:
        port: Of the server.
        call: What it is asked.
        seconds: How long it is kept so.
    """
    return asyncio.run(closed_loop(port, call, CAPACITY_CALLERS, seconds)).throughput()


async def open_loop(port: int, call: Call, rate: float, seconds: float) -> Load:
    """Requests at a steady rate, whether or not earlier ones are answered.

    Args:
        port: Of the server.
        call: What is asked.
        rate: Requests a second.
        seconds: How long new ones are sent.
    """
    load = Load()

    async def send() -> None:
        load.add(*await ask(connections, port, call))

    async with connect() as connections, asyncio.TaskGroup() as requests:
        started = time.perf_counter()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
            requests.create_task(send())
    load.seconds = time.perf_counter() - started
    return load


async def ask(connections: Connections, port: int, call: Call) -> tuple[int, float]:
    """Send a request: its status, and seconds to the answer's last byte."""
    started = time.perf_counter()
    try:
        async with asyncio.timeout(CLIENT_SECONDS):
            status = await connections.send(port, call)
    except OSError:  # of which a connection that ended and a time-out are kinds
        status = LOST
    return status, time.perf_counter() - started


def together(loads: list[Load]) -> Load:
    """Several loads as one."""
    whole = Load(sum(load.seconds for load in loads))
    for load in loads:
        for status, times in load.latencies.items():
            whole.latencies.setdefault(status, []).extend(times)
    return whole
