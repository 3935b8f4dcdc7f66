"""`/healthz` and `/readyz`: whether a restart is needed, and whether the daemon can do its work.

`/healthz` is for what restarts the daemon, so it fails only where a restart helps: a loop that hangs gives no answer at
all, one that was blocked for most of the last minute says so, and so does a daemon whose dispatcher or one of whose
intakes has ended. What a restart does not help is told by `/readyz`: a ledger or a directory that cannot be used, a
start or an end that is under way.
"""

import asyncio
from typing import Protocol

from aiohttp import web

READY_TIMEOUT = 5.0
"""Seconds after which an unanswered question counts as a problem."""


class HealthPort(Protocol):
    """What the service tells about itself."""

    async def ailments(self) -> list[str]:
        """Return what only a restart can help, one sentence each; empty when nothing is. Raises nothing."""
        ...

    async def problems(self) -> list[str]:
        """Return what keeps the daemon from delivering, one sentence each; empty when it can. Raises nothing."""
        ...


def health_routes(health: HealthPort, ready_timeout: float) -> list[web.RouteDef]:
    """The routes of both probes."""

    async def healthz(_request: web.Request) -> web.Response:
        if ailments := await health.ailments():
            return web.json_response({"alive": False, "problems": ailments}, status=503)
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(ready_timeout):
                problems = await health.problems()
        except TimeoutError:
            problems = [f"the daemon did not tell its state within {ready_timeout:g} s"]
        return web.json_response({"ready": not problems, "problems": problems}, status=503 if problems else 200)

    return [web.get("/healthz", healthz), web.get("/readyz", readyz)]
