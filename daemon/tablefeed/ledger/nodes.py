"""The daemons that share one ledger: their names, their epochs and their leases. Only on PostgreSQL.

A lease is a node's, on the database's clock: whoever finds it over gives what the node held to others, and marks the
epoch as over in the same transaction. `files.owner` names node and epoch, so that what that node still does is no
change to any row.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace

import sqlalchemy as sa

from tablefeed import __version__
from tablefeed.ledger import postgres
from tablefeed.ledger.changes import NO_GRANT, put_back_all
from tablefeed.ledger.feeds import forget_own, forget_with_nodes
from tablefeed.ledger.schema import files, is_left, is_open, nodes
from tablefeed.model import State

NOW = sa.cast(sa.func.extract("epoch", sa.func.clock_timestamp()) * 1000, sa.BigInteger)
"""Unix milliseconds on the database's clock."""


_STEP = 1_000
"""Milliseconds by which the database's clock has been set back at least when a sign of life comes from later."""
KEPT = 30 * 86_400_000
"""Milliseconds after its last sign of life for which a node that is over is known: pods have a new name each time."""


@dataclass(frozen=True, slots=True)
class Node:
    """One daemon. Times are Unix milliseconds on the database's clock."""

    name: str
    epoch: int
    started_at: int
    seen_at: int
    """Its last sign of life."""
    lease_until: int
    """Until when it holds what it works on; 0: that is over."""
    version: str

    def lives(self, now: int) -> bool:
        """Whether what it holds is its own."""
        return self.lease_until > now


@dataclass(frozen=True, slots=True)
class Beat:
    """What a sign of life has brought."""

    now: int
    """The database's clock, in Unix milliseconds."""
    holds: bool
    """False: others found this epoch over. What was claimed in it belongs to nobody here any more."""
    nodes: tuple[Node, ...]
    taken_over: int = 0
    """How many rows of nodes that are over went back into the queue."""
    over: tuple[str, ...] = ()
    """Those nodes."""
    letters: int = 0
    """How many events this node is to tell webhooks now in place of nodes that are over."""


COLUMNS = [nodes.c[field.name] for field in fields(Node)]


def owner_of(name: str, epoch: int) -> str:
    """What `files.owner` says for a node."""
    return f"{name}/{epoch}"


def register(conn: sa.Connection, name: str, lease: int, last: int = 0) -> tuple[int, int]:
    """Begin the node's next epoch, with a lease in milliseconds; `last`: the one that it remembers itself.

    Returns the epoch and how many rows went back into the queue that earlier ones held.
    """
    known = conn.execute(sa.select(nodes.c.epoch).where(nodes.c.name == name).with_for_update()).scalar()
    now = conn.execute(sa.select(NOW)).scalar_one()
    epoch = max(known or 0, last) + 1
    values = {"epoch": epoch, "started_at": now, "seen_at": now, "lease_until": now + lease, "version": __version__}
    values["troubles"] = None
    if known is None:
        conn.execute(sa.insert(nodes).values(name=name, **values))
    else:
        conn.execute(sa.update(nodes).where(nodes.c.name == name).values(values))
    gone = (nodes.c.lease_until == 0) & (nodes.c.seen_at < now - KEPT)
    conn.execute(sa.delete(nodes).where(gone))
    forget_with_nodes(conn, now - KEPT)
    return epoch, put_back_all(conn, _owned_by(name))


def _owned_by(name: str) -> sa.ColumnElement[bool]:
    """The rows that a node has claimed, in any of its epochs."""
    return files.c.owner.startswith(f"{name}/", autoescape=True)


def beat(conn: sa.Connection, name: str, epoch: int, lease: int, troubles: str | None = None) -> Beat:
    """Renew a node's lease, in milliseconds; `troubles`: what it has to tell of them now, None: nothing new."""
    mine = (nodes.c.name == name) & (nodes.c.epoch == epoch) & (nodes.c.lease_until > 0)
    told = {} if troubles is None else {"troubles": troubles or None}
    renewed = conn.execute(sa.update(nodes).where(mine).values(seen_at=NOW, lease_until=NOW + lease, **told))
    now, rows = _all(conn)
    for node in rows:
        if node.lease_until > 0 and node.seen_at > now + _STEP:
            _count_from_now(conn, node)
    return Beat(now, renewed.rowcount == 1, tuple(rows))


def _count_from_now(conn: sa.Connection, node: Node) -> None:
    """The clock was set back since the node's last sign of life: its lease is no longer for that."""
    this = (nodes.c.name == node.name) & (nodes.c.seen_at == node.seen_at)
    # Whoever holds the row is the node itself, or does the same.
    if conn.execute(sa.select(nodes.c.name).where(this).with_for_update(skip_locked=True)).first() is not None:
        lease = node.lease_until - node.seen_at
        conn.execute(sa.update(nodes).where(this).values(seen_at=NOW, lease_until=NOW + lease))


