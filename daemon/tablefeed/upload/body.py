"""A file as the body of a request, and the guard that notices when it no longer moves."""

import asyncio
import select
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from aiofiles.threadpool.binary import AsyncFileIO
from aiohttp.abc import AbstractStreamWriter

from tablefeed.errors import DeliveryError, DiskTrouble, SourceChanged
from tablefeed.http import Asking
from tablefeed.upload.source import Source

CHUNK = 2**20
"""Bytes that one thread hop reads and hashes at most."""
_SMALLEST_CHUNK = 2**16
_FEW = 16
"""Uploads that may have whole chunks."""
_ALL_CHUNKS = 12 * 2**20
"""Bytes that the chunks of more uploads at a time shall hold together."""
_TURNS = 16
"""Turns of the loop for which an answer that is there already may be read before more is sent."""

Admit = Callable[[int], Awaitable[int]]
"""Waits until some of so many bytes may be sent, and returns how many: at least 1, at most all."""


async def unthrottled(wanted: int) -> int:
    """All bytes may go at once."""
    return wanted


def chunk_size(uploads: int) -> int:
    """Bytes of a chunk when so many uploads run: large ones cost less, many of them fill memory.

    A power of two, which the throttle's pieces divide.
    """
    if uploads <= _FEW:
        return CHUNK
    return max(_SMALLEST_CHUNK, 1 << ((_ALL_CHUNKS // uploads).bit_length() - 1))


class FileBody(Asking):
    """Sent once, never replayed; its length is known and its progress visible."""

    def __init__(
        self,
        source: Source,
        executor: Executor,
        admit: Admit = unthrottled,
        *,
        chunk: Callable[[], int] = lambda: CHUNK,
        goes_first: bool = False,
        comes: Callable[[], None] = lambda: None,
    ) -> None:
        """`source` has read its first chunk already; `executor` runs the rest of the reading, by `chunk()` bytes.

        Each piece of it goes out when `admit` allows. `goes_first`: its beginning goes out together with the head of
        the request, so that no answer can be there before it. `comes` is called when the server lets the body come.
        """
        super().__init__(source, content_type="application/octet-stream")
        self._source = source
        self._file = AsyncFileIO(source.file, asyncio.get_running_loop(), executor)
        self._size: int = source.version.size
        self._admit = admit
        self._chunk = chunk
        self._comes = comes
        self._waits = False
        self._listens = not goes_first
        self._writer: AbstractStreamWriter | None = None
        self.handed = 0
        """Bytes given to the connection."""
        self.asked = asyncio.Event()
        """Set when the request's headers are out."""
        self.begun = asyncio.Event()
        """Set when the server lets the body come."""
        self._whole_at: float | None = None
        self.latency: float | None = None
        """Seconds from its last byte, given to the connection, to the head of the answer; None: not known."""
        self.failure: DeliveryError | None = None
        """Why the file itself could not be sent; aiohttp would hide it behind an error of its own."""

    @property
    def consumed(self) -> bool:
        """Tell aiohttp that a body which has begun cannot be sent again."""
        return self.begun.is_set()

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Not for files."""
        raise TypeError("a file is sent as bytes")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send all of it, chunk by chunk, as fast as the connection takes it and the throttle allows."""
        self.begun.set()
        self._comes()
        self._writer = writer
        await self._send(writer, memoryview(self._source.take_first()))
        while self.handed < self._size:
            await self._send(writer, memoryview(await self._read(min(self._chunk(), self._size - self.handed))))
        self._whole_at = asyncio.get_running_loop().time()

    async def _send(self, writer: AbstractStreamWriter, rest: memoryview) -> None:
        while True:
            piece = rest[: await self._allowed(len(rest))]
            if self._listens:
                await _listen(writer)
            self._listens = True
            await writer.write(piece)
            self.handed += len(piece)
            if len(piece) == len(rest):
                return
            rest = rest[len(piece) :]

    async def _allowed(self, wanted: int) -> int:
        self._waits = True
        try:
            return await self._admit(wanted)
        finally:
            self._waits = False

    async def _read(self, size: int) -> bytes:
        try:
            chunk = await self._file.read(size)
        except OSError as error:
            self.failure = DiskTrouble(self._source.path, f"it cannot be read: {error.strerror}")
            raise self.failure from error
        if not chunk:
            self.failure = SourceChanged(self._source.path, "was truncated while it was sent")
            raise self.failure
        return bytes(chunk)

    def note_answer(self) -> None:
        """The head of the answer is there."""
        if self._whole_at is not None:
            self.latency = asyncio.get_running_loop().time() - self._whole_at

    def sent(self) -> int:
        """Bytes that the kernel has taken: those handed over less those that still wait in the transport."""
        transport = getattr(self._writer, "transport", None)
        return self.handed - (transport.get_write_buffer_size() if transport else 0)

    def is_held_back(self) -> bool:
        """Whether nothing moves because nothing may: the throttle makes it wait, and the kernel has all before that."""
        return self._waits and self.sent() == self.handed


async def _listen(writer: AbstractStreamWriter) -> None:
    """Let the loop read what the server has sent before its whole request came: why it refuses.

    A server that answers early often resets the connection, and the first write after that drops whatever had not been
    read, so that the reason would be lost. Source: aiohttp issue 8191.
    """
    transport: asyncio.Transport | None = getattr(writer, "transport", None)
    connection = transport.get_extra_info("socket") if transport else None
    if transport is None or connection is None or connection.fileno() < 0:
        return
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    for _ in range(_TURNS):
        if transport.is_closing() or not poll.poll(0):
            return
        await asyncio.sleep(0)


class StallGuard:
    """Lets a deadline pass when a body has made no progress for a while, measured at the socket.

    The time for which the throttle holds it back does not count.
    """

    def __init__(self, body: FileBody, deadline: asyncio.Timeout, seconds: float) -> None:
        """The deadline passes after `seconds` to 1.25 times as many without progress."""
        self._body = body
        self._deadline = deadline
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._seen = -1
        self._since = self._loop.time()
        self._timer = self._loop.call_later(seconds / 4, self._check)

    def _check(self) -> None:
        sent, now = self._body.sent(), self._loop.time()
        if sent != self._seen or self._body.is_held_back():
            self._seen, self._since = sent, now
        elif now - self._since >= self._seconds:
            self._deadline.reschedule(now)
            return
        self._timer = self._loop.call_later(self._seconds / 4, self._check)

    def __enter__(self) -> None:
        """Watch from now on."""

    def __exit__(self, *_: object) -> None:
        """Watch no more."""
        self._timer.cancel()
