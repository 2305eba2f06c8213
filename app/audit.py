"""Writes a record of every answer to a chain that is only added to (ADR-0013, `audit_chain`)."""

import asyncio
import fcntl
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from anyio import to_thread

from app.audit_chain import (
    BEGINNING,
    HEAD_NAME,
    digest_of,
    exchange,
    file_name,
    log_files,
    number_of,
    parse,
    read_anchor,
    read_head,
    to_line,
)
from app.domain.errors import AuditDamagedError, AuditUnavailableError

LOCK_NAME: Final = "lock"
CARDS_FOLDER: Final = "cards"
"""Below AUDIT_DIR: the chain of CDS Hooks cards that were shown."""


class AuditLog:
    """The newest file of a folder of records; blocking, for one thread at a time."""

    def __init__(self, directory: Path, max_file_bytes: int) -> None:
        """Open or begin a folder, and cut off a record that a kill left unfinished.

        Args:
            directory: Made where it is missing.
            max_file_bytes: A file at least so long is not written to any more.

        Raises:
            AuditDamagedError: Another process writes it, or its end is not what was written.
            OSError: It cannot be read or written.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._max_file_bytes = directory, max_file_bytes
        with ExitStack() as opened:
            self._lock = opened.enter_context((directory / LOCK_NAME).open("w"))
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise AuditDamagedError(
                    f"{directory}: another process writes this audit log. Give each its own "
                    "AUDIT_DIR."
                ) from error
            archived = read_anchor(directory) or BEGINNING
            # A stop of `audit archive` leaves a file that is archived already.
            files = [path for path in log_files(directory) if number_of(path) > archived.file]
            self._number = number_of(files[-1]) if files else archived.file + 1
            self._file = self._open(self._number)
            opened.callback(lambda: os.close(self._file))
            self.sequence, self._hash = BEGINNING[1:]
            self.sequence, self._hash = self._resume(files)
            self._end = os.fstat(self._file).st_size
            self._opened = opened.pop_all()

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write records to the disk, all of them or none.

        Args:
            records: JSON values; `sequence`, `time`, `previous` and `hash` are added.

        Raises:
            OSError: The disk is full, or gone.
        """
        if not records:
            return
        if os.fstat(self._file).st_size > self._end:
            # A disk that failed to take a record also failed to take it back.
            os.ftruncate(self._file, self._end)
        if self._end >= self._max_file_bytes:
            # First, so that where it fails nothing has changed: a number of a closed file may be
            # a client's connection a moment later.
            following = self._open(self._number + 1)
            os.close(self._file)
            self._file, self._number, self._end = following, self._number + 1, 0
        sequence, previous, lines = self.sequence, self._hash, []
        for record in records:
            sequence += 1
            time = datetime.now(UTC).isoformat(timespec="milliseconds")
            numbered = {**record, "sequence": sequence, "time": time, "previous": previous}
            previous = digest_of(numbered)
            lines.append(to_line({**numbered, "hash": previous}))
        content = b"".join(lines)
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except OSError:
            with suppress(OSError):  # before the next record at the latest
                os.ftruncate(self._file, self._end)
            raise
        self._end += len(content)
        self.sequence, self._hash = sequence, previous
        self._write_head()

    def close(self) -> None:
        """Let another process have the folder."""
        self._opened.close()

    def _open(self, number: int) -> int:
        path = self._directory / file_name(number)
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)

    def _resume(self, files: list[Path]) -> tuple[int, str]:
        """Sequence and hash of the newest record, once a torn one is cut off."""
        for path in reversed(files):
            try:
                content = path.read_bytes()
            except FileNotFoundError:  # archived meanwhile
                continue
            whole = content[: content.rfind(b"\n") + 1]
            if path == files[-1] and len(whole) < len(content):
                os.ftruncate(self._file, len(whole))
            if whole:
                record = parse(whole.splitlines()[-1])
                if record is None:
                    raise AuditDamagedError(
                        f"{path}: its last record was changed. Keep the folder, run `dermhybrid "
                        "audit verify` on it, and set AUDIT_DIR to a new one."
                    )
                sequence, own = int(record["sequence"]), str(record["hash"])
                break
        else:
            _, sequence, own = read_anchor(self._directory) or BEGINNING
        self._check_head(files, sequence, own)
        return sequence, own

    def _check_head(self, files: list[Path], sequence: int, own: str) -> None:
        """Only the head tells that the newest records are missing, or are others.

        Before the first record it is made.
        """
        head = read_head(self._directory)
        if head is None and not sequence:
            self._write_head()
            return
        if head is None or not head[1]:
            found = f"{HEAD_NAME} is missing or cannot be read, so that records may be missing"
        elif head[0] > sequence:
            found = f"{head[0] - sequence} records are missing at its end"
        elif head != (sequence, own) and _hash_of(files, head[0]) not in (None, head[1]):
            found = f"its record {head[0]} is not the one that {HEAD_NAME} names"
        else:
            return
        raise AuditDamagedError(
            f"{self._directory}: {found}. Keep the folder, run `dermhybrid audit verify` on it, "
            "and set AUDIT_DIR to a new one."
        )

    def _write_head(self) -> None:
        scratch = self._directory / f"{HEAD_NAME}.new"
        with suppress(OSError):  # an older head still is one of this chain's
            content = {"sequence": self.sequence, "hash": self._hash}
            exchange(self._directory / HEAD_NAME, scratch, content)


def _hash_of(files: list[Path], sequence: int) -> str | None:
    """The hash of a record, sought from the newest on; None where it is not in these files."""
    for path in reversed(files):
        with suppress(FileNotFoundError):  # archived meanwhile
            for line in reversed(path.read_bytes().splitlines()):
                record = parse(line)
                if record is not None and record["sequence"] == sequence:
                    return str(record["hash"])
    return None


class AuditQueue:
    """Lets coroutines append to a log; records that come together share one write."""

    def __init__(self, log: AuditLog) -> None:
        """Begin to write; needs a running event loop.

        Args:
            log: Nobody else's.
        """
        self._log = log
        self._waiting: list[tuple[Mapping[str, Any], asyncio.Future[None]]] = []
        self._changed = asyncio.Event()
        self._closing = False
        self._worker = asyncio.get_running_loop().create_task(self._work(), name="audit")

    @property
    def sequence(self) -> int:
        """Number of the newest record."""
        return self._log.sequence

    async def append(self, record: Mapping[str, Any]) -> None:
        """Return when a record is on the disk.

        Raises:
            AuditUnavailableError: It could not be written.
        """
        if self._worker.done():
            raise _unavailable(None)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((record, written))
        self._changed.set()
        await asyncio.shield(written)

    async def close(self) -> None:
        """Write what waits, then let go of the folder."""
        self._closing = True
        self._changed.set()
        await self._worker
        self._log.close()

    async def _work(self) -> None:
        while self._waiting or not self._closing:
            await self._changed.wait()
            self._changed.clear()
            batch, self._waiting = self._waiting, []
            error: Exception | None = None
            try:
                await to_thread.run_sync(self._log.append, [record for record, _ in batch])
            except Exception as caught:  # noqa: BLE001  the disk, or a defect: nobody is answered
                error = caught
            for _, written in batch:
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(_unavailable(error))
                    written.exception()  # its caller may have left


def _unavailable(error: Exception | None) -> AuditUnavailableError:
    failure = AuditUnavailableError(
        "The answer could not be recorded, and is not given without its record. Repeat the "
        "request later."
    )
    failure.__cause__ = error
    return failure
