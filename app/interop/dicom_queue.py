"""The jobs of the DICOM worker on disk, in SQLite: what was taken is answered once, or kept.

Blocking; any thread may call. Photographs and results leave the file with their job's end; an
instance's identifier is kept as its hash, so that the instance is never answered twice.
"""

import fcntl
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Final

from app.domain.errors import (
    DicomJobNotDeadError,
    DicomJobNotFoundError,
    DicomQueueError,
    ServiceBusyError,
)
from app.interop.dicom_jobs import Job, State, open_database

DATABASE_NAME: Final = "jobs.sqlite"
LOCK_NAME: Final = "lock"
MAX_STARTS: Final = 30
"""Starts in a row without an end: whatever is in that photograph ends the process."""
PROCESS_ENDED: Final = "process-ended"
"""The problem of a job that was given up for that."""
MAX_WAIT_SECONDS: Final = 300.0
"""Longest wait before another attempt."""


class JobQueue:
    """The jobs of one service."""

    def __init__(self, directory: Path, max_waiting: int) -> None:
        """Open or begin a folder of jobs.

        Args:
            directory: Made where it is missing, readable by this user alone.
            max_waiting: More jobs that have not ended are refused.

        Raises:
            DicomQueueError: Another process has it open, or it cannot be read or written.
        """
        self._max_waiting, self._mutex = max_waiting, Lock()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with ExitStack() as opened:
                lock = opened.enter_context((directory / LOCK_NAME).open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._database = open_database(directory / DATABASE_NAME)
                opened.callback(self._database.close)
                self._opened = opened.pop_all()
        except (OSError, sqlite3.Error) as error:
            raise DicomQueueError(
                f"{directory}: the queue cannot be opened ({type(error).__name__}). Give each "
                "process a DICOM_QUEUE_DIR of its own that it can write to."
            ) from error

    def put(self, instance_uid: str, photograph: bytes, caller: str) -> Job:
        """Take a photograph; on the disk when this returns.

        The same instance again is the same job. One that was given up is tried again, but not with
        a file that ended the process; where the file is another one now and none was answered,
        that one is taken, of a refused job too: the first may have been damaged.

        Args:
            instance_uid: Its SOP Instance UID.
            photograph: A DICOM file.
            caller: Who sends it, for the audit log.

        Raises:
            ServiceBusyError: Too many wait.
            DicomQueueError: It could not be written.
        """
        instance, now = sha256(instance_uid.encode()).hexdigest(), time.time()
        content = sha256(photograph).hexdigest()
        with self._transaction() as database:
            known = database.execute(
                "SELECT id, state, content, problem, caller,"
                " EXISTS (SELECT 1 FROM results WHERE job = id AND results.content IS NOT NULL)"
                " FROM jobs WHERE instance = ?",
                (instance,),
            ).fetchone()
            if known is None:
                self._check_room(database)
                identifier = uuid.uuid4().hex
                database.execute(
                    "INSERT INTO jobs"
                    " (id, instance, state, due, received, updated, photograph, caller, content)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        *(identifier, instance, State.WAITING),
                        *(now, now, now),
                        *(photograph, caller, content),
                    ),
                )
            else:
                identifier, state, before, problem, sender, answered = known
                is_another = content != before and not answered
                if state == State.DISCARDED or (
                    is_another and state in (State.DEAD, State.REFUSED)
                ):
                    self._check_room(database)
                    self._refill(database, identifier, photograph, content)
                    self._revive(database, identifier, now, caller)
                elif state == State.DEAD and problem != PROCESS_ENDED:
                    self._check_room(database)
                    self._revive(database, identifier, now, sender or caller)
            return self._get(database, identifier)

    def get(self, identifier: str) -> Job:
        """A job.

        Raises:
            DicomJobNotFoundError: There is none of this identifier.
        """
        with self._transaction() as database:
            return self._get(database, identifier)

    def list_newest(self, state: State, max_number: int, caller: str | None) -> list[Job]:
        """Jobs in a state, the last that changed first.

        Args:
            state: Of all that are listed.
            max_number: Of them.
            caller: Who sent them; None for everybody's.
        """
        with self._transaction() as database:
            found = database.execute(
                "SELECT id FROM jobs WHERE state = ? AND (caller = ? OR ? IS NULL)"
                " ORDER BY updated DESC, id LIMIT ?",
                (state, caller, caller, max_number),
            ).fetchall()
            return [self._get(database, identifier) for (identifier,) in found]

    def retry(self, identifier: str) -> Job:
        """Try a job again that was given up, with what it holds and for who sent it.

        Raises:
            DicomJobNotFoundError: There is none of this identifier.
            DicomJobNotDeadError: It was not given up.
            ServiceBusyError: Too many wait.
            DicomQueueError: It could not be written.
        """
        with self._transaction() as database:
            job = self._get(database, identifier)
            if job.state is not State.DEAD:
                raise DicomJobNotDeadError(
                    f"The job is {job.state}. A dead one alone can be tried again; a discarded one "
                    "needs its photograph sent again."
                )
            self._check_room(database)
            self._revive(database, identifier, time.time(), job.caller)
            return self._get(database, identifier)

    def end_crashing(self) -> list[Job]:
        """Give up what was started too often without an end: it ends the process each time."""
        with self._transaction() as database:
            found = database.execute(
                "SELECT id FROM jobs WHERE state IN (?, ?) AND starts >= ?",
                (State.WAITING, State.ANSWERED, MAX_STARTS),
            ).fetchall()
            for (identifier,) in found:
                self._end(database, identifier, State.DEAD, PROCESS_ENDED)
            return [self._get(database, identifier) for (identifier,) in found]

    def start_next(self) -> Job | None:
        """The job that has been due for longest, with its start on the disk; None where none is.

        One that is due later than any wait is due now: the time of day was set back meanwhile.
        """
        now = time.time()
        with self._transaction() as database:
            row = database.execute(
                "SELECT id FROM jobs WHERE state IN (?, ?)"
                " AND (due <= ? OR due > ?) ORDER BY due LIMIT 1",
                (State.WAITING, State.ANSWERED, now, now + MAX_WAIT_SECONDS),
            ).fetchone()
            if row is None:
                return None
            database.execute("UPDATE jobs SET starts = starts + 1 WHERE id = ?", row)
            return self._get(database, row[0])

    def photograph(self, identifier: str) -> bytes:
        """What waits to be answered."""
        with self._transaction() as database:
            row = database.execute("SELECT photograph FROM jobs WHERE id = ?", (identifier,))
            return bytes(row.fetchone()[0])

    def results(self, identifier: str) -> list[bytes]:
        """What waits to be delivered, as DICOM files."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT content FROM results WHERE job = ? ORDER BY place", (identifier,)
            )
            return [bytes(content) for (content,) in rows]

    def keep_results(self, identifier: str, results: Sequence[tuple[str, bytes]]) -> None:
        """Keep an answer, SOP Instance UIDs and DICOM files, before it is delivered."""
        with self._transaction() as database:
            database.executemany(
                "INSERT INTO results VALUES (?, ?, ?, ?)",
                [(identifier, place, *result) for place, result in enumerate(results)],
            )
            database.execute(
                "UPDATE jobs SET state = ?, starts = 0, updated = ? WHERE id = ?",
                (State.ANSWERED, time.time(), identifier),
            )

    def end(self, identifier: str, state: State, problem: str | None = None) -> None:
        """Let a job end; all but a dead one lose what they hold."""
        with self._transaction() as database:
            self._end(database, identifier, state, problem)

    def postpone(self, identifier: str, seconds: float, problem: str) -> None:
        """Count a failure and try again later."""
        now = time.time()
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET attempts = attempts + 1, starts = 0, due = ?, updated = ?,"
                " problem = ? WHERE id = ?",
                (now + seconds, now, problem, identifier),
            )

    def discard_dead(self, max_age_seconds: float, max_number: int) -> int:
        """Let go of what jobs hold that were given up long ago, or are too many.

        Args:
            max_age_seconds: Since they were given up.
            max_number: Of those that are kept, the newest.

        Returns:
            How many were let go of.
        """
        with self._transaction() as database:
            found = database.execute(
                "SELECT id, problem, updated FROM jobs WHERE state = ? ORDER BY updated DESC",
                (State.DEAD,),
            ).fetchall()
            oldest = time.time() - max_age_seconds
            discarded = [
                (identifier, problem)
                for place, (identifier, problem, updated) in enumerate(found)
                if place >= max_number or updated < oldest
            ]
            for identifier, problem in discarded:
                self._end(database, identifier, State.DISCARDED, problem)
        return len(discarded)

    def count(self) -> dict[State, int]:
        """How many jobs are in each state."""
        with self._transaction() as database:
            found = dict(database.execute("SELECT state, count(*) FROM jobs GROUP BY state"))
        return {state: int(found.get(state, 0)) for state in State}

    def close(self) -> None:
        """Let another process have it."""
        with self._mutex:
            self._opened.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._mutex, self._database:
                yield self._database
        except sqlite3.Error as error:
            raise DicomQueueError(
                f"The queue of DICOM jobs failed ({type(error).__name__}). Tell the operator, and "
                "send all of it again later: what was taken before is not answered twice."
            ) from error

    def _check_room(self, database: sqlite3.Connection) -> None:
        (waiting,) = database.execute(
            "SELECT count(*) FROM jobs WHERE state IN (?, ?)", (State.WAITING, State.ANSWERED)
        ).fetchone()
        if waiting >= self._max_waiting:
            raise ServiceBusyError(
                f"{waiting} DICOM jobs have not ended, as many as are kept. Send again later.",
                retry_after_seconds=60,
            )

    @staticmethod
    def _get(database: sqlite3.Connection, identifier: str) -> Job:
        row = database.execute(
            "SELECT id, state, attempts, received, updated, problem, caller FROM jobs WHERE id = ?",
            (identifier,),
        ).fetchone()
        if row is None:
            raise DicomJobNotFoundError("There is no DICOM job of that identifier.")
        uids = database.execute(
            "SELECT uid FROM results WHERE job = ? ORDER BY place", (identifier,)
        )
        name, state, attempts, received, updated, problem, caller = row
        results = tuple(uid for (uid,) in uids)
        return Job(name, State(state), attempts, received, updated, problem, caller, results)

    @staticmethod
    def _refill(
        database: sqlite3.Connection, identifier: str, photograph: bytes, content: str
    ) -> None:
        database.execute("DELETE FROM results WHERE job = ?", (identifier,))
        database.execute(
            "UPDATE jobs SET photograph = ?, content = ?, problem = NULL WHERE id = ?",
            (photograph, content, identifier),
        )

    @staticmethod
    def _revive(database: sqlite3.Connection, identifier: str, now: float, caller: str) -> None:
        (answered,) = database.execute(
            "SELECT count(*) FROM results WHERE job = ?", (identifier,)
        ).fetchone()
        state = State.ANSWERED if answered else State.WAITING
        database.execute(
            "UPDATE jobs SET state = ?, attempts = 0, starts = 0, due = ?, updated = ?, caller = ?"
            " WHERE id = ?",
            (state, now, now, caller, identifier),
        )

    @staticmethod
    def _end(
        database: sqlite3.Connection, identifier: str, state: State, problem: str | None
    ) -> None:
        database.execute(
            "UPDATE jobs SET state = ?, problem = ?, updated = ? WHERE id = ?",
            (state, problem, time.time(), identifier),
        )
        if state is not State.DEAD:
            database.execute("UPDATE jobs SET photograph = NULL WHERE id = ?", (identifier,))
            database.execute("UPDATE results SET content = NULL WHERE job = ?", (identifier,))
