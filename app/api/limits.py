"""Bounds on requests: how many at once, how long their bodies are, how much time they take."""

import asyncio
import logging
import math
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

import anyio
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.admission import Admission, Place
from app.api.errors import PROBLEM_KEY, client_closed, domain_problem, problem
from app.api.observation import note_route
from app.api.request_headers import header_of
from app.domain.errors import (
    BodyTooSlowError,
    DeadlineExceededError,
    DermHybridError,
    ImageTooManyBytesError,
    RequestTooLongError,
    ServiceBusyError,
    ServiceStoppingError,
)

REQUEST_TIMEOUT_HEADER: Final = "x-request-timeout"
MULTIPART_OVERHEAD_BYTES: Final = 64 * 1024
"""Boundaries, part headers and other form fields around the image."""

PIECE_BYTES: Final = 64 * 1024
"""Of an answer that are given to the server at a time."""

_SECONDS_KEY: Final = "dermhybrid.seconds"
_MAX_LENGTH_DIGITS: Final = 20

logger = logging.getLogger(__name__)


class Admit:
    """Hold a place for a prediction from its first byte to its last, or refuse it at once.

    Under overload most requests end here: before their upload is read, and before the
    framework has spent time on them. Whoever sends an upload or takes an answer slowly makes room
    for others then.
    """

    def __init__(self, app: ASGIApp, doors: Mapping[str, Admission]) -> None:
        """Wrap an application.

        Args:
            app: Answers who was let in.
            doors: By the path of what is behind them.
        """
        self._app, self._doors = app, doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        door = self._doors.get(scope["path"]) if scope["type"] == "http" else None
        if door is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        with ExitStack() as stack:
            try:
                place = stack.enter_context(door.enter())
            except (ServiceBusyError, ServiceStoppingError) as error:
                note_route(scope)
                await domain_problem(error)(scope, receive, send)
                return
            await self._answer(place, scope, receive, send)

    async def _answer(self, place: Place, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer from a place, unless it is taken away from who sends or reads slowly."""

        async def counted_receive() -> Message:
            message = await receive()
            place.receive(len(message.get("body", b"")))
            if not message.get("more_body", False):
                place.end_body()
            return message

        async def send_in_pieces(message: Message) -> None:
            """Each piece is waited for: a place is held until next to all has been taken."""
            place.end_body()
            body, given = message.get("body", b""), 0
            while len(body) - given > PIECE_BYTES:
                piece = body[given : given + PIECE_BYTES]
                given += PIECE_BYTES
                with place.give(PIECE_BYTES):
                    await send({**message, "body": piece, "more_body": True})
            with place.give(len(body) - given):
                await send({**message, "body": body[given:]} if given else message)

        place.begin_body()
        with place.scope:
            await self._app(scope, counted_receive, send_in_pieces)
        if place.scope.cancelled_caught and place.rate is not None:
            note_route(scope)
            if place.is_answering:  # the server closes a connection whose answer ends too soon
                scope[PROBLEM_KEY] = "answer-not-taken"
                logger.warning("answer not taken", extra={"bytes_per_second": round(place.rate)})
                return
            await domain_problem(BodyTooSlowError(place.rate))(scope, receive, send)


class LimitBody:
    """Stop reading a request's body once it is longer than any acceptable upload."""

    def __init__(
        self, app: ASGIApp, max_image_bytes: int, max_bytes_by_prefix: Mapping[str, int]
    ) -> None:
        """Wrap an application.

        Args:
            app: Its bodies are limited.
            max_image_bytes: Of an image; a request may have little more.
            max_bytes_by_prefix: Of other requests, by what their path begins with.
        """
        self._app = app
        self._max_image_bytes = max_image_bytes
        self._max_bytes_by_prefix = max_bytes_by_prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        max_bytes = self._max_bytes(scope["path"])
        # No server lets another header through; what is none of digits says nothing, and the bytes
        # themselves are counted. Python converts 4,300 digits at most.
        announced = (header_of(scope, "content-length") or "0")[:_MAX_LENGTH_DIGITS]
        too_long = announced.isdecimal() and int(announced) > max_bytes
        received = 0

        async def limited_receive() -> Message:
            nonlocal received
            if too_long:
                raise self._error(max_bytes)
            message = await receive()
            received += len(message.get("body", b""))
            if received > max_bytes:
                raise self._error(max_bytes)
            return message

        await self._app(scope, limited_receive, send)

    def _max_bytes(self, path: str) -> int:
        for prefix, max_bytes in self._max_bytes_by_prefix.items():
            if path.startswith(prefix):
                return max_bytes
        return self._max_image_bytes + MULTIPART_OVERHEAD_BYTES

    def _error(self, max_bytes: int) -> DermHybridError:
        if max_bytes < self._max_image_bytes:
            return RequestTooLongError(f"The request is longer than {max_bytes:,} bytes.")
        return ImageTooManyBytesError(
            f"The request is longer than {max_bytes:,} bytes; an image may have at most "
            f"{self._max_image_bytes:,}. Send smaller or more strongly compressed files."
        )


class LimitTime:
    """End a request whose time has passed, or whose caller has left, before its answer began.

    What has begun in a thread ends first: a thread cannot be stopped.
    """

    def __init__(self, app: ASGIApp, default_seconds: float, max_seconds: float) -> None:
        self._app = app
        self._default_seconds, self._max_seconds = default_seconds, max_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seconds = self._allowed_seconds(header_of(scope, REQUEST_TIMEOUT_HEADER))
        if seconds is None:
            refusal = problem(
                422,
                "invalid-request",
                "Invalid Request",
                f"header.{REQUEST_TIMEOUT_HEADER}: expected seconds, more than 0 and at most "
                f"{self._max_seconds:g}.",
            )
            await refusal(scope, receive, send)
            return
        watch: asyncio.Task[None] | None = None
        has_left = False

        async def wait_for_departure() -> None:
            nonlocal has_left
            while (await receive())["type"] != "http.disconnect":
                pass
            has_left = True
            limit.cancel()

        async def watched_receive() -> Message:
            nonlocal watch
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                watch = watch or asyncio.create_task(wait_for_departure())
            return message

        async def unlimited_send(message: Message) -> None:
            limit.deadline = math.inf  # what has begun is sent to its end
            await send(message)

        scope[_SECONDS_KEY] = seconds
        limit = anyio.CancelScope(deadline=anyio.current_time() + seconds)
        try:
            with limit:
                await self._app(scope, watched_receive, unlimited_send)
        finally:
            if watch is not None:
                watch.cancel()
        if limit.cancelled_caught and limit.deadline < math.inf:
            late = DeadlineExceededError(
                f"There was no answer within {seconds:g} s. Repeat the request later, or allow "
                f"more time in X-Request-Timeout, at most {self._max_seconds:g} s."
            )
            ending = client_closed() if has_left else domain_problem(late)
            await ending(scope, receive, send)

    def _allowed_seconds(self, header: str | None) -> float | None:
        """The request's time in seconds; None where the header is none that is accepted."""
        if header is None:
            return self._default_seconds
        try:
            seconds = float(header)
        except ValueError:
            return None
        return seconds if 0 < seconds <= self._max_seconds else None


def allowed_seconds(request: Request) -> float:
    """The time that a request was given, in seconds."""
    return float(request.scope[_SECONDS_KEY])
