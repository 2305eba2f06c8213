"""Around every request: its id, its measurement, its span and its log line."""

import logging
from ipaddress import ip_address
from time import perf_counter
from typing import Final

from opentelemetry.trace import INVALID_SPAN, Span
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import PROBLEM_KEY, unexpected_problem
from app.api.request_headers import header_of, headers_of
from app.logs import caller, new_request_id, request_id
from app.metrics import Metrics
from app.tracing import Tracing, describe_request

REQUEST_ID_HEADER: Final = "x-request-id"
TRACEPARENT_HEADER: Final = "traceparent"
UNMATCHED: Final = "unmatched"
"""In place of a route, of requests that have none."""

_UNTRACED: Final = ("/health/", "/metrics")
"""What these paths begin with is asked for by machines, again and again."""

_ROUTE_KEY: Final = "dermhybrid.route"
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
        with self._tracing.request(headers_of(scope, TRACEPARENT_HEADER)) as span:
            await self._observe(scope, receive, send, span)

    async def _observe(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        identifier = new_request_id(header_of(scope, REQUEST_ID_HEADER))
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
            if answering:  # nobody can be told any more; the measurements can
                scope[PROBLEM_KEY] = response.kind
            else:
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
                    "problem": scope.get(PROBLEM_KEY),
                    "seconds": round(seconds, 4),
                },
            )
            request_id.reset(token)
            caller.reset(caller_token)


def note_route(scope: Scope) -> None:
    """A request is refused at its path, before it is routed; only of paths that are known."""
    scope[_ROUTE_KEY] = scope["path"]


def _address(scope: Scope) -> str:
    """Where a request came from; a proxy may have sent any text as that."""
    host = (scope.get("client") or ("",))[0]
    try:
        return str(ip_address(host))
    except ValueError:
        return "unknown"


def _route_template(scope: Scope) -> str:
    """The path of the route that answered, with its placeholders; never the raw path."""
    return str(getattr(scope.get("route"), "path", scope.get(_ROUTE_KEY, UNMATCHED)))
