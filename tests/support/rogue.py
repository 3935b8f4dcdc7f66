"""A server on loopback, API and store, that does to each request what a script says, down to the single byte.

It speaks HTTP by hand, since no library would hang, reset or lie as these tests need it, and it keeps the books: what
came when, how many at a time, what was stored, and which PUTs came with a grant that had expired by its own clock.
"""

import asyncio
import hashlib
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from urllib.parse import parse_qsl, urlsplit

STAMP = "%Y%m%dT%H%M%SZ"
SIGNATURE = "5ecre7-s1gna7ure"


class Exchange:
    """One request, and the connection on which to answer it."""

    def __init__(
        self, server: "Rogue", head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.server = server
        self.method, self.target, _ = lines[0].split(" ")
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self.reader = reader
        self.writer = writer
        self.at = time.monotonic()
        self.asked = False
        self.sent_whole = False

    @property
    def path(self) -> str:
        """Without the query."""
        return urlsplit(self.target).path

    @property
    def size(self) -> int:
        """What the request says of its body."""
        return int(self.headers.get("content-length", 0))

    async def go_on(self) -> None:
        """Let the body come."""
        if self.headers.get("expect") and not self.asked:
            self.asked = True
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def body(self) -> bytes:
        """All of it."""
        await self.go_on()
        content = await self.reader.readexactly(self.size)
        self.sent_whole = True
        return content

    async def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        """Send a whole answer; `_` in a header's name stands for `-`."""
        await self.raw(self.answer_head(status, len(content), **headers) + content)

    def answer_head(self, status: int, length: int, **headers: str) -> bytes:
        """The head of an answer, with the date of the server's own clock."""
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {length}"]
        if self.server.dated:
            lines.append(f"Date: {formatdate(self.server.now(), usegmt=True)}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        """Close the connection; what was not read makes it a reset."""
        self.writer.close()

    def reset(self) -> None:
        """Cut the connection without a word."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Act = Callable[[Exchange], Awaitable[None]]


@dataclass
class Seen:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]
    at: float
    """On the monotonic clock."""
    beside: int
    """Requests under way when it came, itself included."""


@dataclass
class Rogue:
    """The server. `acts` are done to the first requests of a method, one each, then `api` and `store` for ever."""

    skew: float = 0.0
    """Seconds by which its clock is ahead of ours."""
    lifetime: float = 3600.0
    """Of its grants, in seconds."""
    dated: bool = True
    """Whether its answers carry a date."""
    stores_at: "Rogue | None" = None
    """Where its grants lead; None: to itself."""
    api: Act = field(default=lambda exchange: give_url(exchange))
    store: Act = field(default=lambda exchange: take(exchange))
    acts: dict[str, list[Act]] = field(default_factory=dict)
    host: str = "127.0.0.1"
    """The name by which its grants call it."""
    seen: list[Seen] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)
    """Paths of the PUTs that came when their grant had expired."""
    grants: int = 0
    port: int = 0

    def __post_init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._under_way = 0
        self._down = asyncio.Event()

    @property
    def origin(self) -> str:
        """Where it listens."""
        return f"http://{self.host}:{self.port}"

    def now(self) -> float:
        """Its clock, in Unix seconds."""
        return time.time() + self.skew

    def of(self, method: str, path: str = "") -> list[Seen]:
        """The requests of a method so far, whose path ends so."""
        return [one for one in self.seen if one.method == method and one.path.endswith(path)]

    @property
    def puts(self) -> list[str]:
        """The paths of all PUTs."""
        return [one.path for one in self.of("PUT")]

    async def up(self) -> None:
        """Listen, at the same port as before."""
        self._down.clear()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuse every connection, and cut those that there are."""
        if self._server is None:
            return
        self._server.close()
        self._down.set()
        for writer in self._writers:
            writer.transport.abort()
        self._server = None

    async def hang(self) -> None:
        """Do nothing for as long as it is up."""
        await self._down.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
                self._under_way += 1
                try:
                    await self._act(Exchange(self, head, reader, writer))
                finally:
                    self._under_way -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            """The other side has gone, as it may."""
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _act(self, exchange: Exchange) -> None:
        self.seen.append(Seen(exchange.method, exchange.path, exchange.headers, exchange.at, self._under_way))
        if exchange.method == "PUT" and self.is_expired(exchange.target):
            self.late.append(exchange.path)
        queue = self.acts.get(exchange.method, [])
        usual = self.store if exchange.method == "PUT" else self.api
        await (queue.pop(0) if queue else usual)(exchange)
        if exchange.method == "PUT" and not exchange.sent_whole:
            exchange.close()

    def url(self, lifetime: float, **more: str) -> str:
        """A new presigned URL of this store, valid by its own clock."""
        self.grants += 1
        issued = datetime.fromtimestamp(self.now(), UTC)
        if lifetime < 0:
            issued, lifetime = issued + timedelta(seconds=lifetime - 1), 1
        signed = {"X-Amz-SignedHeaders": "host"} | {name.replace("_", "-"): value for name, value in more.items()}
        query = "&".join(f"{name}={value}" for name, value in signed.items())
        return (
            f"{self.origin}/object/{self.grants}?X-Amz-Date={issued.strftime(STAMP)}&X-Amz-Expires={round(lifetime)}"
            f"&{query}&X-Amz-Signature={SIGNATURE}"
        )

    def is_expired(self, target: str) -> bool:
        """Whether a grant of this store is too old by its clock."""
        query = dict(parse_qsl(urlsplit(target).query))
        if "X-Amz-Date" not in query:
            return False
        issued = datetime.strptime(query["X-Amz-Date"], STAMP).replace(tzinfo=UTC).timestamp()
        return self.now() > issued + int(query["X-Amz-Expires"])


@asynccontextmanager
async def listening_rogue(server: Rogue) -> AsyncIterator[Rogue]:
    """The server, up at a free port."""
    await server.up()
    try:
        yield server
    finally:
        await server.down()


def error(code: str, message: str = "") -> bytes:
    """A store's words."""
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


