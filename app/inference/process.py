"""How a process that answers uses its processors and its memory."""

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

import anyio
import cv2
import numpy as np  # noqa: F401  loads the BLAS that is limited here
from anyio import to_thread
from threadpoolctl import threadpool_limits

from app.inference.processors import available_processors

Result = TypeVar("Result")

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
"""Of glibc's `mallopt` (malloc.h)."""
_KEPT_BYTES: Final = 32 * 1024 * 1024
"""glibc's upper bound for M_MMAP_THRESHOLD on 64 bits; more than the arrays of one answer."""


def prepare_process() -> None:
    """Set the process up for one answer after the other; call it before the first.

    Processors: NumPy's BLAS and OpenCV work in the calling thread. Their threads wait for the next
    call in a busy loop, OpenBLAS's for tens of milliseconds after the smallest product of a matrix
    and a vector, on a processor that the model needs; and answers are made beside each other.

    Memory: what is freed is kept for the next answer. By glibc's own thresholds it depends on the
    heap's order whether a picture's arrays go back to the system at the end of every answer, and
    are taken again with a page fault for every 4 KB. Threads share as many heaps as there are
    processors, where glibc makes eight times as many: each keeps what its threads have freed, so
    that memory would grow with every reload. Elsewhere than with glibc nothing is set.
    """
    threadpool_limits(1, user_api="blas")
    cv2.setNumThreads(1)
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_ARENA_MAX, available_processors())


_BEHIND: Final = 5
"""Nice value beside the event loop's; about a third of its weight (`man 7 sched`)."""
_thread: Final = threading.local()


def work_behind_the_event_loop() -> None:
    """Let the event loop go first where processors are scarce; call it in the thread that works.

    A refusal and `/health` take milliseconds, and would wait for pictures and models otherwise.
    Threads that the calling one starts go behind, too. On Linux; nothing happens elsewhere, or
    where a sandbox forbids it.
    """
    if sys.platform != "linux" or hasattr(_thread, "behind"):
        return
    _thread.behind = True
    with suppress(OSError):
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(own + _BEHIND, 19))


async def run_behind(
    threads: anyio.CapacityLimiter | None, function: Callable[..., Result], *arguments: object
) -> Result:
    """Run a function in one of some threads, or of anyio's own, behind the event loop."""

    def work() -> Result:
        work_behind_the_event_loop()
        return function(*arguments)

    return await to_thread.run_sync(work, limiter=threads)


def give_memory_back() -> None:
    """Let the system have what is not used any more; glibc keeps it otherwise."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
