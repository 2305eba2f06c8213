"""The load's client tells every answer from none, and lets connections be used again."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from tests.bench.client import LOST, ask
from tests.bench.connections import HOST, Connections, connect
from tests.bench.servers import READY, Call

Result = TypeVar("Result")

CALL = Call("/predict?model=a", b"a picture", "image/jpeg")
SECONDS = 20.0
"""Long before the client's own time-out: nothing here is to wait for that."""

HANG = b""
"""In place of an answer: there is none, and the connection stays."""


class Script:
    """A server that sends scripted answers, and notes what it was sent.

    Attributes:
        requests: Every request, head and body.
        num_connections: That were made.
        hanging: Set where a request waits in vain.
        serving: The connections' tasks.
    """

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self.requests: list[bytes] = []
        self.num_connections = 0
        self.hanging = asyncio.Event()
        self.serving: list[asyncio.Task[Any]] = []
        self._ended = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer until the script or the client ends the connection."""
        self.num_connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.serving.append(task)
        with suppress(asyncio.IncompleteReadError, ConnectionError):  # the client is done
            while self._answers:
                await self._answer(reader, writer)
                if self._ended:
                    break
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = len(CALL.body) if head.startswith(b"POST") else 0
        self.requests.append(head + await reader.readexactly(length))
        answer = self._answers.pop(0)
        for byte in answer:  # an answer comes in any pieces
            writer.write(bytes([byte]))
            await writer.drain()
        self._ended = b"close" in answer or answer.endswith(b"half")
        if answer == HANG or b"SMTP" in answer:
            self.hanging.set()
            await reader.readexactly(1)  # which never comes


@asynccontextmanager
async def scripted(*answers: bytes) -> AsyncIterator[tuple[Script, int]]:
    script = Script(*answers)
    async with await asyncio.start_server(script.serve, HOST, 0) as server:
        yield script, server.sockets[0].getsockname()[1]
        if script.serving:
            await asyncio.wait(script.serving)


def answered(status: int, header: str = "X: y") -> bytes:
    return f"HTTP/1.1 {status} Any\r\nContent-Length: 3\r\n{header}\r\n\r\nab.".encode()


def run(
    play: Callable[[Script, int, Connections], Coroutine[Any, Any, Result]], *answers: bytes
) -> Result:
    """Play against a scripted server, in bounded time; an error that nobody saw is one."""
    unseen: list[dict[str, Any]] = []

    async def bounded() -> Result:
        asyncio.get_running_loop().set_exception_handler(lambda _, found: unseen.append(found))
        async with (
            asyncio.timeout(SECONDS),
            scripted(*answers) as (script, port),
            connect() as connections,
        ):
            return await play(script, port, connections)

    result = asyncio.run(bounded())
    assert not unseen
    return result


def ask_each(*answers: bytes, calls: tuple[Call, ...]) -> tuple[list[int], Script]:
    async def play(script: Script, port: int, connections: Connections) -> tuple[list[int], Script]:
        return [(await ask(connections, port, call))[0] for call in calls], script

    return run(play, *answers)


def test_a_connection_is_used_again() -> None:
    statuses, script = ask_each(answered(200), answered(503), calls=(CALL, CALL))
    assert statuses == [200, 503]
    assert script.num_connections == 1
    head, body = script.requests[1].split(b"\r\n\r\n")
    assert head.startswith(b"POST /predict?model=a HTTP/1.1\r\n")
    assert b"Content-Type: image/jpeg\r\nContent-Length: 9" in head
    assert body == CALL.body


def test_an_answer_in_chunks_ends_with_the_last_of_them() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\n.\r\n0\r\n\r\n"
    statuses, script = ask_each(chunked, answered(204), calls=(READY, READY))
    assert statuses == [200, 204]
    assert script.num_connections == 1
    assert script.requests[0].startswith(b"GET /health/ready HTTP/1.1\r\n")
    assert b"Content-" not in script.requests[0]


def test_a_connection_that_the_server_closes_is_not_used_again() -> None:
    answers = answered(503, "Connection: close"), answered(200)
    statuses, script = ask_each(*answers, calls=(CALL, CALL))
    assert statuses == [503, 200]
    assert script.num_connections == 2


def test_half_an_answer_is_none() -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf"
    statuses, _ = ask_each(half, answered(200), calls=(CALL, CALL))
    assert statuses == [LOST, 200]


def test_what_is_no_http_is_no_answer() -> None:
    statuses, _ = ask_each(b"220 mail.example ESMTP\r\n", calls=(CALL,))
    assert statuses == [LOST]


def test_a_server_that_is_not_there_is_no_answer() -> None:
    async def ask_nobody() -> int:
        async with scripted() as (_, port):
            pass
        async with asyncio.timeout(SECONDS), connect() as connections:
            return (await ask(connections, port, CALL))[0]

    assert asyncio.run(ask_nobody()) == LOST


def test_an_answer_goes_to_who_asked_for_it() -> None:
    """Whoever gave up leaves no connection behind on which his answer might still come."""

    async def play(script: Script, port: int, connections: Connections) -> tuple[int, int]:
        first = asyncio.create_task(ask(connections, port, CALL))
        await script.hanging.wait()
        first.cancel()
        await asyncio.wait([first])
        status, _ = await ask(connections, port, CALL)
        return status, script.num_connections

    assert run(play, HANG, answered(503)) == (503, 2)
