"""A collector of traces: an OTLP/HTTP receiver that keeps what it is sent."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as it was received; ids in hexadecimal, times in nanoseconds."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    attributes: dict[str, Any]
    scope: str
    failed: bool


@dataclass
class Collector:
    """What was received.

    Attributes:
        address: Base URL.
        bodies: Of the requests, as they came.
        paths: Of the requests.
        take: Whether they are taken, or wait.
        status: Of the answers.
    """

    address: str = ""
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    take: threading.Event = field(default_factory=threading.Event)
    status: int = 200

    def spans(self) -> list[ReceivedSpan]:
        return [span for body in list(self.bodies) for span in _spans(body)]

    def wait_for(self, enough: Callable[[list[ReceivedSpan]], bool]) -> list[ReceivedSpan]:
        """Every span, as soon as there are enough."""
        give_up = time.monotonic() + 60
        while not enough(spans := self.spans()):
            assert time.monotonic() < give_up, spans
            time.sleep(0.02)
        return spans

    def trace(self, trace_id: str, root: str) -> list[ReceivedSpan]:
        """A trace's spans, once its root has come; what is within ends before."""

        def ended(spans: list[ReceivedSpan]) -> bool:
            return any(span.trace_id == trace_id and span.name == root for span in spans)

        return [span for span in self.wait_for(ended) if span.trace_id == trace_id]


def _spans(body: bytes) -> Iterator[ReceivedSpan]:
    request = ExportTraceServiceRequest.FromString(body)
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                assert not span.events
                assert not span.links
                assert not span.status.message
                assert not span.trace_state
                yield ReceivedSpan(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    {a.key: a.value.string_value or a.value.int_value for a in span.attributes},
                    scope.scope.name,
                    span.status.code == span.status.STATUS_CODE_ERROR,
                )


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    collector.take.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.take.wait()
            if collector.status == 200:
                collector.bodies.append(body)
                collector.paths.append(self.path)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(collector.status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        collector.take.set()
        server.shutdown()
        thread.join()
        server.server_close()
