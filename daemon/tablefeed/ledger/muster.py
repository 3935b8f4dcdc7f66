"""All nodes of a fleet at one moment: who lives, what each works on, and what lies with whom. Only on PostgreSQL."""

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from tablefeed.ledger import postgres
from tablefeed.ledger.nodes import COLUMNS, NOW, Node
from tablefeed.ledger.reports import NOTHING, Report, understood
from tablefeed.ledger.schema import files, is_held, is_open, nodes
from tablefeed.model import State

REMEMBERED = 24 * 3_600_000
"""Milliseconds for which a node that is over is told of, and longer while files wait in its directories."""

_COLUMNS = [nodes.c.feeds, nodes.c.troubles, *COLUMNS]


@dataclass(frozen=True, slots=True)
class Standing:
    """One node, and its work."""

    node: Node
    living: bool
    feeds: tuple[str, ...]
    """Those that it serves, or served last."""
    uploading: int = 0
    """Files that it has claimed and not delivered yet."""
    archiving: int = 0
    """Delivered ones that it moves now."""
    waiting: int = 0
    """Open files that lie in its own directories, so that no other node can deliver them."""
    report: Report = NOTHING
    """What it told of its troubles last; nothing where it is over, since nobody knows how they are now."""


@dataclass(frozen=True, slots=True)
class Held:
    """A file that a node works on."""

    id: int
    node: str
    feed: str
    path: str
    size: int
    state: str
    queued_at: int
    """Unix milliseconds."""


@dataclass(frozen=True, slots=True)
class Muster:
    """A fleet; without one all is empty."""

    now: int = 0
    """The database's clock, in Unix milliseconds, as all times of nodes are."""
    nodes: tuple[Standing, ...] = ()
    """Those that are over while files wait for them, the one that asks, those in trouble, then the others; by name."""
    living: int = 0
    over: int = 0
    """Those that gave no sign of life for their lease, or ended, within `REMEMBERED` or with files that wait."""
    held: tuple[Held, ...] = ()
    """The longest waiting first."""


def muster(conn: sa.Connection, most: int, besides: str) -> Muster:
    """At most so many nodes, and so many files that others than `besides` work on."""
    if not postgres.is_postgres(conn):
        return Muster()
    now: int = conn.execute(sa.select(NOW)).scalar_one()
    waiting = _waiting(conn)
    recent = (nodes.c.lease_until > now) | (nodes.c.seen_at >= now - REMEMBERED) | nodes.c.name.in_([*waiting])
    living = sa.func.count().filter(nodes.c.lease_until > now)
    alive, all_of_them = conn.execute(sa.select(living, sa.func.count()).where(recent)).one()
    work = _work(conn)
    missed = (nodes.c.lease_until <= now) & nodes.c.name.in_([*waiting])
    troubled = (nodes.c.lease_until > now) & nodes.c.troubles.is_not(None)
    rank = sa.case((missed, 0), (nodes.c.name == besides, 1), (troubled, 2), else_=3)
    rows = conn.execute(sa.select(*_COLUMNS).where(recent).order_by(rank, nodes.c.name).limit(most))
    found = [_standing(now, row) for row in rows]
    return Muster(
        now,
        tuple(
            replace(
                it,
                uploading=work[it.node.name, State.UPLOADING.value],
                archiving=work[it.node.name, State.UPLOADED.value],
                waiting=waiting[it.node.name],
            )
            for it in found
        ),
        alive,
        all_of_them - alive,
        _held(conn, most, besides),
    )


def standing(conn: sa.Connection, name: str) -> Standing | None:
    """A node by its name, without its work; None: none of that name ever registered."""
    row = conn.execute(sa.select(NOW, *_COLUMNS).where(nodes.c.name == name)).first()
    return None if row is None else _standing(row[0], row[1:])


def _standing(now: int, row: Sequence[Any]) -> Standing:
    """A node as `_COLUMNS` tell of it."""
    feeds, troubles, *columns = row
    node = Node(*columns)
    living = node.lives(now)
    return Standing(node, living, tuple(json.loads(feeds)), report=understood(troubles) if living else NOTHING)


def orphans(conn: sa.Connection, places: Collection[str], served: Collection[str]) -> dict[str, int]:
    """How many open rows there are, by feed, that nobody is there to deliver.

    `places`: in whose directories files lie that this node may touch; `served`: the feeds that it serves.
    """
    mine = (is_open, files.c.feed.not_in(served), *([files.c.node.in_(places)] if places else []))
    rows = conn.execute(
        sa.select(files.c.node, files.c.feed, sa.func.count()).where(*mine).group_by(files.c.node, files.c.feed)
    ).all()
    elsewhere = _served(conn) if rows and postgres.is_postgres(conn) else set()
    counts: Counter[str] = Counter()
    for node, feed, count in rows:
        if node or feed not in elsewhere:
            counts[feed] += count
    return counts


def _served(conn: sa.Connection) -> set[str]:
    """The feeds that any living node serves."""
    found = conn.execute(sa.select(nodes.c.feeds).where(nodes.c.lease_until > NOW)).scalars()
    return {feed for feeds in found for feed in json.loads(feeds)}


def _waiting(conn: sa.Connection) -> Counter[str]:
    rows = sa.select(files.c.node, sa.func.count()).where(is_open, files.c.node != "").group_by(files.c.node)
    return Counter({row[0]: row[1] for row in conn.execute(rows)})


def _work(conn: sa.Connection) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    rows = sa.select(files.c.owner, files.c.state, sa.func.count()).where(is_held)
    for owner, state, count in conn.execute(rows.group_by(files.c.owner, files.c.state)):
        counts[_node_of(owner), state] += count
    return counts


def _held(conn: sa.Connection, most: int, besides: str) -> tuple[Held, ...]:
    names = ("id", "owner", "feed", "path", "size", "state", "queued_at")
    others = sa.select(*(files.c[name] for name in names)).where(
        is_held, ~files.c.owner.startswith(f"{besides}/", autoescape=True)
    )
    rows = conn.execute(others.order_by(files.c.queued_at, files.c.id).limit(most))
    return tuple(Held(row[0], _node_of(row[1]), *row[2:]) for row in rows)


def _node_of(owner: str) -> str:
    """The name in what `nodes.owner_of` has made."""
    return owner.rpartition("/")[0]
