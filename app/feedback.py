"""Diagnoses that come back, each beside the answer that it is about (ADR-0015).

```
AUDIT_DIR/feedback/audit-000001.jsonl   {"answer": {"hash": ..., "sequence": ...}, ...}
```
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.audit_chain import log_files
from app.domain.errors import AnswerAmbiguousError, AnswerNotFoundError

FEEDBACK_FOLDER: Final = "feedback"
"""Below AUDIT_DIR."""

PIECE_BYTES: Final = 1 << 20
"""Of a log that are searched at a time."""


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """What the audit log holds of an answer.

    Attributes:
        sequence: Of its record.
        hash: Of its record.
        index: The image's place in a batch; None outside of one.
        answered: What was asked of whom: the hash of the model's input, and the model.
        predicted_class: Its label; None where it was rejected.
    """

    sequence: int
    hash: str
    index: int | None
    answered: tuple[str, str]
    predicted_class: str | None


def find_answer(directory: Path, request_id: str, index: int | None) -> RecordedAnswer:
    """Find the answer that a request was given; blocks the calling thread.

    Args:
        directory: Of the audit log; it may be written to meanwhile.
        request_id: Letters, digits, `.`, `_` and `-`.
        index: The image's place in a batch; None where there is one image.

    Returns:
        The newest one, where the same model answered the same picture again.

    Raises:
        AnswerNotFoundError: None was recorded.
        AnswerAmbiguousError: Several were, and `index` does not single one out.
        OSError: The log cannot be read.
    """
    other, newest = False, None
    for path in log_files(directory):
        for answer in _search(path, request_id):
            if index is not None and answer.index != index:
                other = True
            else:  # one is kept, however many there are
                _check_same(newest, answer, index)
                newest = answer
    if newest is not None:
        return newest
    if other:
        raise AnswerNotFoundError(f"That request has no answer to an image of index {index}.")
    raise AnswerNotFoundError(
        "No answer to that request id is recorded. Expected the `request_id` of an answer of "
        "this service."
    )


def _check_same(before: RecordedAnswer | None, answer: RecordedAnswer, index: int | None) -> None:
    if before is None:
        return
    if index is None and (before.index is not None or answer.index is not None):
        raise AnswerAmbiguousError(
            "That request has answers to several images. Send the `index` of one of them."
        )
    # A DICOM job that a stop interrupted asks the same model of the same picture again.
    if answer.answered != before.answered:
        raise AnswerAmbiguousError(
            "Several answers have that request id: it was used more than once, and feedback "
            "cannot tell them apart. Use each X-Request-ID once, or let the service choose it."
        )


def _search(path: Path, request_id: str) -> Iterator[RecordedAnswer]:
    """Every record of a request in one file; a line that is still being written has none.

    In pieces: a search through the whole of a file would hold the interpreter, and the event loop
    with it, until its end.
    """
    needle = f'"request_id":"{request_id}"'.encode()
    for lines in _pieces(path):
        place = lines.find(needle)
        while place >= 0:
            start, end = lines.rfind(b"\n", 0, place) + 1, lines.find(b"\n", place)
            answer = _read(lines[start:end], request_id)
            if answer is not None:
                yield answer
            place = lines.find(needle, end)


def _pieces(path: Path) -> Iterator[bytes]:
    """Whole lines of a file, about `PIECE_BYTES` at a time; of one that was archived, none."""
    rest = b""
    with suppress(FileNotFoundError), path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            piece = rest + piece
            end = piece.rfind(b"\n") + 1
            yield piece[:end]
            rest = piece[end:]


def _read(line: bytes, request_id: str) -> RecordedAnswer | None:
    try:
        record: dict[str, Any] = json.loads(line)
        if record["request_id"] != request_id:
            return None
        predicted = record["answer"]["predicted_class"]
        return RecordedAnswer(
            record["sequence"],
            record["hash"],
            record.get("index"),
            (record["input_sha256"], json.dumps(record["model"])),
            predicted,
        )
    except (ValueError, KeyError, TypeError):
        return None  # `dermhybrid audit verify` names it
