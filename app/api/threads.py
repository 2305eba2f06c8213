"""Blocking work beside the event loop, with its waiting and its duration measured."""

from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

import anyio
from anyio import to_thread

from app.telemetry import Metrics, Named

Result = TypeVar("Result")


async def run_queued(
    metrics: Metrics,
    manifest: Named,
    threads: anyio.CapacityLimiter,
    function: Callable[..., Result],
    *arguments: object,
) -> Result:
    """Run a function in one of some threads.

    Args:
        metrics: Gets the time spent waiting for a thread as stage "queue".
        manifest: The model that the work is for.
        threads: How many such functions run at once.
        function: Blocks.
        arguments: For it.

    Returns:
        What the function returns; what it raises passes through.
    """

    def work() -> Result:
        metrics.observe_stage("queue", manifest, perf_counter() - asked)
        return function(*arguments)

    asked = perf_counter()
    return await to_thread.run_sync(work, limiter=threads)


async def run_timed(
    metrics: Metrics,
    manifest: Named,
    stage: str,
    threads: anyio.CapacityLimiter,
    function: Callable[..., Result],
    *arguments: object,
) -> Result:
    """Run a function in one of some threads, and measure it there.

    Args:
        metrics: Gets the function's own time as `stage`, and what `run_queued` measures.
        manifest: The model that the work is for.
        stage: Name of the work.
        threads: How many such functions run at once.
        function: Blocks.
        arguments: For it.

    Returns:
        What the function returns; what it raises passes through.
    """

    def work() -> Result:
        with metrics.time_stage(stage, manifest):
            return function(*arguments)

    return await run_queued(metrics, manifest, threads, work)
