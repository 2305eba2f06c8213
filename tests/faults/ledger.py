"""What became of every request, and whether that is what the documentation promises."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from app.audit_chain import log_files
from tests.conftest import REPOSITORY

LOST: Final = 0
"""In place of a status: the connection ended without an answer."""
LEFT: Final = -1
"""In place of a status: the caller went away before the answer."""

TOLERANCE: Final = 2e-3
"""Of a probability, beside the one that the same picture had before: rounding by batch size."""

_ROW: Final = re.compile(r"^\| ([\d, ]+) \| ((?:`[a-z-]+`(?:, )?)+) \|", re.MULTILINE)
_UNANSWERED: Final = frozenset({LOST, LEFT, 502, 503, 504})
"""What a request may end in although its answer is on record."""


def documented() -> dict[str, set[int]]:
    """Statuses by kind of problem, as the README's table has them."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    found: dict[str, set[int]] = {}
    for statuses, kinds in _ROW.findall(text):
        for kind in re.findall(r"`([a-z-]+)`", kinds):
            found.setdefault(kind, set()).update(int(s) for s in statuses.split(", "))
    return found


@dataclass(frozen=True, slots=True)
class Part:
    """The end of an image: of a whole request, or of one line of a batch."""

    status: int
    kind: str = ""

    @property
    def name(self) -> str:
        """As it is counted."""
        words = {LOST: "no answer", LEFT: "caller left"}.get(self.status, str(self.status))
        return f"{words} {self.kind}".strip()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a request.

    Attributes:
        identifier: Its X-Request-ID.
        whole: Status and kind of problem.
        seconds: From its first byte to its end.
        lines: By the image's place, where it was a batch.
        predicts: Whether a 200 of it is an answer about an image.
    """

    identifier: str
    whole: Part
    seconds: float = 0.0
    lines: dict[int, Part] = field(default_factory=dict)
    predicts: bool = True

    @property
    def answers(self) -> set[tuple[str, int | None]]:
        """Request and place of each image that was answered."""
        if not self.predicts or self.whole.status != 200:
            return set()
        if not self.lines:
            return {(self.identifier, None)}
        return {
            (self.identifier, place) for place, part in self.lines.items() if part.status == 200
        }


class Ledger:
    """Every request that was sent, once."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.sent: set[str] = set()
        self.wrong: list[str] = []
        self._truths: dict[str, Any] = {}

    def add(self, outcome: Outcome) -> None:
        """Note the end of a request; a second one is wrong."""
        if outcome.identifier in self.outcomes:
            self.wrong.append(f"{outcome.identifier} was answered twice")
        self.outcomes[outcome.identifier] = outcome

    def check_answer(self, picture: str, probabilities: dict[str, float] | None) -> bool:
        """Whether a picture's answer is the one that it had before."""
        if probabilities is None:
            self.wrong.append(f"{picture}: no probabilities")
            return False
        values = np.array(list(probabilities.values()))
        truth = self._truths.setdefault(picture, values)
        same = float(np.abs(values - truth).max()) <= TOLERANCE
        if not same:
            self.wrong.append(f"{picture}: another answer than before")
        return same

    def check_truths_differ(self, number: int) -> None:
        """Whether so many pictures have answers that cannot be taken for one another's."""
        truths = list(self._truths.items())
        if len(truths) != number:
            self.wrong.append(f"{len(truths)} of {number} pictures were answered")
        for (name, one), (other, two) in itertools.combinations(truths, 2):
            apart = float(np.abs(one - two).max())
            if apart <= 2 * TOLERANCE:
                self.wrong.append(f"the answers to {name} and {other} are {apart:.4f} apart")

    def counts(self, since: int = 0) -> dict[str, int]:
        """Requests by how they ended; of a batch each image as well."""
        found: Counter[str] = Counter()
        for outcome in list(self.outcomes.values())[since:]:
            found[outcome.whole.name] += 1
            found.update(f"{part.name} (in a batch)" for part in outcome.lines.values())
        return dict(sorted(found.items()))

    def find_undocumented(self) -> list[str]:
        """Requests without an end, and ends that the README does not name or calls a defect."""
        known = documented()
        found = [f"{identifier} has no end" for identifier in self.sent - set(self.outcomes)]
        for outcome in self.outcomes.values():
            for part in (outcome.whole, *outcome.lines.values()):
                if part.status in (LOST, LEFT, 200, 202):
                    continue
                if part.kind == "internal-error" or part.status not in known.get(part.kind, ()):
                    found.append(f"{outcome.identifier} ended in {part.name}")
        return found

    def find_unrecorded(self, audit: Path) -> list[str]:
        """Answers without their record, and records of what was neither answered nor cut off."""
        records = Counter(record_keys(audit))
        answers = {key for outcome in self.outcomes.values() for key in outcome.answers}
        found = [f"{key} was answered and not recorded" for key in answers - set(records)]
        found += [f"{key} was recorded {n} times" for key, n in records.items() if n > 1]
        for identifier, place in set(records) - answers:
            outcome = self.outcomes.get(identifier)
            part = None
            if outcome is not None:
                part = outcome.whole if place is None else outcome.lines.get(place)
            cut = outcome is not None and outcome.whole.status in _UNANSWERED
            if not cut and (part is None or part.status not in _UNANSWERED):
                found.append(f"{(identifier, place)} was recorded and not answered")
        return found


def record_keys(audit: Path) -> Iterable[tuple[str, int | None]]:
    """Request and place of each record."""
    for path in log_files(audit):
        for line in path.read_bytes().splitlines():
            record = json.loads(line)
            yield record["request_id"], record["index"]


@dataclass(slots=True)
class Report:
    """What a fault did.

    Attributes:
        done: The fault, in a sentence.
        seen: How requests ended that were sent while it lasted.
        later: And those after it.
        lost: Requests without an answer.
        recovery_seconds: From its end to the first right answer; None where it ends nothing.
        ready_seconds: From its end to `/health/ready`.
        resident_mb: Memory of the service before it and after.
        notes: Figures of this fault alone.
        wrong: What must not be; empty where all is well.
        skipped: Why it was not tried.
    """

    done: str
    seen: dict[str, int] = field(default_factory=dict)
    later: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    recovery_seconds: float | None = None
    ready_seconds: float | None = None
    resident_mb: list[int] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    skipped: str | None = None

    def expect(self, condition: object, otherwise: str) -> None:
        """Note what must not be."""
        if not condition:
            self.wrong.append(otherwise)
