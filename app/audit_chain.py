"""What a folder of records holds, where it begins and ends, and what is wrong with it (ADR-0013).

```
DIR/audit-000003.jsonl   {"answer": ..., "hash": ..., "previous": ..., "sequence": 41, ...}
DIR/head.json            {"hash": ..., "sequence": ...} of the newest record
DIR/archived.json        {"file": 2, "hash": ..., "sequence": 40}, where files 1 and 2 are elsewhere
```
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from app.domain.errors import AuditDamagedError

HEAD_NAME: Final = "head.json"
ANCHOR_NAME: Final = "archived.json"
FIRST_PREVIOUS: Final = "0" * 64
"""`previous` of the first record of all."""

_FILES: Final = "audit-*.jsonl"
_FILE_NAME: Final = "audit-{:06d}.jsonl"


class FileEnd(NamedTuple):
    """Where a file ends and the next one goes on.

    Attributes:
        file: Its number.
        sequence: Of its last record.
        hash: Of its last record.
    """

    file: int
    sequence: int
    hash: str


BEGINNING: Final = FileEnd(0, 0, FIRST_PREVIOUS)


class Chain:
    """The records of one folder, which may go on from those of another.

    Attributes:
        anchor: Where the archived files end; None where none is archived.
        head: Sequence and hash of the newest record; None where nothing was recorded.
        files: The oldest first.
        ends: By number of file, of the earlier folders too; whole once `defects` is exhausted.
        end: Of the newest file.
    """

    def __init__(self, directory: Path, earlier: "Chain | None" = None) -> None:
        """Look at a folder; what it holds is read by `defects`.

        Args:
            directory: It may be in use.
            earlier: The folder that holds the files before, its defects exhausted.
        """
        self._directory, self._earlier = directory, earlier
        self.ends: dict[int, FileEnd] = dict(earlier.ends) if earlier else {0: BEGINNING}
        self.end: FileEnd = earlier.end if earlier else BEGINNING
        self.anchor: FileEnd | None = None
        self.head: tuple[int, str] | None = None
        self.files: list[Path] = []
        self._head_seen = False

    def defects(self, *, settled: bool = False, goes_on: bool = False) -> Iterator[str]:
        """Find every edit, gap and exchange; to be exhausted once.

        Args:
            settled: Of the newest file, take the records up to the head alone: what is after it
                may be half written, or about to be cut off.
            goes_on: In another folder, which shows what is missing at this one's end: it needs no
                head then.

        Yields:
            A sentence for each defect, with file and line.

        Raises:
            OSError: It cannot be read.
        """
        try:
            self.anchor = read_anchor(self._directory)
        except AuditDamagedError as error:
            yield str(error)
        self.head = read_head(self._directory)  # before the files, which go on meanwhile
        self.files = log_files(self._directory)
        yield from self._anchor_defects()
        self.end = self._start()
        self._head_seen = self.head in (None, self.end[1:])
        for path in self.files:
            number = number_of(path)
            if number != self.end.file + 1:
                yield f"{path}: file {self.end.file + 1} is missing before it"
            self.end = self.end._replace(file=number)
            if not (settled and path == self.files[-1]):
                yield from self._file_defects(path, None)
            elif not self._head_seen:
                yield from self._file_defects(path, self.head)
            if self.ends.setdefault(number, self.end) != self.end:
                archived = self.ends[number].sequence
                yield f"{path}: it does not end as the archive does, with record {archived}"
        yield from self._head_defects(goes_on=goes_on)

    def _head_defects(self, *, goes_on: bool) -> Iterator[str]:
        head = self._directory / HEAD_NAME
        if self.head is None:
            if self.files and self.end.sequence and not goes_on:
                yield f"{head}: it is missing, so that records may be missing at the end"
        elif not self.head[1]:
            yield f"{head}: it cannot be read, so that records may be missing at the end"
        elif not self._head_seen:
            yield f"{head}: record {self.head[0]} is not among the records"

    def _anchor_defects(self) -> Iterator[str]:
        if self.anchor is None:
            return
        known = self.ends.setdefault(self.anchor.file, self.anchor)
        if known != self.anchor or (self._earlier and self.anchor.file > self.end.file):
            yield (
                f"{self._directory / ANCHOR_NAME}: files up to {self.anchor.file}, record "
                f"{self.anchor.sequence}, are said to be archived; the folder before it ends with "
                f"file {self.end.file}, record {self.end.sequence}"
            )

    def _file_defects(self, path: Path, last: tuple[int, str] | None) -> Iterator[str]:
        """Walk through one file, to its end or to a record."""
        with path.open("rb") as lines:
            for row, line in enumerate(lines, start=1):
                place = f"{path}:{row}"
                if not line.endswith(b"\n"):
                    yield f"{place}: the record is unfinished"
                    continue
                number, sequence, previous = self.end
                try:
                    record = json.loads(line)
                    found, linked, own = record["sequence"], record["previous"], record["hash"]
                except (ValueError, KeyError, TypeError, RecursionError):
                    found = linked = own = None
                if type(found) is not int or type(linked) is not str or type(own) is not str:
                    yield f"{place}: this is no record"
                    self.end = FileEnd(number, sequence + 1, "")
                    continue
                if parse(line) is None:
                    yield f"{place}: record {found} was changed"
                if found != sequence + 1:
                    yield f"{place}: record {sequence + 1} is expected here, this is {found}"
                elif previous and linked != previous:
                    yield f"{place}: record {found} does not follow the one before it"
                self.end = FileEnd(number, found, own)
                self._head_seen = self._head_seen or self.head == (found, own)
                if last == (found, own):
                    return

    def _start(self) -> FileEnd:
        """The end of the file before the first one."""
        if not self.files:
            return self.anchor or self.end
        before = number_of(self.files[0]) - 1
        if self._earlier and before == self._earlier.end.file:
            return self._earlier.end
        following = self.anchor or BEGINNING
        if before >= following.file:
            return following
        # An archived file is still there: it has to end where the anchor says.
        with self.files[0].open("rb") as lines, suppress(ValueError, KeyError, TypeError):
            first = json.loads(lines.readline())
            return FileEnd(before, int(first["sequence"]) - 1, first["previous"])
        return following


def verify(directory: Path) -> Iterator[str]:
    """Find every edit, gap and exchange in a folder of records.

    Args:
        directory: Of the log; it may be in use.

    Yields:
        A sentence for each defect, with file and line.

    Raises:
        OSError: It cannot be read.
    """
    return Chain(directory).defects()


def read_head(directory: Path) -> tuple[int, str] | None:
    """Sequence and hash of the newest record that is known, the latter "" where it is unreadable.

    None where there is no head: nothing was recorded, or it was taken away.
    """
    try:
        head = json.loads((directory / HEAD_NAME).read_bytes())
        return int(head["sequence"]), str(head["hash"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return (0, "")


def read_anchor(directory: Path) -> FileEnd | None:
    """Where the archived files of a folder end; None where none is archived.

    Raises:
        AuditDamagedError: It was changed.
    """
    path = directory / ANCHOR_NAME
    try:
        anchor = json.loads(path.read_bytes())
        return FileEnd(int(anchor["file"]), int(anchor["sequence"]), str(anchor["hash"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise AuditDamagedError(
            f"{path}: this does not say what is archived. Keep the folder, and copy the head of "
            "the newest archive folder and the number of its last file into it."
        ) from error


def digest_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values in their canonical form: keys sorted, no spaces."""
    return hashlib.sha256(to_line(content)).hexdigest()