def take_over(conn: sa.Connection, beat: Beat) -> Beat:
    """End the leases of nodes that gave no sign of life for as long as those were: the beat, with what that brought."""
    over = [node for node in beat.nodes if 0 < node.lease_until <= beat.now]
    if not over:
        return beat
    return replace(beat, taken_over=_take_over(conn, over), over=tuple(node.name for node in over))


def lives(conn: sa.Connection, name: str, epoch: int) -> bool:
    """Whether nobody has found this epoch over; nobody does until this transaction ends."""
    mine = (nodes.c.name == name) & (nodes.c.epoch == epoch) & (nodes.c.lease_until > 0)
    return conn.execute(sa.select(nodes.c.name).where(mine).with_for_update(read=True)).first() is not None


def _all(conn: sa.Connection) -> tuple[int, list[Node]]:
    found = conn.execute(sa.select(NOW, *COLUMNS).order_by(nodes.c.name)).all()
    return (found[0][0] if found else 0), [Node(*row[1:]) for row in found]


def _take_over(conn: sa.Connection, over: Sequence[Node]) -> int:
    taken = 0
    for node in over:
        this = (nodes.c.name == node.name) & (nodes.c.epoch == node.epoch)
        # It may have come back, or another may be at it: whoever holds the row decides.
        still = sa.select(nodes.c.name).where(this, nodes.c.lease_until > 0, nodes.c.lease_until <= NOW)
        if conn.execute(still.with_for_update(skip_locked=True)).first() is None:
            continue
        owner = owner_of(node.name, node.epoch)
        postgres.end_sessions(conn, postgres.session_name(node.name))
        taken += put_back_all(conn, files.c.owner == owner)
        conn.execute(sa.update(nodes).where(this).values(lease_until=0))
    return taken


def leave(conn: sa.Connection, name: str, epoch: int) -> None:
    """End a node's epoch: what it held goes back, and nobody waits for its lease."""
    put_back_all(conn, files.c.owner == owner_of(name, epoch))
    mine = (nodes.c.name == name) & (nodes.c.epoch == epoch)
    conn.execute(sa.update(nodes).where(mine).values(lease_until=0, seen_at=NOW))


def all_nodes(conn: sa.Connection) -> list[Node]:
    """All that ever registered, by name."""
    return _all(conn)[1]


def alive(conn: sa.Connection) -> list[str]:
    """The nodes that may still work: those whose lease is not over, or whose connection holds their name."""
    now, known = _all(conn)
    return [node.name for node in known if node.lives(now) or postgres.holds_name(conn, node.name)]


def adopt(conn: sa.Connection, now: int, name: str, shared: Collection[str], own: Collection[str]) -> None:
    """Let the rows of feeds whose directory is shared by now be everybody's, and of others this node's.

    Those are the open ones, but for what other nodes work on, and those whose file was left where it was dropped, by
    which it is known again. Which feeds the node serves is kept. What was known of one that is shared by now is known
    of it as a shared one.
    """
    served = json.dumps(sorted({*shared, *own}))
    conn.execute(sa.update(nodes).where(nodes.c.name == name).values(feeds=served))
    forget_own(conn, name, shared)
    no_others = files.c.owner.is_(None) | _owned_by(name)
    for feeds, before, after in ((shared, name, ""), (own, "", name)):
        if not feeds:
            continue
        other = files.alias()
        taken = sa.exists().where(
            other.c.node == after,
            other.c.feed == files.c.feed,
            other.c.path == files.c.path,
            other.c.closed_at.is_(None),
        )
        mine = (files.c.node == before) & files.c.feed.in_(feeds)
        conn.execute(sa.update(files).where(is_open, mine, no_others, ~taken).values(node=after))
        conn.execute(sa.update(files).where(is_left, mine).values(node=after))
    _end_those_of(conn, now, name, shared)


def _end_those_of(conn: sa.Connection, now: int, name: str, shared: Collection[str]) -> None:
    """End the rows of a node whose file is everybody's under another row: nobody claims them any more."""
    was_sent = files.c.state == State.UPLOADED.value
    ended = sa.case((was_sent, State.ARCHIVED.value), else_=State.GONE.value)
    mine = (files.c.node == name) & files.c.feed.in_(shared) & files.c.owner.is_(None)
    conn.execute(sa.update(files).where(is_open, mine).values(state=ended, closed_at=now, **NO_GRANT))
