"""Faults as context managers: injected on entry, gone on exit."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

FAKETIME: Final = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
"""Debian's package `faketime`: lets a process see another time of day."""

_BLOCK: Final = b"\0" * (64 * 1024)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """SIGSTOP, then SIGCONT."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def limited(pid: int, kind: int, value: int) -> Iterator[None]:
    """A lower soft limit (`resource.RLIMIT_...`) of a running process."""
    soft, hard = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (value, hard))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, kind, (soft, hard))


@contextmanager
def starved() -> Iterator[str]:
    """Two busy processes for each core, ahead of all others where one may; yields how."""
    number = 2 * len(os.sched_getaffinity(0))
    busy = [
        subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(number)
    ]
    niceness, words = (-10 if os.geteuid() == 0 else 0), f"{number} busy processes"
    try:
        for process in busy:
            os.setpriority(os.PRIO_PROCESS, process.pid, niceness)
        yield f"{words} at niceness {niceness}"
    finally:
        for process in busy:
            process.kill()
            process.wait()


@contextmanager
def small_disk(folder: Path, num_bytes: int) -> Iterator[bool]:
    """A file system of its own at a folder; yields whether it could be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Not a byte left on a folder's file system."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (len(_BLOCK), 4096, 1):
            with suppress(OSError):
                while file.write(_BLOCK[:size]) == size:
                    pass
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def missing(path: Path) -> Iterator[None]:
    """A file that is not there."""
    elsewhere = path.parents[2] / f"{path.name}.elsewhere"
    shutil.move(path, elsewhere)
    try:
        yield
    finally:
        shutil.move(elsewhere, path)


@contextmanager
def corrupt(path: Path) -> Iterator[None]:
    """A file with one bit of its middle flipped."""
    place = path.stat().st_size // 2
    _flip(path, place)
    try:
        yield
    finally:
        _flip(path, place)


def _flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


class Clock:
    """The time of day of processes that are started with its environment.

    Timers keep the machine's own monotonic clock, as when an administrator or NTP sets the time.
    """

    def __init__(self, file: Path) -> None:
        assert FAKETIME is not None
        self._file = file
        self.set("+0")
        self.environment = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
        }

    def set(self, offset: str) -> None:
        """Jump, `-1h` or `+1d` from the true time."""
        scratch = self._file.with_suffix(".new")
        scratch.write_text(offset + "\n")
        scratch.replace(self._file)


def resident_mb(pid: int) -> int:
    """Memory of a process in megabytes."""
    return round(psutil.Process(pid).memory_info().rss / 1e6)


def forget_peak(pid: int) -> None:
    """Begin to measure the largest memory anew (Linux, proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mb(pid: int) -> int:
    """Largest memory of a process since `forget_peak`, in megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return round(int(kilobytes) * 1024 / 1e6)


def num_descriptors(pid: int) -> int:
    """Open files and sockets of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
