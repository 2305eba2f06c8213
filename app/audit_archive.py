"""Moves finished files of an audit log to another folder, and loses no record of them (ADR-0013).

```
DIR/audit-000002.jsonl ──copy, fsync, compare──> DESTINATION/audit-000002.jsonl
                                                 DESTINATION/head.json: its end
DIR/archived.json: file 2 and its end
DIR/audit-000002.jsonl is removed
```

Each line is on the disk before the next one begins. Stopped between any two of them, both folders
hold a whole chain, and the next run goes on.
"""

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Final

from app.audit import CARDS_FOLDER, LOCK_NAME
from app.audit_chain import (
    ANCHOR_NAME,
    BEGINNING,
    HEAD_NAME,
    Chain,
    FileEnd,
    exchange,
    number_of,
    parse,
)
from app.domain.errors import AuditDamagedError
from app.feedback import FEEDBACK_FOLDER

CHAINS: Final = {"answers": "", "feedback": FEEDBACK_FOLDER, "cards": CARDS_FOLDER}
"""Folders below AUDIT_DIR, by what they record."""

ARCHIVE_LOCK_NAME: Final = "archive.lock"
_PIECE_BYTES: Final = 1 << 20
_MAX_DEFECTS: Final = 10
"""That a refusal names."""


def archive(directory: Path, destination: Path, before: datetime | None = None) -> Iterator[Path]:
    """Move every finished file of answers, feedback and cards.

    Args:
        directory: Of the log; a service may write to it.
        destination: New, or what an earlier run left, or the files 1 to n that were moved by hand.
        before: Move no file with a record of this time or later.

    Yields:
        Each file that is no longer in the log.

    Raises:
        AuditDamagedError: The log or the archive is not intact, or they do not belong together;
            nothing was moved.
        OSError: A folder cannot be read or written; what was moved is whole.
    """
    source, target = directory.resolve(), destination.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise AuditDamagedError(
            f"{destination}: the archive of {directory} cannot be in it, nor around it. Choose a "
            "folder beside it, on another disk."
        )
    with ExitStack() as locks:
        destination.mkdir(parents=True, exist_ok=True)
        _lock(locks, destination / LOCK_NAME)
        _lock(locks, directory / ARCHIVE_LOCK_NAME)
        moves = [
            _Move(directory / folder, destination / folder, before) for folder in CHAINS.values()
        ]
        for move in moves:
            yield from move.run()


class _Move:
    """Of the files of one chain; checks both folders before anything is moved."""

    def __init__(self, directory: Path, destination: Path, before: datetime | None) -> None:
        self._directory, self._destination = directory, destination
        archived, log = Chain(destination), Chain(directory)
        defects = list(archived.defects(goes_on=True))
        if archived.files or archived.anchor:
            log = Chain(directory, archived)
        defects += log.defects(settled=True)
        self._archived, self._log = archived, log
        self._finished = list(takewhile(lambda path: self._is_due(path, before), log.files[:-1]))
        newest = number_of(log.files[-1]) if log.files else 0
        if archived.files and archived.end.file >= newest:
            defects.append(f"{destination}: it holds the newest file of {directory}, or more")
        for path in log.files:
            copy = destination / path.name
            if copy.exists() and not _is_same(path, copy):
                defects.append(f"{copy}: it differs from {path}")
            if log.anchor and number_of(path) <= log.anchor.file and not copy.exists():
                defects.append(f"{path}: it was archived already, and not to {destination}")
        if defects:
            raise AuditDamagedError(
                "\n".join(defects[:_MAX_DEFECTS]) + f"\nNothing was moved: {len(defects)} defects. "
                "Choose an empty folder, or the one that has the files before these; an edit or a "
                "gap is not to be archived away."
            )

    def run(self) -> Iterator[Path]:
        """Move one file after the other."""
        if not self._finished:
            self._adopt()
            return
        if not self._archived.files:
            self._begin()
        for path in self._finished:
            end = self._log.ends[number_of(path)]
            copy = self._destination / path.name
            if not copy.exists():
                _copy(path, copy)
            last = max(end, self._archived.end)
            _write_head(self._destination, last)
            _release(path, max(end, self._log.anchor or end))
            yield path

    def _adopt(self) -> None:
        """Say in the log which files were moved by hand, or before a stop."""
        archived = self._archived
        if archived.files and archived.end > (self._log.anchor or BEGINNING):
            _write_head(self._destination, archived.end)
            _write(self._directory / ANCHOR_NAME, archived.end._asdict())

    def _begin(self) -> None:
        """Say in a new archive where it begins, and which records are in an older one."""
        self._destination.mkdir(parents=True, exist_ok=True)
        before = self._log.anchor
        if before is not None:
            _write(self._destination / ANCHOR_NAME, before._asdict())
        _write_head(self._destination, before or BEGINNING)

    def _is_due(self, path: Path, before: datetime | None) -> bool:
        """Whether all its records are known to the head, and old enough."""
        end = self._log.ends[number_of(path)]
        if self._log.head is None or end.sequence > self._log.head[0]:
            return False
        if before is None or end.file <= self._archived.end.file:
            return True
        record = parse(_last_line(path))
        return record is None or datetime.fromisoformat(record["time"]) < before


def _lock(locks: ExitStack, path: Path) -> None:
    file = locks.enter_context(path.open("w"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise AuditDamagedError(
            f"{path.parent}: another process writes or archives it. Wait for it, or choose another "
            "folder."
        ) from error


def _release(path: Path, anchor: FileEnd) -> None:
    """Remove a file whose copy is on the disk, once the log says where it ends.

    A full disk may have no room for the sentence: then the file goes first, and a run that is
    stopped in between is mended by the next one, which finds the file in the archive.
    """
    try:
        _write(path.parent / ANCHOR_NAME, anchor._asdict())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        path.unlink()
        _write(path.parent / ANCHOR_NAME, anchor._asdict())
    path.unlink(missing_ok=True)
    _sync(path.parent)


def _copy(path: Path, copy: Path) -> None:
    """Make a copy that is on the disk, and has its name once it is the same.

    Raises:
        OSError: It could not be written, or is not the same.
    """
    scratch = copy.with_name(f"{copy.name}.part")
    with path.open("rb") as source, scratch.open("wb") as target:
        os.fchmod(target.fileno(), 0o640)
        while piece := source.read(_PIECE_BYTES):
            target.write(piece)
        target.flush()
        os.fsync(target.fileno())
        # What is compared is to come from the disk.
        os.posix_fadvise(target.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if not _is_same(path, scratch):
        raise OSError(errno.EIO, f"{scratch}: it differs from {path}, and is not used")
    scratch.replace(copy)
    _sync(copy.parent)


def _write_head(directory: Path, end: FileEnd) -> None:
    _write(directory / HEAD_NAME, {"sequence": end.sequence, "hash": end.hash})


def _write(path: Path, content: Mapping[str, object]) -> None:
    """Exchange a file at once."""
    scratch = path.with_name(f"{path.name}.archiving")  # not the one of a service that writes
    exchange(path, scratch, content)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    """Put the names in a folder on the disk."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _is_same(path: Path, copy: Path) -> bool:
    if path.stat().st_size != copy.stat().st_size:
        return False
    with path.open("rb") as left, copy.open("rb") as right:
        while piece := left.read(_PIECE_BYTES):
            if right.read(_PIECE_BYTES) != piece:
                return False
    return True


def _last_line(path: Path) -> bytes:
    last = b""
    with path.open("rb") as lines:
        for last in lines:  # noqa: B007
            pass
    return last
