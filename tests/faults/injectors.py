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
_AHEAD: Final = -10
_BUSY: Final = """
import time
end = time.monotonic() + 120
while time.monotonic() < end: pass
"""
"""Ends by itself where nobody is left to end it."""


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
def starved(*, gently: bool) -> Iterator[str]:
    """Take the processor from all others; yields how.

    Args:
        gently: One busy process like any other; else two for each core, ahead of all others
            where one may.
    """
    number = 1 if gently else 2 * len(os.sched_getaffinity(0))
    command = [sys.executable, "-S", "-c", _BUSY]
    busy = [subprocess.Popen(command) for _ in range(number)]
    try:
        niceness = 0 if gently else _AHEAD
        try:
            for process in busy:
                os.setpriority(os.PRIO_PROCESS, process.pid, niceness)
        except PermissionError:
            niceness = 0
        yield f"{number} busy process{'es' * (number > 1)} at niceness {niceness}"
    finally:
        for process in busy:
            process.kill()
            process.wait()


@contextmanager
def small_disk(folder: Path, num_bytes: int) -> Iterator[bool]:
    """A file system of its own at a folder; yields whether it could be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        yield False
        return
    # It reads to the end, which comes with this process's, however that ends.
    unmount = ["sh", "-c", 'read -r _; exec umount --lazy "$1"', "sh", str(folder)]
    watcher = subprocess.Popen(unmount, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield True
    finally:
        watcher.communicate()
        if watcher.returncode:
            raise RuntimeError(f"{folder} is still mounted; unmount it by hand.")


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

    def __init__(self, library: Path, file: Path) -> None:
        """Begin with the true time.

        Args:
            library: `FAKETIME`.
            file: Where the offset is kept.
        """
        self._file = file
        self.set("+0")
        self.environment = {
            "LD_PRELOAD": str(library),
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
