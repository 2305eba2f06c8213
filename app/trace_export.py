"""Send spans to a collector by OTLP over HTTP; needs the extra `otel` (ADR-0026).

What the SDK reads from its own variables, `OTEL_EXPORTER_OTLP_HEADERS` or `OTEL_TRACES_SAMPLER` for
example, counts here too.
"""

import logging
from collections.abc import Callable, Sequence
from importlib.metadata import version
from threading import Lock, Thread
from typing import Final, Literal

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import (
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from app.tracing import Tracing

Reason = Literal["queue-full", "not-exported"]
CountLost = Callable[[Reason, int], None]

MAX_WAITING_SPANS: Final = 2048
MAX_SPANS_OF_REQUEST: Final = 512
MAX_STOP_SECONDS: Final = 3.0
"""How long a stop waits for the last spans."""

logger = logging.getLogger(__name__)


class TraceExport:
    """A thread that sends spans.

    Attributes:
        tracing: Makes the spans.
    """

    def __init__(self, endpoint: str, count_lost: CountLost) -> None:
        """Begin to send.

        Args:
            endpoint: The collector's base URL, without `/v1/traces`.
            count_lost: Is told how many spans were lost, and why; from any thread.
        """
        # The exporter logs every failure of every attempt; `_Export` says when that changes.
        for name in ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        backlog = _Backlog()
        self._sender = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")
        self._provider = TracerProvider(
            # What the operator says of this instance counts before what the service says.
            resource=Resource(
                {SERVICE_NAME: "dermhybrid", SERVICE_VERSION: version("dermhybrid")}
            ).merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            _Bounded(
                BatchSpanProcessor(
                    _Export(self._sender, backlog, count_lost),
                    max_queue_size=MAX_WAITING_SPANS,
                    max_export_batch_size=MAX_SPANS_OF_REQUEST,
                ),
                backlog,
                count_lost,
            )
        )
        self.tracing = Tracing(self._provider.get_tracer("dermhybrid", version("dermhybrid")))

    def close(self) -> None:
        """Send what waits, for `MAX_STOP_SECONDS` at most; blocks the calling thread."""
        closing = Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        closing.start()
        closing.join(MAX_STOP_SECONDS)
        if closing.is_alive():
            self._sender.shutdown()  # type: ignore[no-untyped-call]  # ends its attempts


class _Backlog:
    """How many spans wait to be sent."""

    def __init__(self) -> None:
        self._num_waiting, self._lock = 0, Lock()

    def enter(self) -> bool:
        """Take a place; False where there is none."""
        with self._lock:
            if self._num_waiting >= MAX_WAITING_SPANS:
                return False
            self._num_waiting += 1
            return True

    def leave(self, num_spans: int) -> None:
        """Give places back."""
        with self._lock:
            self._num_waiting -= num_spans


class _Bounded(SpanProcessor):
    """Counts what does not fit, which the SDK's own queue would push out in silence."""

    def __init__(self, queue: SpanProcessor, backlog: _Backlog, count_lost: CountLost) -> None:
        self._queue, self._backlog, self._count_lost = queue, backlog, count_lost

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing to do."""

    def on_end(self, span: ReadableSpan) -> None:
        """Put a span into the queue, or count it."""
        if not (span.context and span.context.trace_flags.sampled):
            return
        if self._backlog.enter():
            self._queue.on_end(span)
        else:
            self._count_lost("queue-full", 1)

    def shutdown(self) -> None:
        """Send what waits."""
        self._queue.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Send what waits."""
        return self._queue.force_flush(timeout_millis)


class _Export(SpanExporter):
    """Counts what is not taken, and says when that begins and ends."""

    def __init__(self, sender: SpanExporter, backlog: _Backlog, count_lost: CountLost) -> None:
        self._sender, self._backlog, self._count_lost = sender, backlog, count_lost
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans that have left the queue."""
        self._backlog.leave(len(spans))
        result = self._sender.export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed:
            self._count_lost("not-exported", len(spans))
        if failed != self._failing:
            self._failing = failed
            if failed:
                logger.warning("traces are lost: the collector does not take them")
            else:
                logger.warning("traces are taken again")
        return result

    def shutdown(self) -> None:
        """End."""
        self._sender.shutdown()
