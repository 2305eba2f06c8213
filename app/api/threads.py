"""Blocking work beside the event loop, with its waiting and its duration measured."""

from collections.abc import Callable
from typing import TypeVar

import anyio

from app.inference.process import run_behind
from app.metrics import Named
from app.stages import Asked, Stages

Result = TypeVar("Result")


async def run_queued(
    stages: Stages,
    manifest: Named,
    threads: anyio.CapacityLimiter,
    function: Callable[..., Result],
    *arguments: object,
) -> Result:
    """Run a function in one of some threads.

    Args:
        stages: Gets the time spent waiting for a thread as stage "queue".
        manifest: The model that the work is for.
        threads: How many such functions run at once.
        function: Blocks.
        arguments: For it.

    Returns:
        What the function returns; what it raises passes through.
    """

    def work() -> Result:
        stages.waited(manifest, asked)
        return function(*arguments)

    asked = Asked.now()
    return await run_behind(threads, work)


async def run_timed(
    stages: Stages,
    manifest: Named,
    stage: str,
    threads: anyio.CapacityLimiter,
    function: Callable[..., Result],
    *arguments: object,
) -> Result:
    """Run a function in one of some threads, and measure it there.

    Args:
        stages: Gets the function's own time as `stage`, and what `run_queued` measures.
        manifest: The model that the work is for.
        stage: Name of the work.
        threads: How many such functions run at once.
        function: Blocks.
        arguments: For it.

    Returns:
        What the function returns; what it raises passes through.
    """

    def work() -> Result:
        with stages.time(stage, manifest):
            return function(*arguments)

    return await run_queued(stages, manifest, threads, work)
