"""`/healthz` and `/readyz`: whether the loop turns, and whether the daemon can do its work."""

import asyncio
from typing import Protocol

from aiohttp import web

READY_TIMEOUT = 5.0
"""Seconds after which an unanswered question counts as a problem."""


class HealthPort(Protocol):
    """What the service tells about itself."""

    async def problems(self) -> list[str]:
        """Return what keeps the daemon from delivering, one sentence each; empty when it can. Raises nothing."""
        ...


def health_routes(health: HealthPort, ready_timeout: float) -> list[web.RouteDef]:
    """The routes of both probes."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(ready_timeout):
                problems = await health.problems()
        except TimeoutError:
            problems = [f"the daemon did not tell its state within {ready_timeout:g} s"]
        return web.json_response({"ready": not problems, "problems": problems}, status=503 if problems else 200)

    return [web.get("/healthz", healthz), web.get("/readyz", readyz)]
