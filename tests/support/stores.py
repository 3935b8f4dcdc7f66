"""Servers on loopback that behave as a test says, and an uploader that talks to them."""

import asyncio
import hashlib
import random
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
from aiohttp import web

from support.daemon import KEY
from tablefeed.clock import ServerClocks, steady
from tablefeed.http import make_session, tls_context
from tablefeed.lease import writer_of
from tablefeed.model import ApiAccess, FileVersion, Grant
from tablefeed.processmind import ProcessMindApi
from tablefeed.threads import Threads
from tablefeed.upload import Uploader
from tablefeed.upload.body import Admit, unthrottled

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """API and store in one, whose store behaves as the test says."""

    def __init__(self, put: Callable[["Server", web.Request, bytes], Awaitable[web.StreamResponse]]) -> None:
        self._put = put
        self.grants = 0
        self.names: list[str] = []
        """The file names that grants were asked for, in order: that of `/object/1` first."""
        self.unknown = ""
        """A datatable that the API does not know."""
        self.puts: list[str] = []
        self.objects: dict[str, bytes] = {}

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            if self.unknown and f"/datatable/{self.unknown}/" in request.path:
                return web.json_response({"message": "no such datatable"}, status=404)
            self.grants += 1
            self.names.append(request.query.get("filename", ""))
            url = f"http://{request.host}/object/{self.grants}?Expires={round(time.time()) + 3600}&Signature=s1g"
            return web.json_response({"PreSignedUploadUrl": url})
        self.puts.append(request.path)
        return await self._put(self, request, await request.read())

    def take(self, request: web.Request, body: bytes) -> web.Response:
        """Store the object and say so."""
        self.objects[request.path] = body
        return web.Response(headers={"ETag": hashlib.md5(body, usedforsecurity=False).hexdigest()})

    def sent(self) -> list[tuple[str, bytes]]:
        """The name and the content of each object, in order."""
        return sorted((self.names[int(path.rpartition("/")[2]) - 1], body) for path, body in self.objects.items())


async def take_all(server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
    """What a store does that works."""
    return server.take(request, body)


async def continue_if_asked(request: web.Request) -> None:
    """Answer `Expect: 100-continue`, as aiohttp does by default."""
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


@asynccontextmanager
async def serving(
    handler: Handler,
    *,
    expect: Callable[[web.Request], Awaitable[web.StreamResponse | None]] = continue_if_asked,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[str]:
    """A server on a free loopback port whose every request goes to `handler`; gives its origin."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", handle, expect_handler=expect)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def listening(
    connected: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A bare TCP server, for what no HTTP library would do; gives its origin."""
    writers: list[asyncio.StreamWriter] = []

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await connected(reader, writer)

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def uploading(
    *, stall_timeout: float = 20.0, ca_file: Path | None = None, admit: Admit = unthrottled, connections: int = 16
) -> AsyncIterator[Uploader]:
    """An uploader with a session and threads of its own."""
    with Threads(4, "read") as threads:
        async with make_session(connections, tls_context(ca_file)) as session:
            yield Uploader(
                session,
                threads,
                clocks=ServerClocks(time.time, steady),
                wall=time.time,
                stall_timeout=stall_timeout,
                writer_of=writer_of,
                admit=admit,
            )


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A session as the daemon makes it."""
    async with make_session(16, tls_context(None)) as made:
        yield made


def a_file(path: Path, size: int = 1000) -> FileVersion:
    """A file of pseudo-random bytes, and its version."""
    path.write_bytes(random.Random(size).randbytes(size))
    return FileVersion.of("orders", path.name, path.stat())


def certificate(directory: Path, names: str = "IP:127.0.0.1") -> tuple[Path, ssl.SSLContext]:
    """A certificate for these names that nobody else trusts, and a server's context with it."""
    made, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=store"),
            *("-addext", f"subjectAltName={names}", "-out", str(made), "-keyout", str(key)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    return made, context


def grant_for(url: str, *, seconds: float = 3600.0, headers: dict[str, str] | None = None) -> Grant:
    """A grant for any URL."""
    return Grant(url, round((time.time() + seconds) * 1000), seconds, headers or {})


class FixedKey:
    """A key, and what it is when it is read again."""

    def __init__(self, value: str, later: str = "") -> None:
        self.value = value
        self.later = later or value

    async def reread(self) -> str:
        self.value = self.later
        return self.value


@asynccontextmanager
async def api_at(
    base_url: str, *, key: str = KEY, later: str = "", tenant: str = "tenant-123", timeout: float = 60.0
) -> AsyncIterator[ProcessMindApi]:
    """The API's client, four calls at a time."""
    async with session() as made:
        yield ProcessMindApi(
            made,
            ApiAccess(base_url, tenant, "file /etc/key"),
            FixedKey(key, later),
            clocks=ServerClocks(time.time, steady),
            wall=time.time,
            limit=asyncio.Semaphore(4),
            timeout=timeout,
        )