async def give_url(exchange: Exchange) -> None:
    """What the API should do."""
    server = exchange.server
    url = (server.stores_at or server).url(server.lifetime)
    await give(exchange, {"PreSignedUploadUrl": url})


async def give(exchange: Exchange, answer: object) -> None:
    """Answer with JSON."""
    await exchange.answer(200, json.dumps(answer).encode(), Content_Type="application/json")


def giving(answer: object) -> Act:
    """Answer with this JSON."""
    return lambda exchange: give(exchange, answer)


async def take(exchange: Exchange) -> None:
    """What a store should do: refuse what has expired, else keep the body and tell its MD5."""
    if exchange.server.is_expired(exchange.target):
        await exchange.answer(403, error("AccessDenied", "Request has expired"))
        return
    content = await exchange.body()
    exchange.server.objects[exchange.path] = content
    await exchange.answer(200, ETag=f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"')


def saying(status: int, content: bytes = b"", **headers: str) -> Act:
    """Read the request to its end and answer so."""

    async def act(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.answer(status, content, **headers)

    return act


def refusing_early(status: int, code: str, *, after: int = 0, reset: bool = False) -> Act:
    """Answer when `after` bytes of the body have come, and close or reset the connection with the rest unread."""

    async def act(exchange: Exchange) -> None:
        if after:
            await exchange.go_on()
            await exchange.reader.readexactly(min(after, exchange.size))
        await exchange.answer(status, error(code), Connection="close")
        (exchange.reset if reset else exchange.close)()

    return act


async def hang(exchange: Exchange) -> None:
    """Take the request's head and do nothing more."""
    await exchange.server.hang()


async def hang_after_body(exchange: Exchange) -> None:
    """Take all of it and never answer."""
    await exchange.body()
    await exchange.server.hang()


async def reset_at_once(exchange: Exchange) -> None:
    """Cut the connection when the head has come."""
    exchange.reset()


async def reset_in_body(exchange: Exchange) -> None:
    """Cut the connection when half of the body has come."""
    await exchange.go_on()
    await exchange.reader.readexactly(exchange.size // 2)
    exchange.reset()


async def lose_reply(exchange: Exchange) -> None:
    """Keep the body and cut the connection instead of answering."""
    exchange.server.objects[exchange.path] = await exchange.body()
    exchange.reset()


async def drip(exchange: Exchange) -> None:
    """Answer, a byte at a time, and never come to the end."""
    await exchange.body()
    await exchange.raw(exchange.answer_head(200, 10**6, Content_Type="application/json"))
    with suppress(ConnectionError):
        while not exchange.writer.is_closing():
            await exchange.raw(b" ")
            await asyncio.sleep(0.02)


async def flood(exchange: Exchange) -> None:
    """Answer with blanks as fast as they are taken, for ever."""
    await exchange.body()
    await exchange.raw(b"HTTP/1.1 200 Fine\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    with suppress(ConnectionError):
        while not exchange.writer.is_closing():
            await exchange.raw(b"100000\r\n" + b" " * 2**20 + b"\r\n")


async def agree_at_once(exchange: Exchange) -> None:
    """Say 200 before a byte of the body has come."""
    await exchange.answer(200, Connection="close")
