"""Spans of requests and of the stages of their answers, with nothing of a patient (ADR-0026).

OpenTelemetry's API alone, which does nothing until `app.trace_export` gives it a tracer. A stage's
span is made only within a span that is recorded: what is not traced costs next to nothing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from secrets import token_hex
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    NoOpTracer,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
)

Attributes = Mapping[str, str | int]

MAX_TRACEPARENT_LENGTH: Final = 128
_TRACEPARENT: Final = re.compile(
    r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[ -~]*)?"
)
"""W3C Trace Context, 3.2; a later version than 00 may have more behind its flags."""

MODEL: Final = "dermhybrid.model"
MODEL_VERSION: Final = "dermhybrid.model.version"
BATCH: Final = "dermhybrid.batch.id"
BATCH_SIZE: Final = "dermhybrid.batch.size"
IMAGE_INDEX: Final = "dermhybrid.image.index"
PROBLEM: Final = "dermhybrid.problem"


class InLine:
    """An image in a model's line, as spans of its request: `queue`, then `inference`.

    Belongs to one event loop.
    """

    def __init__(self, tracer: Tracer, attributes: Attributes) -> None:
        """Begin to wait, in the current span.

        Args:
            tracer: Makes the spans.
            attributes: Of the model.
        """
        parent = trace.get_current_span()
        self._tracer, self._attributes = tracer, attributes
        self._context = trace.set_span_in_context(parent) if parent.is_recording() else None
        self._span: Span | None = None
        self._begin("queue", {})

    def enter_batch(self, batch: Attributes) -> None:
        """The wait is over: the model has begun."""
        self.leave()
        self._begin("inference", batch)

    def leave(self, error: BaseException | None = None) -> None:
        """The model has ended, or the caller waits no longer."""
        span, self._span = self._span, None
        if span is not None:
            if error is not None:
                _fail(span, error)
            span.end()

    def _begin(self, name: str, attributes: Attributes) -> None:
        if self._context is not None:
            self._span = self._tracer.start_span(
                name, self._context, attributes={**self._attributes, **attributes}
            )


class Tracing:
    """Makes the spans of one application."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        """Trace.

        Args:
            tracer: Makes the spans; None for none.
        """
        self._tracer = tracer or NoOpTracer()
        self.enabled = tracer is not None

    @contextmanager
    def request(self, traceparents: Sequence[str]) -> Iterator[Span]:
        """The span of a request, below its caller's where there is a valid one.

        Args:
            traceparents: Every header of that name.
        """
        with self._root("HTTP", SpanKind.SERVER, caller_context(traceparents)) as span:
            yield span

    @contextmanager
    def job(self, name: str) -> Iterator[Span]:
        """The span of work that no request waits for."""
        with self._root(name, SpanKind.CONSUMER, Context()) as span:
            yield span

    @contextmanager
    def part(
        self, name: str, attributes: Attributes | None = None, begun_at: int | None = None
    ) -> Iterator[None]:
        """A span of a part of what the current span is of.

        Args:
            name: From a bounded set.
            attributes: Likewise.
            begun_at: Nanoseconds of Unix time; None for now.
        """
        if not trace.get_current_span().is_recording():
            yield
            return
        span = self._tracer.start_span(name, attributes=attributes, start_time=begun_at)
        with _current(span):
            yield

    @contextmanager
    def in_line(self, attributes: Attributes) -> Iterator[InLine]:
        """The spans of an image that is asked of a model."""
        line = InLine(self._tracer, attributes)
        try:
            yield line
        except BaseException as error:
            line.leave(error)
            raise
        finally:
            line.leave()

    @contextmanager
    def _root(self, name: str, kind: SpanKind, context: Context) -> Iterator[Span]:
        if not self.enabled:
            yield trace.INVALID_SPAN
            return
        span = self._tracer.start_span(name, context, kind)
        with _current(span):
            yield span


@contextmanager
def in_batch(lines: Sequence[InLine]) -> Iterator[None]:
    """The model answers some images at once; the spans of all name the same batch.

    A batch that failed may be entered again, by each of its images alone.
    """
    batch: Attributes = {BATCH: token_hex(8), BATCH_SIZE: len(lines)}
    for line in lines:
        line.enter_batch(batch)
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        for line in lines:
            line.leave(failure)


@contextmanager
def untraced() -> Iterator[None]:
    """What begins here belongs to no trace."""
    with trace.use_span(trace.INVALID_SPAN):
        yield


def describe_request(span: Span, method: str, route: str, status: int, kind: str | None) -> None:
    """Say of a request's span what became of it.

    Args:
        span: Of the request.
        method: A known one, or "other".
        route: The route's template, never the path.
        status: Of the answer.
        kind: Of the problem that was answered; None for none.
    """
    known = "_OTHER" if method == "other" else method
    span.update_name(f"{'HTTP' if method == 'other' else method} {route}")
    span.set_attributes(
        {"http.request.method": known, "http.route": route, "http.response.status_code": status}
    )
    if kind is not None:
        span.set_attribute(PROBLEM, kind)
    if status >= 500:
        span.set_attribute("error.type", kind or str(status))
        span.set_status(StatusCode.ERROR)


def of_model(name: str, version: int) -> Attributes:
    """Attributes that name a loaded model."""
    return {MODEL: name, MODEL_VERSION: version}


def caller_context(traceparents: Sequence[str]) -> Context:
    """What `traceparent` names; nothing where it is not sent exactly once, or is not valid."""
    if len(traceparents) != 1 or len(traceparents[0]) > MAX_TRACEPARENT_LENGTH:
        return Context()
    found = _TRACEPARENT.fullmatch(traceparents[0])
    if found is None:
        return Context()
    version, trace_id, span_id, flags, more = found.groups()
    parent = SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16) & TraceFlags.SAMPLED),
    )
    if version == "ff" or (version == "00" and more) or not parent.is_valid:
        return Context()
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def current_ids() -> dict[str, str]:
    """`trace_id` and `span_id` of the current span, for a log line; nothing outside of a trace."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }


@contextmanager
def _current(span: Span) -> Iterator[None]:
    """A span around its work; of an error its type alone, for messages may hold anything."""
    with trace.use_span(
        span, end_on_exit=True, record_exception=False, set_status_on_exception=False
    ):
        try:
            yield
        except BaseException as error:
            _fail(span, error)
            raise


def _fail(span: Span, error: BaseException) -> None:
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(StatusCode.ERROR)
