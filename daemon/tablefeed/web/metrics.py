"""`/metrics`: for Prometheus and what reads the same."""

from typing import Protocol

from aiohttp import hdrs, web


class MetricsPort(Protocol):
    """What the service counts."""

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """All metrics, and the type of that content; `accept` is what the scraper reads. Raises nothing."""
        ...


def metrics_routes(port: MetricsPort) -> list[web.RouteDef]:
    """The route of the metrics."""

    async def metrics(request: web.Request) -> web.Response:
        body, content_type = await port.metrics(",".join(request.headers.getall(hdrs.ACCEPT, [])))
        response = web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})
        response.enable_compression()
        return response

    return [web.get("/metrics", metrics)]