def parse(line: bytes) -> dict[str, Any] | None:
    """A record whose hash is right."""
    try:
        record: dict[str, Any] = json.loads(line)
        own = record.pop("hash")
        if digest_of(record) != own:
            return None
        record["hash"] = own
        return record if to_line(record) == line.rstrip(b"\n") + b"\n" else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def to_line(content: Mapping[str, Any]) -> bytes:
    """JSON values in their canonical form, and the end of the line."""
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def exchange(path: Path, scratch: Path, content: Mapping[str, Any]) -> None:
    """Let a file have other JSON values, whole and on the disk before the old ones go.

    Args:
        path: The file.
        scratch: Beside it, the writer's own.
        content: The values.

    Raises:
        OSError: The disk is full, or gone.
    """
    with scratch.open("wb") as file:
        file.write(to_line(content))
        file.flush()
        os.fsync(file.fileno())  # or a power cut might leave an empty one
    scratch.replace(path)


def log_files(directory: Path) -> list[Path]:
    """The files of a log, the oldest first."""
    return sorted(directory.glob(_FILES))


def file_name(number: int) -> str:
    """Of a file of records, from 1."""
    return _FILE_NAME.format(number)


def number_of(path: Path) -> int:
    """The number in the name of a file of records."""
    return int(path.stem.removeprefix("audit-"))
