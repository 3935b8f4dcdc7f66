"""`/metrics`: for Prometheus and what reads the same."""

from typing import Protocol

from aiohttp import hdrs, web

from tablefeed.metrics import Page


class MetricsPort(Protocol):
    """What the service counts."""

    async def metrics(self, accept: str, accept_encoding: str) -> Page:
        """All metrics, in the format and the coding that the scraper's headers ask for. Raises nothing."""
        ...


def metrics_routes(port: MetricsPort) -> list[web.RouteDef]:
    """The route of the metrics."""

    async def metrics(request: web.Request) -> web.Response:
        accept, coding = (",".join(request.headers.getall(name, [])) for name in (hdrs.ACCEPT, hdrs.ACCEPT_ENCODING))
        page = await port.metrics(accept, coding)
        return web.Response(body=page.body, headers=page.headers)

    return [web.get("/metrics", metrics)]
