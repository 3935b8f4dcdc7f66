"""The sandbox as a server: the API and the store on one port."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

from aiohttp import web
from yarl import URL

from tablefeed.errors import CannotListen
from tablefeed.sandbox.api import Api, answer_errors
from tablefeed.sandbox.objects import ObjectFiles, StoredObject
from tablefeed.sandbox.sigv4 import MAX_LIFETIME, Credentials
from tablefeed.sandbox.store import BUCKET, CHUNK, Store, credentials_for

_DISK_THREADS = 16
_SHUTDOWN_TIMEOUT = 0.2


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """What an operator or a test chooses."""

    data: Path
    """Made if it is not there; objects appear below `data/objects`."""
    api_key: str = field(repr=False)
    tenant_id: str = "tenant-123"
    url_lifetime: float = 3600
    """Seconds that a grant lives: unless the caller asks for less, and however much more it asks for."""
    strict: bool = False
    """Whether the presign call demands its whole query."""
    body_timeout: float = 20.0
    """Seconds without a byte after which the store gives a body up, with `RequestTimeout`."""


@dataclass(frozen=True, slots=True)
class RunningSandbox:
    """A sandbox that accepts connections."""

    base_url: str
    """Of the API, without a slash at the end."""
    objects: Path
    """Where objects appear."""
    bucket: str
    credentials: Credentials
    """The store's own, for URLs that the API did not make."""


@asynccontextmanager
async def running(
    settings: SandboxSettings,
    host: str = "127.0.0.1",
    port: int = 0,
    clock: Callable[[], float] = time.time,
    on_object: Callable[[StoredObject], None] | None = None,
) -> AsyncIterator[RunningSandbox]:
    """Serve until the block ends. Port 0 means any free one; `clock` gives Unix seconds.

    `on_object` is called in the event loop for each object: when it is complete, before its PUT is answered.
    Raises CannotListen when the port cannot be had, and OSError when `settings.data` cannot be made.
    """
    files = ObjectFiles(settings.data)
    leftovers = await asyncio.to_thread(files.prepare)
    credentials = credentials_for(settings.api_key)
    executor = ThreadPoolExecutor(_DISK_THREADS, "sandbox-disk")
    store = Store(files, credentials, executor, clock=clock, body_timeout=settings.body_timeout, on_object=on_object)
    runner = _runner(store, settings, clock)
    await runner.setup()
    try:
        base_url = await _listen(runner, host, port)
        # not before: while the port is taken, they may be another sandbox's work
        await asyncio.to_thread(_remove, leftovers)
        yield RunningSandbox(base_url, files.objects, BUCKET, credentials)
    finally:
        await runner.cleanup()
        await store.close()
        await asyncio.to_thread(executor.shutdown)


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _runner(store: Store, settings: SandboxSettings, clock: Callable[[], float]) -> web.AppRunner:
    api = Api(
        store,
        api_key=settings.api_key,
        tenant_id=settings.tenant_id,
        longest_lifetime=min(max(1, round(settings.url_lifetime)), MAX_LIFETIME),
        strict=settings.strict,
        clock=clock,
    )
    app = web.Application(middlewares=[answer_errors])
    app.add_subapp("/tenant", api.app())
    app.add_subapp(f"/{BUCKET}", store.app())
    app.on_response_prepare.append(_dated(clock))
    return web.AppRunner(
        app,
        access_log=None,  # a request line holds a signature
        auto_decompress=False,  # a store keeps the bytes that were sent, whatever their Content-Encoding
        read_bufsize=CHUNK,
        shutdown_timeout=_SHUTDOWN_TIMEOUT,
    )


def _dated(
    clock: Callable[[], float],
) -> Callable[[web.Request, web.StreamResponse], Coroutine[None, None, None]]:
    """Return a signal handler that writes `Date` by `clock`: clients read the server's clock from it."""

    async def write(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = formatdate(clock(), usegmt=True)

    return write


async def _listen(runner: web.AppRunner, host: str, port: int) -> str:
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError as error:
        # asyncio's own text repeats the address, and a name that is not known has a number that is none of errno's.
        cause = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise CannotListen(
            f"the sandbox cannot listen on {host}:{port}: {cause}",
            "Choose another address with --listen, or end what uses this one",
        ) from error
    return str(URL.build(scheme="http", host=host, port=runner.addresses[0][1]))
