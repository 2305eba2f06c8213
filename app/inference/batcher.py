"""Gather single items into batches for something that answers several at once (ADR-0008).

Plain asyncio; knows neither HTTP nor models. All methods belong to one event loop.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from app.domain.errors import ServiceBusyError, ServiceStoppingError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

RATE_SMOOTHING: Final = 0.2
"""Weight of the newest batch in the moving average of the seconds that an item takes."""

PAUSE_SECONDS: Final = 0.1
"""After a failure that belongs to no item, such as a machine without memory."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of a line.

    Attributes:
        max_items: Largest batch.
        max_wait_seconds: How long an incomplete batch is held for more items, counted from
            the arrival of its oldest one; only where the previous batch has just ended.
        max_waiting: Items in line; more are refused.
    """

    max_items: int = 8
    max_wait_seconds: float = 0.0
    max_waiting: int = 64

    def __post_init__(self) -> None:
        """Refuse bounds that nothing fits into."""
        if self.max_items < 1 or self.max_waiting < 1 or self.max_wait_seconds < 0:
            raise ValueError(
                "max_items and max_waiting must be at least 1 and max_wait_seconds not negative, "
                f"received {self}."
            )


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What a batch that was answered cost.

    Attributes:
        waited: Seconds that each of its items stood in line.
        seconds: How long the answer took.
    """

    waited: tuple[float, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Place(Generic[Item]):
    """An item's place in the line; `arrived` is in seconds of the loop's clock."""

    item: Item
    arrived: float


class Batcher(Generic[Item, Answer]):
    """A bounded line of items before a function that answers batches.

    Every accepted item ends in exactly one of: its answer, the error of answering it alone, an
    error beside the items such as a lack of memory, `ServiceStoppingError`, or its caller's
    cancellation, which a deadline is too.
    """

    def __init__(
        self,
        answer: Callable[[list[Item]], Awaitable[Sequence[Answer]]],
        limits: BatchLimits,
        observe: Callable[[BatchReport], None] = lambda _report: None,
    ) -> None:
        """Open the line; needs a running event loop.

        Args:
            answer: Gives one answer for each item, in order. It is called with at most
                `limits.max_items`, one call at a time; where it raises or miscounts, it is
                called again with each item alone.
            limits: Bounds of batches and of the line.
            observe: Called after each batch that was answered.
        """
        self._answer, self._limits, self._observe = answer, limits, observe
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[asyncio.Future[Answer], _Place[Item]] = {}
        self._running: dict[asyncio.Future[Answer], _Place[Item]] = {}
        self._changed = asyncio.Event()
        self._closing = False
        self._seconds_per_item = 0.0
        self._worker = self._loop.create_task(self._work(), name="batcher")
        self._worker.add_done_callback(self._end)

    @property
    def num_waiting(self) -> int:
        """Items in line."""
        return len(self._waiting)

    async def submit(self, item: Item) -> Answer:
        """Wait in line for an answer; a caller that is cancelled takes its item along.

        Raises:
            ServiceBusyError: The line is full.
            ServiceStoppingError: The line is closed, or was closed before the answer came.
            Exception: What answering this item alone raised.
        """
        if self._closing:
            raise ServiceStoppingError
        if len(self._waiting) >= self._limits.max_waiting:
            raise ServiceBusyError(
                f"{len(self._waiting)} images are in line, as many as fit. Repeat the request "
                "after the time in Retry-After.",
                retry_after_seconds=self._seconds_to_clear(),
            )
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[future] = _Place(item, self._loop.time())
        self._changed.set()
        try:
            return await future
        finally:
            self._waiting.pop(future, None)

    async def close(self, grace_seconds: float) -> None:
        """Accept nothing more, answer what is inside, then end.

        Args:
            grace_seconds: After them, what is still inside gets `ServiceStoppingError`.
        """
        self._closing = True
        self._changed.set()
        await asyncio.wait([self._worker], timeout=grace_seconds)
        self._worker.cancel()
        await asyncio.wait([self._worker])

    def _end(self, _worker: "asyncio.Task[None]") -> None:
        """Leave nobody waiting for a worker that has ended, whatever ended it."""
        self._closing = True
        for future in [*self._waiting, *self._running]:
            if not future.done():
                future.set_exception(ServiceStoppingError())

    async def _work(self) -> None:
        """Answer batch after batch until closed and empty, whatever goes wrong with one."""
        while self._waiting or not self._closing:
            try:
                await self._turn()
            except Exception as error:
                logger.exception("a batch failed")
                for future in self._running:
                    if not future.done():
                        future.set_exception(error)
                self._running.clear()
                await asyncio.sleep(PAUSE_SECONDS)

    async def _turn(self) -> None:
        """Wait for a batch to be due, and answer it."""
        if not self._waiting:
            self._changed.clear()
            await self._changed.wait()
        else:
            await self._hold()
        await self._answer_next()

    async def _hold(self) -> None:
        """Straight after a batch, let an incomplete one fill up for a moment."""
        while self._waiting and len(self._waiting) < self._limits.max_items and not self._closing:
            oldest = next(iter(self._waiting.values()))
            remaining = oldest.arrived + self._limits.max_wait_seconds - self._loop.time()
            if remaining <= 0:
                return
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), remaining)
            except TimeoutError:
                return

    async def _answer_next(self) -> None:
        """Take the oldest items that someone still waits for, and answer them."""
        for future in list(self._waiting):
            if len(self._running) == self._limits.max_items:
                break
            place = self._waiting.pop(future)
            if not future.done():
                self._running[future] = place
        if not self._running:
            return
        batch = list(self._running)
        if not await self._settle(batch) and len(batch) > 1:
            for future in batch:
                if not future.done():
                    await self._settle([future])
        self._running.clear()

    async def _settle(self, futures: list[asyncio.Future[Answer]]) -> bool:
        """Ask once; whether it was answered. A single item gets its error as its end."""
        places = [self._running[future] for future in futures]
        started = self._loop.time()
        try:
            answers = await self._answer([place.item for place in places])
            if len(answers) != len(places):
                raise RuntimeError(f"{len(places)} items were given {len(answers)} answers.")
        except Exception as error:  # noqa: BLE001  whatever it is belongs to the item
            if len(futures) == 1 and not futures[0].done():
                futures[0].set_exception(error)
            return False
        for future, answer in zip(futures, answers, strict=True):
            if not future.done():
                future.set_result(answer)
        seconds = self._loop.time() - started
        self._measure(seconds / len(places))
        waited = tuple(started - place.arrived for place in places)
        self._observe(BatchReport(waited, seconds))
        return True

    def _seconds_to_clear(self) -> float:
        """How long all that is inside will take at the measured rate; 0 before any batch."""
        return (len(self._waiting) + len(self._running)) * self._seconds_per_item

    def _measure(self, seconds_per_item: float) -> None:
        weight = RATE_SMOOTHING if self._seconds_per_item else 1.0
        self._seconds_per_item += weight * (seconds_per_item - self._seconds_per_item)
