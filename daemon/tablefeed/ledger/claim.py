"""Claims: which due rows of a feed are worked on next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from tablefeed.ledger import postgres
from tablefeed.ledger.prepared import Prepared
from tablefeed.ledger.queries import ENTRY, entry_of
from tablefeed.ledger.schema import files, is_held, is_open, is_queued, is_uploaded
from tablefeed.model import Entry, FileVersion, Order, State

_FREE = (
    files.c.node == sa.bindparam("node"),
    files.c.feed == sa.bindparam("feed"),
    files.c.owner.is_(None),
)
_IS_OVER = files.c.due_at <= sa.bindparam("now")
# What never failed waits for nothing: it was queued by the clock of a node that may be ahead of this one.
_IS_DUE = _IS_OVER | files.c.error.is_(None)
_UP_TO = sa.bindparam("limit", type_=sa.Integer)

_MOVES = Prepared(
    sa.select(*ENTRY)
    .where(is_uploaded, *_FREE, _IS_OVER)
    .order_by(files.c.due_at)
    .limit(_UP_TO)
    .with_for_update(skip_locked=True)
)
_ORDERED: dict[Order, sa.Select[Any]] = {
    order: sa.select(*ENTRY, _IS_DUE.label("is_due")).where(is_queued, *_FREE).order_by(*by).limit(_UP_TO)
    for order, by in {
        Order.OLDEST: (files.c.mtime_ns.asc(), files.c.id.asc()),
        Order.NEWEST: (files.c.mtime_ns.desc(), files.c.id.desc()),
        Order.NAME: (files.c.path.asc(),),
    }.items()
}
# Paths are in order in the index of open rows, which a query must name to be served by it.
_ORDERED[Order.NAME] = _ORDERED[Order.NAME].where(is_open)
_FIRST = {order: Prepared(select.with_for_update()) for order, select in _ORDERED.items()}
_DUE = {order: Prepared(select.where(_IS_DUE).with_for_update(skip_locked=True)) for order, select in _ORDERED.items()}
# What other nodes take in the same instant is passed over; SQLite, where nobody else writes, knows no such words.
_UNDER_WAY = Prepared(
    sa.select(sa.func.count()).where(
        files.c.node == sa.bindparam("node"), files.c.feed == sa.bindparam("feed"), is_held
    )
)

_TAKE = Prepared(
    sa.update(files)
    .where(files.c.id == sa.bindparam("b_id"))
    .values(
        owner=sa.bindparam("owner"),
        state=sa.case(
            (is_queued, sa.literal_column(f"'{State.UPLOADING}'")),
            else_=files.c.state,
        ),
    )
)


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
    node: str = ""
    """Where the feed's directory is; empty: on all nodes, or there is no fleet."""
    most: int = 0
    """How many of the feed may be claimed by all nodes together; 0: any number."""


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
    # In one order, so that two nodes do not wait for each other.
    for feed in sorted({want.feed for _, wants in items for want in wants if _most(conn, want)}):
        postgres.lock_order(conn, f"/{feed}")
    return [[entry for want in wants for entry in _claim(conn, now, owner, want)] for owner, wants in items]


def _claim(conn: sa.Connection, now: int, owner: str, want: Want) -> list[Entry]:
    want = _bounded(conn, want)
    values = {"node": want.node, "feed": want.feed, "now": now, "limit": want.limit}
    entries = [entry_of(row) for row in _MOVES.all(conn, values)]
    if (room := want.limit - len(entries)) > 0:
        if want.strict:
            entries += _first_if_it_may_go(conn, values, want)
        else:
            rows = _DUE[want.order].all(conn, {**values, "limit": room})
            entries += [entry_of(row[:-1], claimed=True) for row in rows]
    _TAKE.each(conn, [{"b_id": entry.id, "owner": owner} for entry in entries])
    return entries


def _most(conn: sa.Connection, want: Want) -> int:
    """How many of the feed all nodes together may hold; 0: any number, or there is no other node."""
    if want.node or not postgres.is_postgres(conn):
        return 0
    return 1 if want.strict else want.most


def _bounded(conn: sa.Connection, want: Want) -> Want:
    """What may be claimed when other nodes claim of the same feed, and all together no more than so many."""
    most = _most(conn, want)
    if not most:
        return want
    [(held,)] = _UNDER_WAY.all(conn, {"node": want.node, "feed": want.feed})
    return replace(want, limit=max(0, min(want.limit, most - held)))


def _first_if_it_may_go(conn: sa.Connection, values: Mapping[str, Any], want: Want) -> list[Entry]:
    for *row, is_due in _FIRST[want.order].all(conn, {**values, "limit": 1}):
        entry = entry_of(row, claimed=True)
        if is_due and (want.ahead is None or comes_first(want.order, entry.version, want.ahead)):
            return [entry]
    return []
