"""How far the answers of late have moved from those of the test part; pure."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

from app.domain.labels import CLASS_INDEX

WINDOW_ANSWERS: Final = 500
"""Answers that are compared: by chance alone they reach about 0.015 against 2,000 test images."""


def population_stability_index(now: Sequence[float], before: Sequence[float]) -> float:
    """PSI of two distributions of counts over the same classes, as scorecards use it.

    Siddiqi, "Credit Risk Scorecards" (2006): below 0.1 nothing of note, from 0.25 on a shift. Half
    a count is added to each class, since one that never came would make it infinite.

    Args:
        now: Counts, not all of them zero.
        before: Counts of the same classes.
    """
    num_classes = len(before)
    shares = [
        [(count + 0.5) / (sum(counts) + 0.5 * num_classes) for count in counts]
        for counts in (now, before)
    ]
    return math.fsum((a - b) * math.log(a / b) for a, b in zip(*shares, strict=True))


class ClassWindow:
    """The most probable classes of the newest answers of a model, beside the test part's."""

    def __init__(
        self, confusion_matrix: Sequence[Sequence[int]], size: int = WINDOW_ANSWERS
    ) -> None:
        """Begin with no answer.

        Args:
            confusion_matrix: Of the test part; its columns are the answers.
            size: Answers that are looked back at.
        """
        self._before = [float(sum(column)) for column in zip(*confusion_matrix, strict=True)]
        self._now = [0] * len(self._before)
        self._labels: deque[str] = deque()
        self._size = size

    @property
    def num_answers(self) -> int:
        """In the window."""
        return len(self._labels)

    def add(self, label: str) -> float:
        """Take one more answer in.

        Returns:
            The index of the window.
        """
        self._labels.append(label)
        self._now[CLASS_INDEX[label]] += 1
        if len(self._labels) > self._size:
            self._now[CLASS_INDEX[self._labels.popleft()]] -= 1
        return population_stability_index(self._now, self._before)
