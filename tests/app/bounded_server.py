"""A small application behind the protocol that bounds its clients; imports little."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.queues import Queue
from typing import Literal

import uvicorn
from starlette.types import Receive, Scope, Send

from app.protocol import bounded_protocol

SECONDS = 0.5
ANSWER = b"x" * (32 << 20)
"""More than the system's buffers take."""


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuses without reading, reads, answers at length or not while the client stays, by path."""
    while scope["path"] == "/wait":
        if (await receive())["type"] == "http.disconnect":
            return
    if scope["path"] == "/echo":
        more = True
        while more:
            more = (await receive()).get("more_body", False)
    body = ANSWER if scope["path"] == "/long" else b"done"
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def server(seconds: float = SECONDS, keep_alive_seconds: int = 5) -> AsyncIterator[int]:
    """Run it in this process.

    Args:
        seconds: That a client has.
        keep_alive_seconds: That a connection may be idle.

    Yields:
        Its port.
    """
    config = uvicorn.Config(
        application,
        port=0,
        http=bounded_protocol(seconds),
        lifespan="off",
        log_config=None,
        timeout_keep_alive=keep_alive_seconds,
    )
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve())
    while not running.started:  # noqa: ASYNC110  uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield running.servers[0].sockets[0].getsockname()[1]
    finally:
        running.should_exit = True
        await task


def serve(loop: Literal["asyncio", "uvloop"], seconds: int, ports: "Queue[int]") -> None:
    """Run it in a process of its own.

    Args:
        loop: Its event loop.
        seconds: That a client has, and that a connection may be idle.
        ports: Gets its port.
    """

    async def scenario() -> None:
        async with server(seconds, seconds) as port:
            ports.put(port)
            await asyncio.sleep(3600)

    make_loop = uvicorn.Config(application, loop=loop).get_loop_factory()
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(scenario())
