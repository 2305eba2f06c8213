"""What a DICOM job is, and the tables that keep it.

```
waiting ──answer──> answered ──deliver──> stored
   │                    │
   ├── cannot be answered: refused        (given up after many attempts: dead)
                                          (dead for too long, or too many: discarded)
```
"""

import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

_SETTINGS: Final = """
PRAGMA auto_vacuum = FULL;
PRAGMA journal_mode = TRUNCATE;
PRAGMA synchronous = FULL;
PRAGMA secure_delete = ON;
"""
"""A write-ahead log would keep what has ended until others are written over it."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    instance TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    starts INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL,
    received REAL NOT NULL,
    updated REAL NOT NULL,
    problem TEXT,
    photograph BLOB
) STRICT;
CREATE INDEX IF NOT EXISTS jobs_by_due ON jobs (state, due);
CREATE TABLE IF NOT EXISTS results (
    job TEXT NOT NULL REFERENCES jobs (id),
    place INTEGER NOT NULL,
    uid TEXT NOT NULL,
    content BLOB,
    PRIMARY KEY (job, place)
) STRICT;
"""
_LATER_COLUMNS: Final = {
    "caller": "ALTER TABLE jobs ADD COLUMN caller TEXT NOT NULL DEFAULT ''",
    "content": "ALTER TABLE jobs ADD COLUMN content TEXT NOT NULL DEFAULT ''",
}
"""Queues of before them have jobs without: who sent it, and the photograph's SHA-256."""


class State(StrEnum):
    """Where a job is."""

    WAITING = "waiting"
    ANSWERED = "answered"
    STORED = "stored"
    REFUSED = "refused"
    DEAD = "dead"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class Job:
    """One photograph's way.

    Attributes:
        id: Of the job, which says nothing of the photograph.
        state: Where it is.
        attempts: That failed.
        received: When it came, seconds since 1970.
        updated: When it last changed, seconds since 1970.
        problem: Kind of the last failure; None where there was none.
        caller: Who sent it, for the audit log; empty where that was not kept.
        result_uids: SOP Instance UIDs of its results.
    """

    id: str
    state: State
    attempts: int
    received: float
    updated: float
    problem: str | None
    caller: str
    result_uids: tuple[str, ...]


def open_database(path: Path) -> sqlite3.Connection:
    """Open or begin the file of jobs, for any thread.

    Raises:
        sqlite3.Error: It cannot be read or written, or is none.
    """
    database = sqlite3.connect(path, check_same_thread=False)
    try:
        database.executescript(_SETTINGS + _SCHEMA)
        columns = {row[1] for row in database.execute("PRAGMA table_info(jobs)")}
        for name, statement in _LATER_COLUMNS.items():
            if name not in columns:
                database.execute(statement)
    except sqlite3.Error:
        database.close()
        raise
    return database
