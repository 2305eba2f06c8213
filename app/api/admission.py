"""The door before predictions: how many may be in progress, and when to come back (ADR-0008)."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

from app.domain.errors import ServiceBusyError, ServiceStoppingError

DURATION_SMOOTHING: Final = 0.1
"""Weight of the newest prediction in the moving average of their durations."""


class Admission:
    """A bounded number of places; belongs to one event loop.

    Attributes:
        num_inside: Predictions in progress.
    """

    def __init__(self, capacity: int) -> None:
        """Open the door.

        Args:
            capacity: Predictions that may be in progress at once.
        """
        self.num_inside = 0
        self._capacity = capacity
        self._open = True
        self._mean_seconds = 0.0

    def close(self) -> None:
        """Let nobody in any more."""
        self._open = False

    def check(self) -> None:
        """Say whether the door is open.

        Raises:
            ServiceStoppingError: It is closed.
        """
        if not self._open:
            raise ServiceStoppingError

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Hold a place.

        Raises:
            ServiceStoppingError: The door is closed.
            ServiceBusyError: All places are taken. By Little's law a full house empties in
                the mean time that a prediction spends inside: that is when to come back.
        """
        self.check()
        if self.num_inside >= self._capacity:
            raise ServiceBusyError(
                f"{self.num_inside} such requests are in progress, as many as fit. "
                "Repeat the request after the time in Retry-After.",
                retry_after_seconds=self._mean_seconds,
            )
        self.num_inside += 1
        entered = monotonic()
        try:
            yield
        finally:
            self.num_inside -= 1
            weight = DURATION_SMOOTHING if self._mean_seconds else 1.0
            self._mean_seconds += weight * (monotonic() - entered - self._mean_seconds)
