"""A misbehaving layer in front of API and store: two origins, each of which can fail in many ways or be away.

It passes requests on to one sandbox, byte by byte; URLs that it asks for are signed for the store's origin here. What
goes wrong is drawn from a seeded generator, so that a seed gives the same faults in the same order of requests.
"""

import asyncio
import hashlib
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from random import Random
from urllib.parse import unquote, urlsplit

API, STORE = "API", "store"
REFUSED_NAME = "too-much-"
"""The store never takes files whose names begin like that."""
_BUSY = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_EXPIRED = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
_DENIED = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
_TOO_LARGE = "<Error><Code>EntityTooLarge</Code><Message>Your proposed upload exceeds the maximum</Message></Error>"
_PAGE = "<!DOCTYPE html><html><body>Please log in</body></html>"
_ETAG = re.compile(rb'(?i)(\r\nETag: ")[0-9a-f]{4}')


@dataclass(slots=True)
class Weather:
    """How often what goes wrong, and how often it has."""

    random: Random
    rate: float = 0.0
    """The share of requests that meet a fault."""
    counts: Counter[str] = field(default_factory=Counter)

    def draw(self, faults: list[str], prefix: str) -> str | None:
        """A fault for a request, or None."""
        if self.random.random() >= self.rate:
            return None
        fault = self.random.choice(faults)
        self.counts[f"{prefix}: {fault}"] += 1
        return fault


class _Exchange:
    """One request on one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        self._reader = reader
        self._writer = writer
        self.head = head
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        self.size = int(length[1]) if length else 0
        self.path = head.split(b" ", 2)[1].decode()
        self._expects = b"100-continue" in head.lower()

    async def body(self, size: int | None = None) -> bytes:
        """The body, or so many bytes of it."""
        if self._expects:
            self._expects = False
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await self._reader.readexactly(self.size if size is None else min(size, self.size))

    async def answer(self, status: str, body: str, kind: str = "application/xml", **headers: str) -> None:
        """Answer, and let the other side read it though its body may still come; then close."""
        lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.give("\r\n".join([*lines, "", body]).encode())
        self._writer.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self.hang()

    async def give(self, answer: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(answer)
        await self._writer.drain()

    async def hang(self) -> None:
        """Answer nothing until the other side has given up."""
        while await self._reader.read(2**16):
            pass

    def reset(self) -> None:
        """Break the connection."""
        self._writer.transport.abort()


class Front:
    """One of the two origins."""

    def __init__(self, name: str, weather: Weather, serve: Callable[[_Exchange], Awaitable[bool]]) -> None:
        """`serve` handles a request and says whether the connection can go on."""
        self._name = name
        self._weather = weather
        self._serve = serve
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[object] | None] = set()
        """Kept because nobody else does, and a task that nobody keeps may vanish while it waits."""
        self.port = 0

    async def open(self) -> None:
        """Accept connections, always on the same port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse connections, and break those that are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()

    async def go_away(self) -> None:
        """As `close`, and count it as an outage."""
        self._weather.counts[f"{self._name}: away, connections refused"] += 1
        await self.close()

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self.port}"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self._tasks.add(task := asyncio.current_task())
        try:
            while await self._serve(_Exchange(reader, writer, await reader.readuntil(b"\r\n\r\n"))):
                pass
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()


