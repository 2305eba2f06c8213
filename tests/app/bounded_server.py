"""A small application behind the protocol that bounds its clients; imports little."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.queues import Queue

import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

from app.protocol import bounded_protocol

SECONDS = 0.5
ANSWER = b"x" * (32 << 20)
"""More than the system's buffers take."""


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuses without reading, reads, or answers at length, by path."""
    if scope["path"] == "/echo":
        more = True
        while more:
            more = (await receive()).get("more_body", False)
    body = ANSWER if scope["path"] == "/long" else b"done"
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def server(keep_alive_seconds: int = 5) -> AsyncIterator[int]:
    config = uvicorn.Config(
        application,
        port=0,
        http=bounded_protocol(SECONDS),
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


def serve(loop: str, ports: "Queue[int]") -> None:
    """The server, for a process of its own."""

    async def scenario() -> None:
        async with server(keep_alive_seconds=1) as port:
            ports.put(port)
            await asyncio.sleep(3600)

    # What uvicorn chooses where uvloop is installed, as on Linux, and where it is not.
    factories = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    with asyncio.Runner(loop_factory=factories[loop]) as runner:
        runner.run(scenario())
