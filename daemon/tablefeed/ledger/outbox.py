"""What webhooks are still to be told: every change of the tables `outbox` and `announced`, and what is asked of them.

An event is put there in the transaction of what it tells, and stays until its receiver has accepted it, so that a
crash loses none. All transitions run inside the caller's transaction.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from tablefeed.ledger.queries import CHUNK
from tablefeed.ledger.schema import FeedKey, announced, nodes, outbox
from tablefeed.model import Notice
from tablefeed.retry import LONGEST_ASKED

_LONGEST_WAIT = round(LONGEST_ASKED * 1000)
"""Milliseconds: what is due later than this was written when the clock was ahead."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One event that waits. Times are Unix milliseconds."""

    number: int
    """By which events are in order."""
    notice: Notice
    created_at: int
    refusals: int
    """How often its receiver did not want it."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for one receiver."""

    letters: tuple[Letter, ...]
    """Those that are due, in the order in which they happened."""
    next_due: int | None
    """When one of the others becomes due, in Unix milliseconds."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the outbox may hold."""

    served: tuple[str, ...]
    """The feeds that have a webhook."""
    since: int
    """Events from before this time are dropped, in Unix milliseconds."""
    most: int
    """Events of one feed; the oldest are dropped."""
    limit: int
    """How many go at a time, of each feed."""
    node: str = ""
    """Whose events; empty: there is no fleet."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Events of one feed that were dropped, in one go."""

    unserved: int = 0
    """The feed has no webhook any more."""
    old: int = 0
    surplus: int = 0
    forsaken: int = 0
    """The node that was to tell them is known no more."""


def put(conn: sa.Connection, now: int, notices: Iterable[Notice | None]) -> None:
    """Keep events until they are told; None is nothing to tell."""
    rows = [
        {
            "feed": notice.feed,
            "event": notice.event,
            "event_id": notice.id,
            "body": notice.body,
            "created_at": now,
            "due_at": now,
            "refusals": 0,
            "node": notice.node,
        }
        for notice in notices
        if notice is not None
    ]
    if rows:
        conn.execute(sa.insert(outbox), rows)


def waiting(conn: sa.Connection, node: str, now: int, feeds: Collection[str], limit: int) -> Waiting:
    """The first events of these feeds that are due, and when the next of them is."""
    is_due = sa.or_(outbox.c.due_at <= now, outbox.c.due_at > now + _LONGEST_WAIT)
    rows: list[sa.Row[Any]] = []
    # Feed by feed, so that each is read along its index, however many wait for others.
    for feed in feeds:
        mine = (outbox.c.feed == feed, outbox.c.node == node)
        due = sa.select(outbox).where(*mine, is_due).order_by(outbox.c.id).limit(limit)
        rows += conn.execute(due)
    first = sorted(rows, key=lambda row: row.id)[:limit]
    later = None
    if not first:
        soonest = sa.select(sa.func.min(outbox.c.due_at)).where(outbox.c.feed.in_([*feeds]), outbox.c.node == node)
        later = conn.execute(soonest).scalar()
    return Waiting(tuple(map(_letter, first)), later)


def _letter(row: sa.Row[Any]) -> Letter:
    return Letter(row.id, Notice(row.feed, row.event, row.event_id, row.body, row.node), row.created_at, row.refusals)


def forget(conn: sa.Connection, now: int, items: Sequence[Sequence[int]]) -> list[None]:
    """Let go of events, by their numbers: they were accepted, or are not to be told any more."""
    numbers = [number for item in items for number in item]
    for start in range(0, len(numbers), CHUNK):
        conn.execute(sa.delete(outbox).where(outbox.c.id.in_(numbers[start : start + CHUNK])))
    return [None] * len(items)


def refused(conn: sa.Connection, now: int, items: Sequence[tuple[int, int]]) -> list[None]:
    """(number, when to try again): a receiver does not want this event now."""
    for number, due_at in items:
        changed = {"refusals": outbox.c.refusals + 1, "due_at": due_at}
        conn.execute(sa.update(outbox).where(outbox.c.id == number).values(changed))
    return [None] * len(items)


def clear(conn: sa.Connection, now: int, items: Sequence[tuple[str, Collection[str]]]) -> list[int]:
    """(node, feeds): drop all events of these feeds that a node is to tell; returns how many those were."""
    return [
        conn.execute(sa.delete(outbox).where(outbox.c.feed.in_([*feeds]), outbox.c.node == node)).rowcount
        for node, feeds in items
    ]


def bound(conn: sa.Connection, now: int, items: Sequence[Bounds]) -> list[dict[str, Dropped]]:
    """Drop what the outbox is not to hold, a limited number at a time; returns what went, by feed.

    Trouble that was told is forgotten with the feed's webhook.
    """
    return [_bounded(conn, bounds) for bounds in items]


def _bounded(conn: sa.Connection, bounds: Bounds) -> dict[str, Dropped]:
    conn.execute(sa.delete(announced).where(announced.c.node == bounds.node, announced.c.feed.not_in(bounds.served)))
    mine = outbox.c.node == bounds.node
    found: dict[str, Dropped] = {}
    for feed in conn.execute(sa.select(outbox.c.feed).where(mine).distinct()).scalars().all():
        first = sa.select(outbox.c.id, outbox.c.created_at).where(outbox.c.feed == feed, mine).order_by(outbox.c.id)
        oldest = conn.execute(first.limit(bounds.limit)).all()
        reasons: dict[int, str] = {}
        if feed not in bounds.served:
            reasons = {row.id: "unserved" for row in oldest}
        else:
            last = _last_of_surplus(conn, bounds.node, feed, bounds.most)
            for row in oldest:
                if row.created_at < bounds.since:
                    reasons[row.id] = "old"
                elif row.id <= last:
                    reasons[row.id] = "surplus"
        if reasons:
            forget(conn, 0, [[*reasons]])
            found[feed] = Dropped(**Counter(reasons.values()))
    for feed, count in (_forsaken(conn, bounds) if bounds.node else {}).items():
        found[feed] = replace(found.get(feed, Dropped()), forsaken=count)
    return found


