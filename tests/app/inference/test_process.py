"""What a process is set up to: each in a process of its own, for it holds for all of it."""

import ctypes
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.inference.process import work_behind_the_event_loop
from tests.conftest import REPOSITORY

THREADS = """
import cv2
import numpy as np
from threadpoolctl import threadpool_info

from app.inference.process import prepare_process

prepare_process()
print(cv2.getNumThreads(), *(found["num_threads"] for found in threadpool_info()))
"""

FAULTS = """
import resource
import sys

from app.inference.process import give_memory_back, prepare_process

if sys.argv[1] == "prepared":
    prepare_process()


def answer():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pictures = [bytearray(4_000_000) for _ in range(3)]
    for picture in pictures:
        picture[::4096] = bytes(len(picture[::4096]))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


answer()
answer()
print(answer())
give_memory_back()
print(answer())
"""


HEAPS = """
import ctypes
import sys
from threading import Barrier, Thread

from app.inference.process import prepare_process
from app.inference.processors import available_processors

if sys.argv[1] == "prepared":
    prepare_process()
together = Barrier(4 * available_processors())


def hold():
    together.wait()
    pictures = [bytearray(100_000) for _ in range(10)]
    together.wait()


threads = [Thread(target=hold) for _ in range(together.parties)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
glibc = ctypes.CDLL(None)
glibc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(glibc.fopen(sys.argv[2].encode(), b"w"))
glibc.malloc_info(0, file)
glibc.fclose(file)
print(available_processors())
"""

PRIORITIES = """
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from app.inference.process import work_behind_the_event_loop


def nice():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def work():
    before = nice()
    work_behind_the_event_loop()
    work_behind_the_event_loop()  # once is enough
    with ThreadPoolExecutor(1) as threads:
        return nice() - before, threads.submit(nice).result() - before


with ThreadPoolExecutor(1) as threads:
    before = nice()
    print(*threads.submit(work).result(), nice() - before)
"""


def run(program: str, *arguments: str) -> list[int]:
    """The numbers that a program prints."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [int(number) for number in done.stdout.split()]


def test_numpy_and_opencv_work_in_the_calling_thread() -> None:
    opencv, *others = run(THREADS)
    assert opencv == 1
    assert set(others) == {1}  # at least NumPy's BLAS was found


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_memory_is_kept_for_the_next_answer_until_it_is_given_back() -> None:
    as_it_comes, _ = run(FAULTS, "as it comes")
    kept, after_giving_back = run(FAULTS, "prepared")
    assert as_it_comes > 2000  # or nothing would be won
    assert kept < 100
    assert after_giving_back > 2000


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_threads_share_as_many_heaps_as_there_are_processors(tmp_path: Path) -> None:
    heaps = {}
    for name in ("as it comes", "prepared"):
        found = tmp_path / f"{name}.xml"
        (processors,) = run(HEAPS, name, str(found))
        heaps[name] = found.read_text().count("<heap nr=")
    assert heaps["as it comes"] > processors  # or nothing would be won
    assert heaps["prepared"] <= processors


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priorities of their own")
def test_what_works_goes_behind_the_event_loop_with_the_threads_that_it_starts() -> None:
    worker, started_by_it, event_loop = run(PRIORITIES)
    assert worker == started_by_it == 5
    assert event_loop == 0


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priorities of their own")
def test_a_sandbox_without_priorities_is_worked_in(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def forbid(*arguments: int) -> None:
        asked.append(arguments)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", forbid)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(work_behind_the_event_loop).result()
    assert len(asked) == 1
