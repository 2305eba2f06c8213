"""Around every request: its id, its measurement, its log line, bounds on its body and its time."""

import asyncio
import logging
import math
from collections.abc import Mapping
from contextlib import ExitStack
from ipaddress import ip_address
from time import perf_counter
from typing import Final

import anyio
from opentelemetry.trace import INVALID_SPAN, Span
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.admission import Admission, Place
from app.api.errors import (
    PROBLEM_KEY,
    client_closed,
    domain_problem,
    problem,
    unexpected_problem,
)
from app.domain.errors import (
    BodyTooSlowError,
    DeadlineExceededError,
    DermHybridError,
    ImageTooManyBytesError,
    RequestTooLongError,
    ServiceBusyError,
    ServiceStoppingError,
)
from app.telemetry import Metrics, caller, new_request_id, request_id
from app.tracing import Tracing, describe_request

REQUEST_ID_HEADER: Final = "x-request-id"
TRACEPARENT_HEADER: Final = "traceparent"
REQUEST_TIMEOUT_HEADER: Final = "x-request-timeout"
MULTIPART_OVERHEAD_BYTES: Final = 64 * 1024
"""Boundaries, part headers and other form fields around the image."""

SECURITY_HEADERS: Final = {
    # Answers are about a patient's picture: no cache keeps them, no page embeds or reads them.
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
TLS_HEADERS: Final = {"strict-transport-security": "max-age=63072000"}

_UNTRACED: Final = ("/health/", "/metrics")
"""What these paths begin with is asked for by machines, again and again."""

_ROUTE_KEY: Final = "dermhybrid.route"
"""The path of a request that was refused before it was routed."""

_SECONDS_KEY: Final = "dermhybrid.seconds"
_KNOWN_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

logger = logging.getLogger("app.access")


class Observe:
    """Give each request an id; count, time, trace and log it by its route's template."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing) -> None:
        self._app, self._metrics, self._tracing = app, metrics, tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"].startswith(_UNTRACED):
            await self._observe(scope, receive, send, INVALID_SPAN)
            return
        with self._tracing.request(_headers(scope, TRACEPARENT_HEADER)) as span:
            await self._observe(scope, receive, send, span)

    async def _observe(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        identifier = new_request_id(_header(scope, REQUEST_ID_HEADER))
        token = request_id.set(identifier)
        caller_token = caller.set(_address(scope))
        method = scope["method"] if scope["method"] in _KNOWN_METHODS else "other"
        status, answering = 500, False

        async def send_with_id(message: Message) -> None:
            nonlocal status, answering
            if message["type"] == "http.response.start":
                answering = True
                status = message["status"]
                header = (REQUEST_ID_HEADER.encode(), identifier.encode())
                message["headers"] = [*message["headers"], header]
            await send(message)

        started = perf_counter()
        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001  the last place that knows the request's id
            response = unexpected_problem(error)
            if not answering:
                await response(scope, receive, send_with_id)
        finally:
            seconds = perf_counter() - started
            route = _route_template(scope)  # the router has left its finding there
            self._metrics.in_flight.dec()
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.request_seconds.labels(method, route).observe(seconds)
            if PROBLEM_KEY in scope:
                self._metrics.problems.labels(route, scope[PROBLEM_KEY]).inc()
            describe_request(span, method, route, status, scope.get(PROBLEM_KEY))
            logger.info(
                "request",
                extra={
                    "caller": caller.get(),
                    "method": method,
                    "route": route,
                    "status": status,
                    "seconds": round(seconds, 4),
                },
            )
            request_id.reset(token)
            caller.reset(caller_token)


class SecureHeaders:
    """Tell browsers to do nothing with an answer but show it to who asked (OWASP, REST Security).

    An answer that has one of these headers itself keeps it: a page needs its own policy.
    """

    def __init__(self, app: ASGIApp, *, encrypted: bool) -> None:
        """Wrap an application.

        Args:
            app: Its answers get the headers.
            encrypted: Whether the service has TLS, which browsers are then to insist on.
        """
        self._app = app
        self._headers = SECURITY_HEADERS | (TLS_HEADERS if encrypted else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""

        async def send_securely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message["headers"]))
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                message = {**message, "headers": headers.raw}
            await send(message)

        await self._app(scope, receive, send_securely)


class Admit:
    """Hold a place for a prediction from its first byte to its last, or refuse it at once.

    Under overload most requests end here: before their upload is read, and before the
    framework has spent time on them. Whoever sends an upload slowly makes room for others then.
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
                scope[_ROUTE_KEY] = scope["path"]
                await domain_problem(error)(scope, receive, send)
                return
            await self._answer(place, scope, receive, send)

    async def _answer(self, place: Place, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer from a place, unless it is taken away before the body has come."""

        async def counted_receive() -> Message:
            message = await receive()
            place.receive(len(message.get("body", b"")))
            if not message.get("more_body", False):
                place.end_body()
            return message

        async def noted_send(message: Message) -> None:
            place.end_body()
            await send(message)

        place.begin_body()
        with place.scope:
            await self._app(scope, counted_receive, noted_send)
        if place.scope.cancelled_caught and place.rate is not None:
            scope[_ROUTE_KEY] = scope["path"]
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
        announced = _header(scope, "content-length") or "0"
        too_long = announced.isdigit() and int(announced) > max_bytes
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
        seconds = self._allowed_seconds(_header(scope, REQUEST_TIMEOUT_HEADER))
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


def _address(scope: Scope) -> str:
    """Where a request came from; a proxy may have sent any text as that."""
    host = (scope.get("client") or ("",))[0]
    try:
        return str(ip_address(host))
    except ValueError:
        return "unknown"


def _headers(scope: Scope, name: str) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name.encode()]


def _header(scope: Scope, name: str) -> str | None:
    return next(iter(_headers(scope, name)), None)


def _route_template(scope: Scope) -> str:
    """The path of the route that answered, with its placeholders; never the raw path."""
    return str(getattr(scope.get("route"), "path", scope.get(_ROUTE_KEY, "unmatched")))