class Faulty:
    """Both origins, and what they have done to objects."""

    API_FAULTS = ("hang before the answer", "reset", "429", "5xx", "HTML instead of JSON", "JSON without a URL")
    STORE_FAULTS = (
        "hang before the answer",
        "hang after the body",
        "reset in mid-body",
        "body taken, reply lost",
        "early 403",
        "early 503",
        "429",
        "5xx",
        "wrong ETag",
        "HTML instead of an answer",
        "expired URL",
    )

    def __init__(self, sandbox: str, weather: Weather) -> None:
        """`sandbox`: the base URL behind."""
        self._port = urlsplit(sandbox).port
        self.weather = weather
        self.api = Front(API, weather, self._serve_api)
        self.store = Front(STORE, weather, self._serve_store)
        self.taken: Counter[str] = Counter()
        """How often the store has taken each content, by MD5."""
        self.invalid: set[str] = set()
        """Keys of objects whose URLs were declared invalid, as paths below the sandbox's objects."""

    async def _serve_api(self, exchange: _Exchange) -> bool:
        match self.weather.draw([*self.API_FAULTS], API):
            case "hang before the answer":
                await exchange.hang()
            case "reset":
                exchange.reset()
            case "429":
                await exchange.answer("429 Too Many Requests", "{}", "application/json", Retry_After="1")
            case "5xx":
                status = self.weather.random.choice(["500 Internal Server Error", "502 Bad Gateway"])
                await exchange.answer(status, _PAGE, "text/html")
            case "HTML instead of JSON":
                await exchange.answer("200 OK", _PAGE, "text/html")
            case "JSON without a URL":
                await exchange.answer("200 OK", '{"message": "ok"}', "application/json")
            case _:
                await exchange.give(await self._forward(exchange.head, b""))
                return True
        return False

    async def _serve_store(self, exchange: _Exchange) -> bool:
        key = unquote(urlsplit(exchange.path).path).removeprefix("/store/")
        if f"-{REFUSED_NAME}" in key:
            await exchange.answer("400 Bad Request", _TOO_LARGE)
            return False
        fault = self.weather.draw([*self.STORE_FAULTS], STORE)
        if fault in ("early 403", "expired URL"):
            self.invalid.add(key)
        if fault in (None, "hang after the body", "body taken, reply lost", "wrong ETag"):
            body = await exchange.body()
            answer = await self._forward(exchange.head, body)
            if answer.startswith(b"HTTP/1.1 200"):
                self.taken[hashlib.md5(body, usedforsecurity=False).hexdigest()] += 1
            return await self._tell(exchange, fault, answer)
        await self._refuse(exchange, str(fault))
        return False

    async def _tell(self, exchange: _Exchange, fault: str | None, answer: bytes) -> bool:
        """What the other side learns of an object that the store has taken."""
        match fault:
            case "hang after the body":
                await exchange.hang()
                return False
            case "body taken, reply lost":
                exchange.reset()
                return False
            case "wrong ETag":
                await exchange.give(_ETAG.sub(rb"\1beef", answer))
                return True
            case _:
                await exchange.give(answer)
                return True

    async def _refuse(self, exchange: _Exchange, fault: str) -> None:
        """What the other side meets instead of a store that takes the object."""
        random = self.weather.random
        match fault:
            case "hang before the answer":
                await exchange.hang()
            case "reset in mid-body":
                await exchange.body(random.randrange(1, max(2, exchange.size)))
                exchange.reset()
            case "early 403":
                await exchange.body(exchange.size // 8)
                await exchange.answer("403 Forbidden", _DENIED)
            case "early 503":
                await exchange.body(exchange.size // 8)
                await exchange.answer("503 Slow Down", _BUSY)
            case "429":
                asked = random.choice(["1", formatdate(time.time() + 2, usegmt=True)])
                await exchange.answer("429 Too Many Requests", _BUSY, Retry_After=asked)
            case "5xx":
                await exchange.body()
                await exchange.answer(random.choice(["500 Internal Server Error", "504 Gateway Timeout"]), "")
            case "HTML instead of an answer":
                await exchange.body()
                await exchange.answer("200 OK", _PAGE, "text/html")
            case "expired URL":
                await exchange.body()
                await exchange.answer("403 Forbidden", _EXPIRED)
            case _:
                raise AssertionError(fault)

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        """The sandbox's answer. Whole requests only: of one that was cut off it never hears."""
        request, *headers = head.rstrip().split(b"\r\n")
        unwanted = (b"host:", b"expect:", b"connection:")
        kept = [header for header in headers if not header.lower().startswith(unwanted)]
        host = b"Host: " + urlsplit(self.store.origin).netloc.encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(b"\r\n".join([request, host, *kept, b"Connection: close", b"", body]))
            answer = await reader.read()
        finally:
            writer.close()
        return re.sub(rb"(?i)connection: close\r\n", b"", answer, count=1)


@asynccontextmanager
async def misbehaving(sandbox: str, weather: Weather) -> AsyncIterator[Faulty]:
    """The layer, in front of a sandbox; both origins are there."""
    faulty = Faulty(sandbox, weather)
    await faulty.api.open()
    await faulty.store.open()
    try:
        yield faulty
    finally:
        await faulty.api.close()
        await faulty.store.close()
