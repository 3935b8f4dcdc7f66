"""`/api/files`: the history, searched and page by page."""

from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

from tablefeed.errors import LedgerUnusable
from tablefeed.history import is_refused, plain, what
from tablefeed.ledger.glance import Wanted
from tablefeed.ledger.records import Page, Record
from tablefeed.model import State
from tablefeed.units import iso

_SHOWN = 50
_MOST = 200
_LONGEST = 500
_PARAMETERS = ("feed", "state", "q", "node", "before", "limit")


class HistoryPort(Protocol):
    """What the service knows of files."""

    async def history(self, wanted: Wanted, limit: int) -> Page:
        """The latest files that fit. Raises LedgerUnusable."""
        ...


def file_routes(history: HistoryPort) -> list[web.RouteDef]:
    """The route that searches."""

    async def api_files(request: web.Request) -> web.Response:
        wanted, limit = _asked(request.query)
        try:
            page = await history.history(wanted, limit)
        except LedgerUnusable as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from None
        files = [_plain(record) for record in page.records]
        note = (
            ""
            if page.complete
            else f"Files older than number {page.next} were not searched: ask with before={page.next}"
        )
        return web.json_response({"files": files, "next": page.next, "complete": page.complete, "note": note})

    return [web.get("/api/files", api_files)]


def _plain(record: Record) -> dict[str, object]:
    return plain(record) | {"what": what(record), "changed_at": iso(record.changed_at), "refused": is_refused(record)}


def _asked(query: Mapping[str, str]) -> tuple[Wanted, int]:
    """What is wanted, and how many at most. Raises HTTPBadRequest with what would be right."""
    for name in query:
        if name not in _PARAMETERS:
            raise web.HTTPBadRequest(text=f"There is no parameter {name[:40]!r}; there are {', '.join(_PARAMETERS)}")
    if len(query.get("q", "")) > _LONGEST:
        raise web.HTTPBadRequest(text=f"q is longer than {_LONGEST} characters: search for a part of the name")
    state = query.get("state") or None
    if state is not None and state not in [*State]:
        raise web.HTTPBadRequest(text=f"There is no such state; there are {', '.join(State)}")
    before = _number(query, "before", 2**63 - 1)
    limit = _number(query, "limit", _MOST)
    wanted = Wanted(
        query.get("feed") or None,
        State(state) if state else None,
        query.get("q", "").strip(),
        before,
        query.get("node") or None,
    )
    return wanted, _SHOWN if limit is None else limit


def _number(query: Mapping[str, str], name: str, most: int) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and 0 < int(text) <= most):
        raise web.HTTPBadRequest(text=f"{name} must be a number from 1 to {most}")
    return int(text)
