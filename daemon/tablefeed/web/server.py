"""The HTTP server: who may ask, how refusals look, and where it listens."""

import errno
import ipaddress
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

from aiohttp import web

from tablefeed.errors import CannotListen, Exit
from tablefeed.web.changes import ChangesPort, change_routes
from tablefeed.web.events import Events, Pace, event_routes
from tablefeed.web.files import HistoryPort, file_routes
from tablefeed.web.health import READY_TIMEOUT, HealthPort, health_routes
from tablefeed.web.metrics import MetricsPort, metrics_routes
from tablefeed.web.page import page_routes
from tablefeed.web.status import StatusPort, picture, status_routes

_SETTING = "[http] listen"
_SHUTDOWN_TIMEOUT = 1.0
_LARGEST_BODY = 64 * 1024
_BOUND_HOST = web.AppKey("bound_host", str)
_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<name>[^:@/\[\]]*))(?::(?P<port>\d{0,5}))?", re.ASCII)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_KEPT = ("Allow", "Retry-After", "WWW-Authenticate")
"""Headers of refusals that are passed on."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PanelPort(HealthPort, MetricsPort, StatusPort, HistoryPort, ChangesPort, Protocol):
    """All that is offered over HTTP."""


def make_app(panel: PanelPort, ready_timeout: float = READY_TIMEOUT, pace: Pace | None = None) -> web.Application:
    """The application that `running` serves."""
    app = web.Application(middlewares=[_tell_refusals, _refuse_foreign_hosts], client_max_size=_LARGEST_BODY)
    app.add_routes(health_routes(panel, ready_timeout))
    app.add_routes(page_routes())
    app.add_routes(status_routes(panel))
    app.add_routes(metrics_routes(panel))
    app.add_routes(file_routes(panel))
    app.add_routes(change_routes(panel))
    events = Events(partial(picture, panel), pace or Pace())
    app.add_routes(event_routes(events))
    app.on_shutdown.append(lambda _app: events.close())
    app.on_response_prepare.append(_add_headers)
    return app


@asynccontextmanager
async def running(app: web.Application, listen: str) -> AsyncIterator[str]:
    """Serve until the block ends, and give the address: `host:port`, with the port that was chosen for port 0.

    `listen` is `host:port`, `[v6]:port`, or `:port` for all addresses of the machine.
    Raises CannotListen when it is something else, or the port cannot be had.
    """
    host, port = _split(listen)
    app[_BOUND_HOST] = host.lower()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host or None, port).start()
        except (OSError, UnicodeError) as error:
            raise _cannot_listen(listen, error) from None
        yield f"{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _split(listen: str) -> tuple[str, int]:
    match = _HOST_PORT.fullmatch(listen)
    if match is None or not match["port"] or int(match["port"]) > 65535:
        raise CannotListen(
            f"{_SETTING} = {listen!r} is not an address with a port",
            'Write it like "127.0.0.1:8787" or "[::1]:8787"',
            Exit.CONFIG,
        )
    return match["v6"] or match["name"] or "", int(match["port"])


def _cannot_listen(listen: str, error: OSError | UnicodeError) -> CannotListen:
    code = error.errno if isinstance(error, OSError) else None
    exit_code = None
    match code:
        case errno.EADDRINUSE:
            remedy = (
                "End what uses the port (another tablefeed?), choose another port, or turn HTTP off with an empty one"
            )
        case errno.EACCES | errno.EPERM:
            remedy = "Choose a port from 1024 on; those below need CAP_NET_BIND_SERVICE"
            exit_code = Exit.NO_PERMISSION
        case _:
            remedy = "Name an address of this machine, such as 127.0.0.1"
    cause = os.strerror(code) if code is not None and code > 0 else "the host name is not known"
    return CannotListen(f"{_SETTING}: cannot listen on {listen}: {cause}", remedy, exit_code)


@web.middleware
async def _tell_refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell 4xx and 5xx as JSON."""
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        if refusal.status < 400:
            raise
        headers = {name: refusal.headers[name] for name in _KEPT if name in refusal.headers}
        return web.json_response({"error": refusal.text}, status=refusal.status, headers=headers)


@web.middleware
async def _refuse_foreign_hosts(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Defeat DNS rebinding: a page of another site that points its own name here can only ask by that name.

    Addresses are no names, so probes by a pod's address pass. Who sends no Host at all is no browser.
    """
    bound = request.app[_BOUND_HOST]
    if all(_is_own(host, bound) for host in request.headers.getall("Host", [])):
        return await handler(request)
    raise web.HTTPMisdirectedRequest(
        text=f"This Host is not ours. Ask by an IP address, by localhost, or by the name in {_SETTING}"
    )


def _is_own(header: str, bound: str) -> bool:
    match = _HOST_PORT.fullmatch(header.strip())
    if match is None:
        return False
    host = match["v6"] or (match["name"] or "").lower().removesuffix(".")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(host) and (host in ("localhost", bound) or host.endswith(".localhost"))
    return True


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "tablefeed"
