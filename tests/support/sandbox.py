"""Callers of the sandbox: through aiohttp, and byte by byte through a bare socket."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
from yarl import URL

from support.patience import PATIENCE

API_KEY = "made-up-key"
PRESIGN = "/tenant/tenant-123/datatable/table-456/uploads/presignedurl"


class Clock:
    """A clock that a test sets. Call it for Unix seconds."""

    def __init__(self, now: float = 1_764_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def md5(data: bytes) -> str:
    """The MD5 in hexadecimal."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def contents(root: Path) -> dict[str, bytes]:
    """All files below `root`."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


async def grant(session: aiohttp.ClientSession, base_url: str, **query: str) -> str:
    """Return a presigned URL for `table-456`."""
    async with session.get(base_url + PRESIGN, params=query, headers={"x-api-key": API_KEY}) as response:
        assert response.status == 200, await response.text()
        url: str = (await response.json())["PreSignedUploadUrl"]
        return url


class Answer:
    """A status, headers without case, and a body."""

    def __init__(self, response: aiohttp.ClientResponse, body: str) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def code(self) -> str:
        """The code in S3's XML."""
        return self.body.partition("<Code>")[2].partition("</Code>")[0]


async def put(session: aiohttp.ClientSession, url: str, body: bytes, **headers: str) -> Answer:
    """PUT `body` on a presigned URL, with nothing re-quoted; `_` in a header's name stands for `-`."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.put(URL(url, encoded=True), data=io.BytesIO(body), headers=sent) as response:
        return Answer(response, await response.text())


class BareClient:
    """A connection on which a test sends what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send the bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def request(self, method: str, url: str, *headers: str) -> None:
        """Send the head of a request for `url`, with `Host` and `headers`."""
        parts = URL(url, encoded=True)
        lines = [f"{method} {parts.raw_path_qs} HTTP/1.1", f"Host: {parts.host}:{parts.port}", *headers, "", ""]
        await self.send("\r\n".join(lines).encode())

    async def head(self) -> str:
        """Return the next head of an answer, an interim one too."""
        return (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), PATIENCE)).decode()

    async def body(self) -> str:
        """Return what comes until the server closes the connection, or a whole error document."""
        received = b""
        while not received.endswith(b"</Error>"):
            piece = await asyncio.wait_for(self._reader.read(65_536), PATIENCE)
            if not piece:
                break
            received += piece
        return received.decode()

    async def close(self) -> None:
        """Cut the connection."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


@asynccontextmanager
async def bare_client(base_url: str) -> AsyncIterator[BareClient]:
    """A bare connection to the server."""
    parts = URL(base_url)
    client = BareClient(*await asyncio.open_connection(parts.host, parts.port))
    try:
        yield client
    finally:
        await client.close()
