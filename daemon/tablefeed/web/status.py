"""`/api/status`: what the daemon is doing, as JSON."""

from typing import Any, Protocol

from aiohttp import web

from tablefeed.status import Snapshot
from tablefeed.telling import plain


class StatusPort(Protocol):
    """What the service shows of itself."""

    @property
    def may_change(self) -> bool:
        """Whether who has the token may change something."""
        ...

    async def snapshot(self) -> Snapshot:
        """The daemon now. Raises nothing."""
        ...


async def picture(status: StatusPort) -> dict[str, Any]:
    """The daemon now, and what can be changed here."""
    return plain(await status.snapshot()) | {"may": {"change": status.may_change}}


def status_routes(status: StatusPort) -> list[web.RouteDef]:
    """The routes that show the daemon's state."""

    async def api_status(_request: web.Request) -> web.Response:
        return web.json_response(await picture(status))

    return [web.get("/api/status", api_status)]
