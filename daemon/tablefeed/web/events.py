"""`/events`: the daemon's state as server-sent events, one picture for all who look.

The picture is taken while somebody looks, and is sent when something in it has changed, else as a sign of life. Who is
too slow for one misses it and gets the next: nothing is kept for anybody.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tablefeed.web.guard import foreign_page

MOST = 32
"""Pages that may look at a time."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often, in seconds."""

    interval: float = 1.0
    """Between two pictures."""
    heartbeat: float = 5.0
    """Between two that are sent, when nothing has changed."""
    patience: float = 10.0
    """A page that takes nothing for so long is cut off."""


class Events:
    """Those who look, and what they are shown."""

    def __init__(self, picture: Callable[[], Awaitable[dict[str, Any]]], pace: Pace, most: int = MOST) -> None:
        """`picture` gives what is shown, with the time in `now`; it raises nothing."""
        self._picture = picture
        self._pace = pace
        self._most = most
        self._lookers: list[web.Request] = []
        self._latest = b""
        self._number = 0
        self._news = asyncio.Condition()
        self._painting: asyncio.Task[None] | None = None
        self._ended = False

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Show one page the pictures until it goes away, or the daemon ends."""
        if foreign_page(request):
            raise web.HTTPForbidden(text="A page of another site may not look here")
        if sum(it.transport is not None for it in self._lookers) >= self._most or self._ended:
            raise web.HTTPServiceUnavailable(
                text=f"{self._most} pages are looking already: close one, or ask /api/status",
                headers={"Retry-After": "5"},
            )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        self._lookers.append(request)
        try:
            if self._painting is None:
                self._latest = b""  # of when somebody looked last
                self._painting = asyncio.create_task(self._paint())
            await response.prepare(request)
            with suppress(ConnectionError, TimeoutError):
                await self._show(request, response)
        finally:
            self._lookers = [it for it in self._lookers if it is not request]
            if not self._lookers:
                await self._stop()
        return response

    async def close(self) -> None:
        """Let all pages go: the daemon ends."""
        self._ended = True
        async with self._news:
            self._news.notify_all()

    async def _show(self, request: web.Request, response: web.StreamResponse) -> None:
        await self._send(response, b"retry: 2000\n\n")
        seen = 0
        while request.transport is not None:
            seen = await self._newer_than(seen)
            if self._ended:
                await self._send(response, b"event: end\ndata: {}\n\n")
                return
            await self._send(response, self._latest)

    async def _newer_than(self, seen: int) -> int:
        """Wait for a picture with another number, or the end; the number of the latest."""
        async with self._news:
            await self._news.wait_for(lambda: (self._latest and self._number != seen) or self._ended)
            return self._number

    async def _send(self, response: web.StreamResponse, data: bytes) -> None:
        async with asyncio.timeout(self._pace.patience):
            await response.write(data)

    async def _paint(self) -> None:
        loop = asyncio.get_running_loop()
        before: dict[str, Any] = {}
        sent_at = loop.time()
        while True:
            picture = await self._picture()
            what = _without_time(picture)
            if what != before or loop.time() - sent_at >= self._pace.heartbeat:
                before, sent_at = what, loop.time()
                async with self._news:
                    self._latest = b"data: " + json.dumps(picture, separators=(",", ":")).encode() + b"\n\n"
                    self._number += 1
                    self._news.notify_all()
            await asyncio.sleep(self._pace.interval)

    async def _stop(self) -> None:
        painting, self._painting = self._painting, None
        if painting is not None:
            painting.cancel()
            with suppress(asyncio.CancelledError):
                await painting


def _without_time(picture: dict[str, Any]) -> dict[str, Any]:
    """What may have changed in a picture, but for the clocks in it: the daemon's, and its fleet's."""
    what = {name: value for name, value in picture.items() if name != "now"}
    return what | {"fleet": {**what["fleet"], "now": None}} if "fleet" in what else what


def event_routes(events: Events) -> list[web.RouteDef]:
    """The route of the stream."""
    return [web.get("/events", events.serve)]
