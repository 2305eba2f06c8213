"""A bound on what one caller may ask for, so that the others find a place (ADR-0022)."""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Final

from app.domain.errors import QuotaExceededError

MAX_CALLERS: Final = 10_000
"""Remembered at once; whoever asked least recently is forgotten, with a full bucket."""


class Quota:
    """A token bucket for each caller (Turner, IEEE Communications Magazine 24(10), 1986).

    A bucket holds `burst` tokens and gets `per_minute` of them each minute. It belongs to one
    event loop.
    """

    def __init__(
        self, per_minute: float, burst: int, clock: Callable[[], float] = monotonic
    ) -> None:
        """Fill every bucket.

        Args:
            per_minute: Images, or other requests, that a caller may send in the long run.
            burst: How many of them at once.
            clock: Seconds from any moment.
        """
        self._per_second, self._burst, self._clock = per_minute / 60, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> None:
        """Take one token.

        Raises:
            QuotaExceededError: There is none.
        """
        tokens = self._tokens(caller)
        if tokens < 1:
            raise QuotaExceededError(
                f"At most {self._per_second * 60:g} images or other requests a minute are "
                f"answered, and {self._burst} at once. Repeat the request after the time in "
                "Retry-After.",
                retry_after_seconds=(1 - tokens) / self._per_second,
            )
        self._store(caller, tokens - 1)

    def charge(self, caller: str, num_tokens: int) -> None:
        """Take the tokens of what was let in already; the bucket may owe some afterwards."""
        self._store(caller, self._tokens(caller) - num_tokens)

    def _tokens(self, caller: str) -> float:
        tokens, seen = self._buckets.get(caller, (float(self._burst), self._clock()))
        return min(float(self._burst), tokens + (self._clock() - seen) * self._per_second)

    def _store(self, caller: str, tokens: float) -> None:
        self._buckets[caller] = (tokens, self._clock())
        self._buckets.move_to_end(caller)
        if len(self._buckets) > MAX_CALLERS:
            self._buckets.popitem(last=False)
