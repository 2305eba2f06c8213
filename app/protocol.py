"""HTTP/1.1 connections that do not wait for a slow client for ever (ADR-0023).

uvicorn bounds how long an idle connection is kept after an answer, and nothing else. Each of these
holds a connection, and some of them a place in line, for as long as a client likes:

- a request's head that comes byte by byte, or never (slow loris);
- the rest of a body that was refused before it had come;
- an answer that is not taken.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 64 * 1024
"""Of a request line with its headers, and of what else is no body: what extends a chunk, or comes
after the last one. What a token may have (8 KiB) fits several times."""

MIN_BYTES_TAKEN: Final = 4 * 1024

MAX_UNTAKEN_BYTES: Final = 64 * 1024
"""Of an answer that wait for its client; TLS has eight times as many by default."""

READ_SECONDS: Final = 0.1
"""Between the end of a time and what is done about it; see `_Deadline`."""

_EXHAUSTED: Final = json.dumps(
    {
        "type": "urn:dermhybrid:problem:resources-exhausted",
        "title": "Resources Exhausted",
        "status": 503,
        "detail": "The machine has too little memory left to read the request. Repeat it later.",
    }
).encode()


class _Deadline:
    """Acts after some seconds, but first lets what was sent in time be read.

    A process that was stopped finds its timers due together with what its clients have sent
    meanwhile. asyncio looks at the timers first: a stop interrupts its wait, which then ends
    without telling what is there to read.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, act: Callable[[], None]
    ) -> None:
        self._loop, self._act = loop, act
        self._handle = loop.call_later(seconds, self._read_first)

    def _read_first(self) -> None:
        self._handle = self._loop.call_later(READ_SECONDS, self._act)

    def cancel(self) -> None:
        """Never act."""
        self._handle.cancel()


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections whose client owes something for too long.

    Attributes:
        client_seconds: For a request's head, for the rest of a body that was refused, and for a
            client to take at least `MIN_BYTES_TAKEN` of an answer.
    """

    client_seconds: ClassVar[float]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sending: _Deadline | None = None
        self._taking: _Deadline | None = None
        self._other_bytes = 0
        self._went_on = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=MAX_UNTAKEN_BYTES)
        self._await_client()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._client_sent()
        self.resume_writing()
        self._end_taking()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; where no head has come of them yet, go on waiting."""
        self._went_on = False
        super().data_received(data)
        # uvicorn has stopped its own timer, whatever came; a head may have begun, or not even.
        if not self._sending and (self.cycle is None or self.cycle.response_complete):
            self._await_client()
        # The next request's, too, that comes while this one is answered. What has body, or ends
        # one, is not counted, however long a piece it comes in.
        self._other_bytes = 0 if self._went_on else self._other_bytes + len(data)
        if self._other_bytes > MAX_HEAD_BYTES:
            self._close()

    def on_body(self, body: bytes) -> None:
        """Note that it goes on."""
        self._went_on = True
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; where it was not read for want of memory, say that."""
        if not isinstance(getattr(sys.exception(), "__context__", None), MemoryError):
            super().send_400_response(msg)
            return
        cycle = self.cycle  # on a connection that goes on it may still be of the request before
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(
                b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n"
                b"content-type: application/problem+json\r\ncontent-length: %d\r\n\r\n%b"
                % (len(_EXHAUSTED), _EXHAUSTED)
            )
        self.transport.close()

    def on_headers_complete(self) -> None:
        """The application has the request now, and bounds its time."""
        self._went_on = True
        self._client_sent()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The client owes nothing until its next request."""
        self._went_on = True
        super().on_message_complete()
        self.cycle.more_body = False  # uvicorn does not note it of a body that was refused
        self._client_sent()

    def on_response_complete(self) -> None:
        """Where the body has not come yet, wait for the rest of it."""
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._await_client()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, unless a request has come that was not read yet."""
        self.timeout_keep_alive_task = self.loop.call_later(READ_SECONDS, self._close)

    def pause_writing(self) -> None:
        """The client does not take what is sent: watch it."""
        super().pause_writing()
        self._await_taking(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """It does again; the rest of what is the last is watched on."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._end_taking()

    def _end_taking(self) -> None:
        if self._taking:
            self._taking.cancel()
            self._taking = None

    def _await_taking(self, num_bytes: int) -> None:
        """Give up on whoever takes next to nothing of what waits."""

        def look() -> None:
            left = self.transport.get_write_buffer_size()
            if left > num_bytes - MIN_BYTES_TAKEN:
                self.transport.abort()
            else:
                self._await_taking(left)

        self._taking = _Deadline(self.loop, self.client_seconds, look)

    def _await_client(self) -> None:
        self._client_sent()
        self._sending = _Deadline(self.loop, self.client_seconds, self._close)

    def _client_sent(self) -> None:
        if self._sending:
            self._sending.cancel()
            self._sending = None

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
            # What is still to be sent is not waited for either.
            self.loop.call_later(self.client_seconds, self.transport.abort)


def bounded_protocol(client_seconds: float) -> type[BoundedProtocol]:
    """The protocol in the form that uvicorn takes, with its attribute."""
    return type("BoundedProtocol", (BoundedProtocol,), {"client_seconds": client_seconds})
