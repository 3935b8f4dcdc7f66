"""A way to a server that can be cut: it forwards nothing for a while, or closes in the middle of something."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto


class Loss(Enum):
    """What of a request is lost, with its connection."""

    REQUEST = auto()
    ANSWER = auto()
    """The server has done what it was asked."""


class Proxy:
    """Forwards connections on loopback to a port there."""

    def __init__(self, port: int) -> None:
        """`port`: the server's."""
        self._server_port = port
        self.port = 0
        """Where it listens itself."""
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.lose: Callable[[bytes], Loss | None] = lambda _: None
        """Asked of each piece that a client sends."""

    def stop(self) -> None:
        """Forward nothing from now on, and close nothing."""
        self._open.clear()

    def go_on(self) -> None:
        """Forward again, what has waited too."""
        self._open.set()

    def cut(self) -> None:
        """End all connections at once, without a word."""
        for writer in [*self._writers]:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until one side ends it."""
        await self._open.wait()
        try:
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, ours}
        doomed = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._up(reader, ours, doomed))
                tasks.create_task(self._down(theirs, writer, doomed))
        except* (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, ours):
                end.transport.abort()
                self._writers.discard(end)

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event) -> None:
        while data := await reader.read(65_536):
            await self._open.wait()
            match self.lose(data):
                case Loss.REQUEST:
                    break
                case Loss.ANSWER:
                    doomed.set()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event) -> None:
        while data := await reader.read(65_536):
            await self._open.wait()
            if doomed.is_set():
                break
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


@asynccontextmanager
async def proxied(port: int) -> AsyncIterator[Proxy]:
    """A proxy before a port of this machine."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.go_on()
        proxy.cut()
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await server.wait_closed()
