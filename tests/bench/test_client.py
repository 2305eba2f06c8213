"""The load's client tells every answer from none, and lets connections be used again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.bench.client import LOST, ask
from tests.bench.connections import HOST, connect
from tests.bench.servers import Call

CALL = Call("/predict?model=a", b"a picture", "image/jpeg")


class Script:
    """A server that sends scripted answers, and notes what it was sent.

    Attributes:
        requests: Every request, head and body.
        num_connections: That were made.
    """

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self.requests: list[bytes] = []
        self.num_connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer until a script's line ends the connection."""
        self.num_connections += 1
        while self._answers:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head + await reader.readexactly(len(CALL.body)))
            answer = self._answers.pop(0)
            for byte in answer:  # an answer comes in any pieces
                writer.write(bytes([byte]))
                await writer.drain()
            if b"close" in answer or not answer.endswith(b"."):
                break
        writer.close()


@asynccontextmanager
async def scripted(*answers: bytes) -> AsyncIterator[tuple[Script, int]]:
    script = Script(*answers)
    async with await asyncio.start_server(script.serve, HOST, 0) as server:
        yield script, server.sockets[0].getsockname()[1]


def answered(status: int, header: str = "X: y") -> bytes:
    return f"HTTP/1.1 {status} Any\r\nContent-Length: 3\r\n{header}\r\n\r\nab.".encode()


async def ask_each(count: int, *answers: bytes) -> tuple[list[int], Script]:
    async with scripted(*answers) as (script, port), connect() as connections:
        return [(await ask(connections, port, CALL))[0] for _ in range(count)], script


def test_a_connection_is_used_again() -> None:
    statuses, script = asyncio.run(ask_each(2, answered(200), answered(503)))
    assert statuses == [200, 503]
    assert script.num_connections == 1
    head, body = script.requests[1].split(b"\r\n\r\n")
    assert head.startswith(b"POST /predict?model=a HTTP/1.1\r\n")
    assert b"Content-Type: image/jpeg\r\nContent-Length: 9" in head
    assert body == CALL.body


def test_a_connection_that_the_server_closes_is_not() -> None:
    answers = answered(503, "Connection: close"), answered(200)
    statuses, script = asyncio.run(ask_each(2, *answers))
    assert statuses == [503, 200]
    assert script.num_connections == 2


def test_half_an_answer_is_none() -> None:
    statuses, _ = asyncio.run(ask_each(2, answered(200)[:-1], answered(200)))
    assert statuses == [LOST, 200]


def test_what_is_no_http_is_no_answer() -> None:
    statuses, _ = asyncio.run(ask_each(1, b"220 mail.example ESMTP\r\n"))
    assert statuses == [LOST]


def test_a_server_that_is_not_there_is_no_answer() -> None:
    async def ask_nobody() -> int:
        async with scripted() as (_, port):
            pass
        async with connect() as connections:
            return (await ask(connections, port, CALL))[0]

    assert asyncio.run(ask_nobody()) == LOST
