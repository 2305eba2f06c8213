"""Keep-alive connections that cost little, for a client beside the server that it measures.

Requests are written as bytes that are made once, and answers are parsed by llhttp (`httptools`):
half of the processor time of a general client, which at three times a service's capacity took a
twentieth of two processors away from it. An answer has its length or comes in chunks; one that
ends with its connection counts as none.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version
from typing import Final, cast

import httptools

from tests.bench.servers import Call

HOST: Final = "127.0.0.1"
CLIENT: Final = f"httptools {version('httptools')}"
"""What sends the requests: it takes its share of the processors, and of every latency."""


class Connections:
    """Connections to servers of this machine, used again where the server allows it."""

    def __init__(self) -> None:
        self._idle: defaultdict[int, list[_Connection]] = defaultdict(list)

    async def send(self, port: int, call: Call) -> int:
        """Send a request; the answer's status once its last byte is here.

        Raises:
            OSError: It ended before, or no connection could be made.
        """
        connection = await self._take(port)
        try:
            status = await connection.send(_request(port, call))
        except BaseException:
            connection.abort()
            raise
        if connection.is_open:
            self._idle[port].append(connection)
        return status

    def close(self) -> None:
        """Close all that are not in use."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()

    async def _take(self, port: int) -> "_Connection":
        idle = self._idle[port]
        while idle:
            connection = idle.pop()
            if connection.is_open:
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, HOST, port)
        return connection


@asynccontextmanager
async def connect() -> AsyncIterator[Connections]:
    """As many connections as are needed at once."""
    connections = Connections()
    try:
        yield connections
    finally:
        connections.close()


class _Connection(asyncio.Protocol):
    """One connection with one request at a time; also what llhttp calls back."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._status: asyncio.Future[int] | None = None
        self._is_kept = True

    @property
    def is_open(self) -> bool:
        """Whether another request may be sent."""
        return self._is_kept and not self._transport.is_closing()

    async def send(self, request: bytes) -> int:
        """The status of the answer to a request."""
        self._status = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._status

    def close(self) -> None:
        """Send no other request."""
        self._is_kept = False
        self._transport.close()

    def abort(self) -> None:
        """End at once, whatever is still to be sent."""
        self._is_kept = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"This is no HTTP: {error}"))
            self.abort()

    def eof_received(self) -> None:
        """Whoever waits gets no answer, even where the request is not sent to its end."""
        self._is_kept = False
        self._fail(ConnectionError("The server has ended the connection."))

    def connection_lost(self, error: Exception | None) -> None:
        """Whoever waits gets no answer."""
        self._is_kept = False
        self._fail(ConnectionError(f"The connection ended: {error}"))

    def on_message_complete(self) -> None:
        """The whole answer is here."""
        if not self._parser.should_keep_alive():
            self.close()
        status, self._status = self._status, None
        if status is not None and not status.done():
            status.set_result(self._parser.get_status_code())

    def _fail(self, error: ConnectionError) -> None:
        status, self._status = self._status, None
        if status is not None and not status.done():
            status.set_exception(error)


@cache
def _request(port: int, call: Call) -> bytes:
    method = "POST" if call.body else "GET"
    head = f"{method} {call.path} HTTP/1.1\r\nHost: {HOST}:{port}\r\n"
    if call.body:
        head += f"Content-Type: {call.content_type}\r\nContent-Length: {len(call.body)}\r\n"
    return f"{head}\r\n".encode() + call.body
