"""Claims: which due rows of a feed are worked on next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tablefeed.ledger.queries import CHUNK, entry_of
from tablefeed.ledger.schema import files, is_open, is_queued
from tablefeed.model import Entry, FileVersion, Order, State

_ORDERINGS: dict[Order, tuple[sa.ColumnElement[Any], ...]] = {
    Order.OLDEST: (files.c.mtime_ns.asc(), files.c.id.asc()),
    Order.NEWEST: (files.c.mtime_ns.desc(), files.c.id.desc()),
    Order.NAME: (files.c.path.asc(),),
}


@dataclass(frozen=True, slots=True)
class Want:
    """A claim of up to `limit` due rows of one feed."""

    feed: str
    order: Order
    limit: int
    strict: bool = False
    """The first of all queued rows may go, once it is due, and no other."""
    ahead: FileVersion | None = None
    """With `strict`: a file that is not queued yet. What comes behind it in the order waits for it."""


def comes_first(order: Order, one: FileVersion, other: FileVersion) -> bool:
    """Whether `one` goes before `other`, or is level with it."""
    match order:
        case Order.OLDEST:
            return one.mtime_ns <= other.mtime_ns
        case Order.NEWEST:
            return one.mtime_ns >= other.mtime_ns
        case Order.NAME:
            return one.path <= other.path


def claim(conn: sa.Connection, now: int, items: Sequence[tuple[str, Sequence[Want]]]) -> list[list[Entry]]:
    """Give each (owner, wants) its due rows: those that wait for their move first, then queued ones in order."""
    return [[entry for want in wants for entry in _claim(conn, now, owner, want)] for owner, wants in items]


def _claim(conn: sa.Connection, now: int, owner: str, want: Want) -> list[Entry]:
    free = (files.c.feed == want.feed) & files.c.owner.is_(None)
    moves = sa.select(files).where(is_open, free, files.c.due_at <= now, files.c.state == State.UPLOADED.value)
    rows = list(conn.execute(moves.order_by(files.c.due_at).limit(want.limit)).mappings())
    if (room := want.limit - len(rows)) > 0:
        queued = sa.select(files).where(is_open, is_queued, free).order_by(*_ORDERINGS[want.order])
        if want.strict:
            rows += [row for row in conn.execute(queued.limit(1)).mappings() if _may_go(row, now, want)]
        else:
            rows += conn.execute(queued.where(files.c.due_at <= now).limit(room)).mappings()
    ids = [row["id"] for row in rows]
    for start in range(0, len(ids), CHUNK):
        mine = files.c.id.in_(ids[start : start + CHUNK])
        conn.execute(sa.update(files).where(mine).values(owner=owner))
        sending = {"state": State.UPLOADING.value}
        conn.execute(sa.update(files).where(mine, files.c.state == State.QUEUED.value).values(sending))
    return [entry_of(row, claimed=True) for row in rows]


def _may_go(row: sa.RowMapping, now: int, want: Want) -> bool:
    due: bool = row["due_at"] <= now
    return due and (want.ahead is None or comes_first(want.order, entry_of(row).version, want.ahead))
