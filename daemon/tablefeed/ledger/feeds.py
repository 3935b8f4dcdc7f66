"""What the ledger keeps of feeds, beside their files: every change of the table `feeds`.

These run in the caller's transaction like all transitions.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from tablefeed.ledger import outbox
from tablefeed.ledger.prepared import Prepared
from tablefeed.ledger.schema import FeedKey, announced, feeds, nodes
from tablefeed.model import Notice


@dataclass(frozen=True, slots=True)
class FeedRecord:
    """What is known of a feed. Times are Unix milliseconds, None: never."""

    name: str
    node: str
    """Whose directory it is; empty: there is no fleet, or all nodes share it."""
    known_at: int
    arrived_at: int | None
    delivered_at: int | None
    paused_at: int | None
    """When somebody paused it; None while it is not."""
    stale_at: int | None
    """When it was told that no file had arrived for too long; None while they arrive."""


def feed_records(conn: sa.Connection, places: Collection[str] = ()) -> list[FeedRecord]:
    """All feeds that were ever served and have not been forgotten; `places`: of these nodes, none: of any."""
    known = sa.select(feeds).where(*([feeds.c.node.in_(places)] if places else []))
    return [FeedRecord(**row) for row in conn.execute(known).mappings()]


def paused(conn: sa.Connection) -> dict[str, int]:
    """The feeds that somebody has paused, each with since when, in Unix milliseconds."""
    rows = sa.select(feeds.c.name, feeds.c.paused_at).where(feeds.c.paused_at.is_not(None))
    return {row[0]: row[1] for row in conn.execute(rows)}


def know(conn: sa.Connection, now: int, items: Sequence[Collection[FeedKey]]) -> list[None]:
    """Make rows for feeds that have none. One that is shared from now on, or not any more, is no new one."""
    for keys in items:
        records = feed_records(conn)
        known = {(record.node, record.name) for record in records}
        fresh = [_fresh(node, name, now, records) for node, name in dict.fromkeys(keys) if (node, name) not in known]
        if fresh:
            conn.execute(insert(feeds).on_conflict_do_nothing(), fresh)  # another node may know it by now
    return [None] * len(items)


def _fresh(node: str, name: str, now: int, records: Sequence[FeedRecord]) -> dict[str, object]:
    """A new row. What somebody has paused is paused on all nodes."""
    same = [record for record in records if record.name == name]
    before = [record for record in same if not (node and record.node)]
    return {
        "name": name,
        "node": node,
        "known_at": min((record.known_at for record in before), default=now),
        "arrived_at": max(filter(None, (record.arrived_at for record in before)), default=None),
        "delivered_at": max(filter(None, (record.delivered_at for record in before)), default=None),
        "paused_at": min(filter(None, (record.paused_at for record in same)), default=None),
    }


def forget_own(conn: sa.Connection, node: str, shared: Collection[str]) -> None:
    """Forget what a node knew of these feeds while they were its own; what they are known by now has its times."""
    conn.execute(sa.delete(feeds).where(feeds.c.node == node, feeds.c.name.in_(shared)))


def forget_with_nodes(conn: sa.Connection, before: int) -> None:
    """Forget the feeds of nodes that are not known any more, or not yet, where nothing has come since `before`.

    In Unix milliseconds. That one is paused is not forgotten: its node may come back after all.
    """
    is_idle = sa.func.coalesce(feeds.c.arrived_at, feeds.c.known_at) < before
    of_nobody = (feeds.c.node != "") & feeds.c.node.not_in(sa.select(nodes.c.name))
    conn.execute(sa.delete(feeds).where(of_nobody, is_idle, feeds.c.known_at < before, feeds.c.paused_at.is_(None)))
    told = sa.exists().where(feeds.c.node == announced.c.node, feeds.c.name == announced.c.feed)
    conn.execute(sa.delete(announced).where(announced.c.node.not_in(sa.select(nodes.c.name)), ~told))


_HAPPENED = {
    column: Prepared(
        sa.update(feeds)
        .where(feeds.c.name == sa.bindparam("feed"), feeds.c.node == sa.bindparam("on"))
        .values({column: sa.bindparam("now")})
    )
    for column in ("arrived_at", "delivered_at")
}
_NOTED = "what has happened to feeds in this transaction"


@contextmanager
def happenings(conn: sa.Connection, now: int) -> Iterator[None]:
    """Note what happens to feeds within, and write it at the end: in one order, so that nodes do not wait in a ring.

    All that deliver files of a shared feed write its row, in each of their commits.
    """
    noted: set[tuple[FeedKey, str]] = set()
    info = conn.info  # a connection that breaks meanwhile has none any more
    info[_NOTED] = noted
    try:
        yield
    finally:
        info.pop(_NOTED, None)
    for (node, name), column in sorted(noted):
        _HAPPENED[column].each(conn, [{"on": node, "feed": name, "now": now}])


def arrived(conn: sa.Connection, key: FeedKey) -> None:
    """Files of a feed have come. Only within `happenings`."""
    conn.info[_NOTED].add((key, "arrived_at"))


def delivered(conn: sa.Connection, key: FeedKey) -> None:
    """Files of a feed have been delivered. Only within `happenings`."""
    conn.info[_NOTED].add((key, "delivered_at"))


def set_paused(conn: sa.Connection, now: int, items: Sequence[tuple[str, int | None, Notice | None]]) -> list[None]:
    """Keep since when each feed is paused, on all nodes, in Unix milliseconds; None: it is not."""
    for name, moment, notice in items:
        conn.execute(sa.update(feeds).where(feeds.c.name == name).values(paused_at=moment))
        outbox.put(conn, now, [notice])
    return [None] * len(items)


def set_stale(conn: sa.Connection, now: int, items: Sequence[tuple[FeedKey, int | None, Notice | None]]) -> list[None]:
    """Keep since when it is told that no files arrive in each feed; None: they do.

    All nodes that share a directory find that at the same time: the first one tells it.
    """
    for (node, name), moment, notice in items:
        change = sa.update(feeds).where(feeds.c.name == name, feeds.c.node == node)
        if moment is not None:
            change = change.where(feeds.c.stale_at.is_(None))
        if conn.execute(change.values(stale_at=moment)).rowcount:
            outbox.put(conn, now, [notice])
    return [None] * len(items)
