"""A way to another server that can be cut, or swallow what goes over it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Relay:
    """Listens on one port of this machine, and passes everything on.

    Attributes:
        url: As the server's own, over this way.
    """

    def __init__(self, url: str) -> None:
        """Lead to a server.

        Args:
            url: `http://HOST:PORT/...`.
        """
        parts = urlsplit(url)
        self._target = parts.hostname or "", parts.port or 80
        self._path = parts.path
        self._port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._silent = False
        self.url = ""

    async def open(self, *, silent: bool = False) -> None:
        """Listen; `silent`: take connections and let nothing through."""
        self._silent = silent
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}{self._path}"

    async def cut(self) -> None:
        """Break every connection, and refuse new ones."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:  # a cut ends it
            if self._silent:
                await asyncio.Event().wait()
            with suppress(OSError):
                there, to_there = await asyncio.open_connection(*self._target)
                try:
                    async with asyncio.TaskGroup() as ways:
                        ways.create_task(_copy(reader, to_there))
                        ways.create_task(_copy(there, writer))
                finally:
                    to_there.close()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def relay_to(url: str) -> AsyncIterator[Relay]:
    """A way to a server, open at first."""
    relay = Relay(url)
    await relay.open()
    try:
        yield relay
    finally:
        await relay.cut()
