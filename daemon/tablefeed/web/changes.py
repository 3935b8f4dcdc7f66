"""What may be changed over HTTP: refused files are tried again, feeds are paused and resumed, uploads are slowed."""

import json
import time
from typing import Any, Protocol

from aiohttp import web

from tablefeed.errors import LedgerUnusable
from tablefeed.model import printable
from tablefeed.recovery import MOST, Choice, Outcome
from tablefeed.units import parse_rate
from tablefeed.web.guard import Guard, TokenPort


class ChangesPort(TokenPort, Protocol):
    """What the service lets people change."""

    def has_feed(self, feed: str) -> bool:
        """Whether it serves a feed of that name."""
        ...

    async def pause(self, feed: str) -> None:
        """Send no more files of a feed. Raises LedgerUnusable."""
        ...

    async def resume(self, feed: str) -> None:
        """Send files of a feed again. Raises LedgerUnusable."""
        ...

    async def retry(self, choice: Choice) -> Outcome:
        """Put refused files back. Raises LedgerUnusable."""
        ...

    def limit_bandwidth(self, rate: float | None) -> None:
        """Limit all uploads together, in bytes a second; None: not at all. Raises ValueError."""
        ...

    def release_bandwidth(self) -> None:
        """Limit the uploads as the configuration says."""
        ...


def change_routes(changes: ChangesPort) -> list[web.RouteDef]:
    """The routes that change something, each behind the token."""
    guard = Guard(changes, time.monotonic)

    async def retry(request: web.Request) -> web.Response:
        await guard.admit(request)
        choice = _choice(await _body(request))
        if choice.feed is not None:
            _known(changes, choice.feed)
        try:
            outcome = await changes.retry(choice)
        except LedgerUnusable as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from None
        return web.json_response(_told(outcome))

    async def pause(request: web.Request) -> web.Response:
        await guard.admit(request)
        feed = _known(changes, request.match_info["name"])
        paused = request.match_info["what"] == "pause"
        try:
            await (changes.pause(feed) if paused else changes.resume(feed))
        except LedgerUnusable as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from None
        return web.json_response({"feed": feed, "paused": paused})

    async def bandwidth(request: web.Request) -> web.Response:
        await guard.admit(request)
        rate = _rate(await _body(request))
        try:
            _limit(changes, rate)
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"rate {error}") from None
        return web.json_response({"rate": rate})

    return [
        web.post("/api/retry", retry),
        web.post(r"/api/feeds/{name}/{what:pause|resume}", pause),
        web.post("/api/bandwidth", bandwidth),
    ]


def _known(changes: ChangesPort, feed: str) -> str:
    if not changes.has_feed(feed):
        raise web.HTTPNotFound(text=f"The configuration has no feed {feed[:100]!r}")
    return feed


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise web.HTTPBadRequest(text="The body is not JSON") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="The body must be a JSON object")
    return body


def _choice(body: dict[str, Any]) -> Choice:
    """Which files are meant. Raises HTTPBadRequest."""
    after = body.pop("after", 0)
    match body:
        case {"ids": [_, *_] as ids} if len(body) == 1 and len(ids) <= MOST and all(map(_is_id, ids)):
            choice = Choice(ids=ids)
        case {"feed": str(feed)} if len(body) == 1 and (after == 0 or _is_id(after)):
            choice = Choice(feed=feed, after=after)
        case {"all": True} if len(body) == 1 and (after == 0 or _is_id(after)):
            choice = Choice(after=after)
        case _:
            raise web.HTTPBadRequest(
                text=f'Say which files: {{"ids": [7, 8]}} with at most {MOST}, {{"feed": "orders"}}, or {{"all": true}}'
            )
    return choice


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63


def _told(outcome: Outcome) -> dict[str, Any]:
    files = [
        {"id": it.id, "feed": it.feed, "path": printable(it.path), "problem": printable(it.problem)}
        for it in outcome.files
    ]
    return {
        "put_back": [{name: it[name] for name in ("id", "feed", "path")} for it in files if not it["problem"]],
        "not_put_back": [it for it in files if it["problem"]],
        "next": outcome.next,
    }


def _rate(body: dict[str, Any]) -> str | None:
    match body:
        case {"rate": str() | None as rate} if len(body) == 1:
            return rate
        case _:
            raise web.HTTPBadRequest(
                text='Write {"rate": "5MiB/s"}, {"rate": ""} for no limit, or {"rate": null} for what is configured'
            )


def _limit(changes: ChangesPort, rate: str | None) -> None:
    if rate is None:
        changes.release_bandwidth()
    else:
        changes.limit_bandwidth(parse_rate(rate) if rate else None)
