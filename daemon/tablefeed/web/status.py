"""`/api/status`: what the daemon is doing, as JSON."""

from typing import Protocol

from aiohttp import web

from tablefeed.status import Snapshot, plain


class StatusPort(Protocol):
    """What the service shows of itself."""

    async def snapshot(self) -> Snapshot:
        """The daemon now. Raises nothing."""
        ...


def status_routes(status: StatusPort) -> list[web.RouteDef]:
    """The routes that show the daemon's state."""

    async def api_status(_request: web.Request) -> web.Response:
        return web.json_response(plain(await status.snapshot()))

    return [web.get("/api/status", api_status)]
