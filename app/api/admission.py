"""The door before predictions: how many may be in progress, and when to come back (ADR-0008)."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

import anyio

from app.domain.errors import ServiceBusyError, ServiceStoppingError

DURATION_SMOOTHING: Final = 0.1
"""Weight of the newest prediction in the moving average of their durations."""

SLOW_BYTES_PER_SECOND: Final = 16 * 1024
"""Mean rate of a body, or of an answer that is taken, below which its place is given away when all
are taken."""
_LEAST_SECONDS: Final = 1.0
"""Before either is called slow."""


class Place:
    """What a request holds while it is inside.

    Attributes:
        scope: The request's work; cancelled where it must make room.
        rate: Of its body, or of its answer, in bytes a second when it had to; None until then.
        is_answering: Whether its answer has begun.
    """

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.rate: float | None = None
        self.is_answering = False
        self._entered = monotonic()
        self._num_bytes = 0
        self._is_arriving = False
        self._given: float | None = None
        self._bytes_taken, self._seconds_taking = 0, 0.0

    @property
    def seconds(self) -> float:
        """Since it was taken."""
        return monotonic() - self._entered

    def begin_body(self) -> None:
        """The request's body is awaited within `scope`: the place may be taken away."""
        self._is_arriving = True

    def receive(self, num_bytes: int) -> None:
        """Note a piece of the request's body."""
        self._num_bytes += num_bytes

    def end_body(self) -> None:
        """The whole body is here: the place is kept while it is worked on."""
        self._is_arriving = False

    @contextmanager
    def give(self, num_bytes: int) -> Iterator[None]:
        """Wait for the caller to take a piece of the answer: the place may be taken away."""
        self.is_answering, self._given = True, monotonic()
        try:
            yield
        finally:
            self._seconds_taking += monotonic() - self._given
            self._bytes_taken += num_bytes
            self._given = None

    def slowness(self) -> float | None:
        """Bytes a second of what comes, or is taken, slowly; None for what keeps its place."""
        if self._is_arriving:
            num_bytes, seconds = self._num_bytes, self.seconds
        elif self._given is not None:
            waited = monotonic() - self._given
            num_bytes, seconds = self._bytes_taken, self._seconds_taking + waited
        else:
            return None
        if seconds < _LEAST_SECONDS:
            return None
        rate = num_bytes / seconds
        return rate if rate < SLOW_BYTES_PER_SECOND else None


class Admission:
    """A bounded number of places; belongs to one event loop."""

    def __init__(self, capacity: int) -> None:
        """Open the door.

        Args:
            capacity: Predictions that may be in progress at once.
        """
        self._capacity = capacity
        self._places: set[Place] = set()
        self._open = True
        self._mean_seconds = 0.0

    @property
    def num_inside(self) -> int:
        """Predictions in progress."""
        return len(self._places)

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
    def enter(self) -> Iterator[Place]:
        """Hold a place; where all are taken, that of the slowest body or answer.

        Raises:
            ServiceStoppingError: The door is closed.
            ServiceBusyError: All places are taken, by what is worked on, or comes and goes fast
                enough.
                By Little's law a full house empties in the mean time that a prediction spends
                inside: that is when to come back.
        """
        self.check()
        if self.num_inside >= self._capacity and not self._make_room():
            raise ServiceBusyError(
                f"{self.num_inside} such requests are in progress, as many as fit. "
                "Repeat the request after the time in Retry-After.",
                retry_after_seconds=self._mean_seconds,
            )
        place = Place()
        self._places.add(place)
        try:
            yield place
        finally:
            self._places.discard(place)
            if place.rate is None:
                weight = DURATION_SMOOTHING if self._mean_seconds else 1.0
                self._mean_seconds += weight * (place.seconds - self._mean_seconds)

    def _make_room(self) -> bool:
        """Send the slowest body or answer away; whether there was one."""
        rates = [(rate, place) for place in self._places if (rate := place.slowness()) is not None]
        if not rates:
            return False
        rate, slowest = min(rates, key=lambda pair: pair[0])
        slowest.rate = rate
        self._places.discard(slowest)
        slowest.scope.cancel()
        return True