def _forsaken(conn: sa.Connection, bounds: Bounds) -> Counter[str]:
    """Drop old events of nodes that are known no more, which nobody else would; returns how many, by feed."""
    of_nobody = (outbox.c.node != "") & outbox.c.node.not_in(sa.select(nodes.c.name))
    old = sa.select(outbox.c.id, outbox.c.feed).where(of_nobody, outbox.c.created_at < bounds.since)
    # Several nodes may be at it.
    rows = conn.execute(old.order_by(outbox.c.id).limit(bounds.limit).with_for_update(skip_locked=True)).all()
    forget(conn, 0, [[row.id for row in rows]])
    return Counter(row.feed for row in rows)


def _last_of_surplus(conn: sa.Connection, node: str, feed: str, most: int) -> int:
    """The latest event of a feed that is one too many; 0: none is."""
    mine = (outbox.c.feed == feed, outbox.c.node == node)
    latest = sa.select(outbox.c.id).where(*mine).order_by(outbox.c.id.desc())
    return conn.execute(latest.offset(most).limit(1)).scalar() or 0


def hand_over(conn: sa.Connection, node: str, living: Collection[str], feeds: Collection[str]) -> int:
    """Let a node tell what others that are over were to tell of these feeds; returns how many events that is."""
    mine = (outbox.c.feed.in_(feeds), outbox.c.node != "", outbox.c.node.not_in([*living, node]))
    return conn.execute(sa.update(outbox).where(*mine).values(node=node)).rowcount


def announce(conn: sa.Connection, now: int, items: Sequence[tuple[FeedKey, str, Notice | None]]) -> list[None]:
    """(feed, place, event): tell of trouble at a place, unless that was told and is not over yet."""
    for (node, feed), place, notice in items:
        values = {"feed": feed, "place": place, "node": node}
        if conn.execute(insert(announced).on_conflict_do_nothing(), values).rowcount:
            put(conn, now, [notice])
    return [None] * len(items)


def withdraw(conn: sa.Connection, now: int, items: Sequence[tuple[FeedKey, str, Notice | None]]) -> list[None]:
    """(feed, place, event): tell that trouble at a place is over, where it was told."""
    for (node, feed), place, notice in items:
        if conn.execute(sa.delete(announced).filter_by(feed=feed, place=place, node=node)).rowcount:
            put(conn, now, [notice])
    return [None] * len(items)


def all_announced(conn: sa.Connection) -> list[tuple[str, str, str]]:
    """(node, feed, place) of all trouble that was told and is not over."""
    return [(row.node, row.feed, row.place) for row in conn.execute(sa.select(announced))]


class Outbox:
    """The ledger, as those see it who tell webhooks. Each method is durable when it returns."""

    def __init__(
        self,
        do: Callable[..., Awaitable[Any]],
        ask: Callable[..., Awaitable[Any]],
        node: str = "",
        whose: Callable[[str], str] = lambda _feed: "",
    ) -> None:
        """`do(transition, item)` changes the ledger, `ask(query, *arguments)` asks it; `node` is ours in a fleet.

        `whose` tells on which node a feed's directory is; empty: on all.
        """
        self._node = node
        self._whose = whose
        self._do = do
        self._ask = ask

    async def waiting(self, now: int, feeds: Collection[str], limit: int) -> Waiting:
        """The first events of these feeds that are due; `now` in Unix milliseconds."""
        found: Waiting = await self._ask(waiting, self._node, now, feeds, limit)
        return found

    async def forget(self, numbers: Sequence[int]) -> None:
        """Let go of events that were accepted, or are not to be told any more."""
        await self._do(forget, numbers)

    async def refused(self, number: int, due_at: int) -> None:
        """Try an event again at a time, in Unix milliseconds: its receiver does not want it now."""
        await self._do(refused, (number, due_at))

    async def clear(self, feeds: Collection[str]) -> int:
        """Drop all events of these feeds; returns how many."""
        count: int = await self._do(clear, (self._node, feeds))
        return count

    async def bound(self, bounds: Bounds) -> dict[str, Dropped]:
        """Drop a limited number of events that are not to be held; returns what went, by feed: nothing at the end."""
        dropped: dict[str, Dropped] = await self._do(bound, replace(bounds, node=self._node))
        return dropped

    async def announce(self, feed: str, place: str, notice: Notice | None) -> None:
        """Tell of trouble, once until it is over."""
        await self._do(announce, ((self._whose(feed), feed), place, notice))

    async def withdraw(self, feed: str, place: str, notice: Notice | None) -> None:
        """Tell that trouble is over, where it was told."""
        await self._do(withdraw, ((self._whose(feed), feed), place, notice))

    async def announced(self) -> set[tuple[str, str]]:
        """(feed, place) of all trouble of ours that was told and is not over."""
        found = await self._ask(all_announced)
        return {(feed, place) for node, feed, place in found if node == self._whose(feed)}
