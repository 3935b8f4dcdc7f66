"""Every change of the ledger, each one function over a batch, run inside the caller's transaction.

A transition names the state that it starts from in its WHERE, so that one that comes late changes nothing. All take
`(connection, now, items)` and return one result an item, in order.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tablefeed.errors import DeliveryError
from tablefeed.ledger import feeds, outbox
from tablefeed.ledger.queries import CHUNK, open_versions
from tablefeed.ledger.schema import files, is_open
from tablefeed.model import FileVersion, Grant, Notice, Receipt, State

FORGET_GRANT: dict[str, Any] = {
    "grant_url": None,
    "grant_expires_at": None,
    "grant_lifetime_ms": None,
    "grant_headers": None,
}


@dataclass(frozen=True, slots=True)
class Delivery:
    """A row whose content is at the store."""

    entry_id: int
    receipt: Receipt
    target: str | None = None
    """The datatable that has it."""
    duplicate_of: int | None = None
    """The row that delivered it, where this one was not sent itself."""
    notice: Notice | None = None
    """What the feed's webhook is to be told of it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed try, and when the next may come."""

    entry_id: int
    error: DeliveryError
    due_at: int
    counts: bool
    """Whether it counts as an attempt of this file, or was nobody's fault (an expired grant, a paused feed)."""
    keep_grant: bool


@dataclass(frozen=True, slots=True)
class Closing:
    """A row that ends: where the file lies now, or that it was left in its drop directory."""

    entry_id: int
    destination: str | None = None
    left_in_place: bool = False


_BACK = sa.case((files.c.state == State.UPLOADING.value, State.QUEUED.value), else_=files.c.state)
"""The state of a row that nobody works on any more."""

Transition = Callable[[sa.Connection, int, Any], list[Any]]


def enqueue(conn: sa.Connection, now: int, batches: Sequence[Sequence[FileVersion]]) -> list[int]:
    """Queue settled versions; returns how many of each batch are new.

    A path whose open row is queued with another version gives that row up as `gone`; a path whose row is being sent or
    moved is left alone, since the next scan sees it again.
    """
    counts = []
    for versions in batches:
        present = {(v.feed, v.path): (row_id, state, v) for row_id, state, v in open_versions(conn, versions)}
        fresh, replaced = [], []
        for version in {(v.feed, v.path): v for v in versions}.values():
            row_id, state, known = present.get((version.feed, version.path), (0, None, None))
            if known == version or state in (State.UPLOADING, State.UPLOADED):
                continue
            fresh.append(version)
            if state is State.QUEUED:
                replaced.append(row_id)
        gone(conn, now, replaced)
        if fresh:
            conn.execute(sa.insert(files), [_row(version, now, State.QUEUED) for version in fresh])
            feeds.arrived(conn, now, {version.feed for version in fresh})
        counts.append(len(fresh))
    return counts


def _row(version: FileVersion, now: int, state: State) -> dict[str, Any]:
    return {
        "feed": version.feed,
        "path": version.path,
        "device": version.device,
        "inode": version.inode,
        "size": version.size,
        "mtime_ns": version.mtime_ns,
        "root_inode": version.root,
        "dropped_at": version.dropped_at,
        "state": state.value,
        "queued_at": now,
        "due_at": now,
        "attempts": 0,
        "left_in_place": False,
    }


def refuse(
    conn: sa.Connection, now: int, items: Sequence[tuple[FileVersion, DeliveryError, Notice | None]]
) -> list[int]:
    """Record versions that can never be delivered, as rejected and still in place; returns the new ids."""
    ids = []
    for version, error, _ in items:
        replaced = [i for i, state, _ in open_versions(conn, [version]) if state is State.QUEUED]
        gone(conn, now, replaced)
        row = _row(version, now, State.REJECTED) | _error(error, now) | {"closed_at": now, "left_in_place": True}
        ids.append(conn.execute(sa.insert(files).returning(files.c.id), row).scalar_one())
    feeds.arrived(conn, now, {version.feed for version, _, _ in items})
    outbox.put(conn, now, [notice for _, _, notice in items])
    return ids


def _error(error: DeliveryError, now: int) -> dict[str, Any]:
    return {"error": type(error).__name__, "reason": str(error), "failed_at": now}


def granted(conn: sa.Connection, now: int, items: Sequence[tuple[int, Grant]]) -> list[bool]:
    """Keep the grants of rows that are being sent, so that a restart overwrites the same object."""
    rows = [
        {
            "b_id": entry_id,
            "grant_url": grant.url,
            "grant_expires_at": grant.expires_at,
            "grant_lifetime_ms": round(grant.lifetime * 1000),
            "grant_headers": json.dumps(dict(grant.headers)),
        }
        for entry_id, grant in items
    ]
    return update(conn, rows, State.UPLOADING)


def uploaded(conn: sa.Connection, now: int, items: Sequence[Delivery]) -> list[bool]:
    """Record the store's 2xx, of this row's sending or of an earlier one of the same content.

    From here on the file is never sent, only moved.
    """
    rows = [
        {
            "b_id": item.entry_id,
            "state": State.UPLOADED.value,
            "target": item.target,
            "duplicate_of": item.duplicate_of,
            "due_at": now,
            "attempts": 0,
            "error": None,
            "reason": None,
            "md5": receipt.md5,
            "etag": receipt.etag,
            "verified": receipt.verified,
            "status": receipt.status,
            "request_id": receipt.request_id,
            "origin": receipt.origin,
            "started_at": receipt.started_at,
            "finished_at": receipt.finished_at,
            **FORGET_GRANT,
        }
        for item in items
        for receipt in [item.receipt]
    ]
    changed = update(conn, rows, State.UPLOADING)
    sent = [item.entry_id for item, done in zip(items, changed, strict=True) if done and item.duplicate_of is None]
    feeds.delivered(conn, now, sent)
    outbox.put(conn, now, [item.notice for item, done in zip(items, changed, strict=True) if done])
    return changed


def archived(conn: sa.Connection, now: int, items: Sequence[Closing]) -> list[bool]:
    """Close delivered rows after their move."""
    rows = [
        {
            "b_id": item.entry_id,
            "closed_at": now,
            "owner": None,
            "destination": item.destination,
            "left_in_place": item.left_in_place,
        }
        for item in items
    ]
    sent = files.c.duplicate_of.is_(None)
    return update(conn, rows, State.UPLOADED, state=sa.case((sent, State.ARCHIVED.value), else_=State.SKIPPED.value))


def rejected(conn: sa.Connection, now: int, items: Sequence[tuple[int, DeliveryError, Notice | None]]) -> list[bool]:
    """Close rows whose file can never be delivered; the file is still in place until `set_aside`."""
    rows = [
        {
            "b_id": entry_id,
            "state": State.REJECTED.value,
            "closed_at": now,
            "owner": None,
            "left_in_place": True,
            **FORGET_GRANT,
            **_error(error, now),
        }
        for entry_id, error, _ in items
    ]
    changed = update(conn, rows, State.UPLOADING)
    outbox.put(conn, now, [notice for (_, _, notice), done in zip(items, changed, strict=True) if done])
    return changed


def set_aside(conn: sa.Connection, now: int, items: Sequence[Closing]) -> list[bool]:
    """Record where rejected files have been moved to."""
    rows = [
        {"b_id": item.entry_id, "destination": item.destination, "left_in_place": item.left_in_place} for item in items
    ]
    return update(conn, rows, State.REJECTED)


def gone(conn: sa.Connection, now: int, ids: Sequence[int]) -> list[bool]:
    """Close rows whose version vanished before it was sent."""
    rows = [
        {"b_id": entry_id, "state": State.GONE.value, "closed_at": now, "owner": None, **FORGET_GRANT}
        for entry_id in ids
    ]
    return update(conn, rows, State.QUEUED, State.UPLOADING)


def failed(conn: sa.Connection, now: int, items: Sequence[Failure]) -> list[bool]:
    """Put rows back: those being sent into the queue, those being moved into the wait for the next move."""
    for item in items:
        values: dict[str, Any] = {"owner": None, "due_at": item.due_at, **_error(item.error, now)}
        if item.counts:
            values["attempts"] = files.c.attempts + 1
        if not item.keep_grant:
            values |= FORGET_GRANT
        conn.execute(sa.update(files).where(files.c.id == item.entry_id, is_open).values(state=_BACK, **values))
    return [True] * len(items)


def put_back(conn: sa.Connection, now: int, ids: Sequence[int]) -> list[None]:
    """Give up claims of rows that were not tried, grants kept."""
    for start in range(0, len(ids), CHUNK):
        mine = files.c.id.in_(ids[start : start + CHUNK])
        conn.execute(sa.update(files).where(mine, is_open).values(state=_BACK, owner=None))
    return [None] * len(ids)


def bring_forward(conn: sa.Connection, now: int, items: Sequence[int]) -> list[None]:
    """Let open rows that wait become due so many milliseconds earlier: the clock has been set back by that."""
    for milliseconds in items:
        waiting = is_open & (files.c.due_at > now)
        conn.execute(sa.update(files).where(waiting).values(due_at=files.c.due_at - milliseconds))
    return [None] * len(items)


def bound_waits(conn: sa.Connection, now: int, items: Sequence[int]) -> list[None]:
    """Let open rows become due that wait for longer than any wait is: the clock was ahead when they were written."""
    for longest in items:
        conn.execute(sa.update(files).where(is_open, files.c.due_at > now + longest).values(due_at=now))
    return [None] * len(items)


def release(conn: sa.Connection, now: int, owners: Sequence[str | None]) -> list[int]:
    """Put back all that these owners (None: anybody) hold, grants kept: at start and at the end of a drain."""
    counts = []
    for owner in owners:
        held = is_open & (files.c.owner.is_not(None) if owner is None else files.c.owner == owner)
        counts.append(conn.execute(sa.update(files).where(held).values(state=_BACK, owner=None)).rowcount)
    return counts


def update(
    conn: sa.Connection, rows: list[dict[str, Any]], *states: State, **computed: sa.ColumnElement[Any]
) -> list[bool]:
    """Update rows (all of one shape) by `b_id` where they are in one of `states`; `computed` is the same for all.

    Returns whether each row changed.
    """
    if not rows:
        return []
    ids = [row["b_id"] for row in rows]
    values = computed | {name: sa.bindparam(name) for name in rows[0] if name != "b_id"}
    statement = (
        sa.update(files)
        .where(files.c.id == sa.bindparam("b_id"), sa.or_(*(files.c.state == s.value for s in states)))
        .values(values)
    )
    present = _ids_in(conn, ids, states)
    if present:
        conn.execute(statement, [row for row in rows if row["b_id"] in present])
    return [entry_id in present for entry_id in ids]


def _ids_in(conn: sa.Connection, ids: list[int], states: Sequence[State]) -> set[int]:
    wanted = [state.value for state in states]
    found: set[int] = set()
    for start in range(0, len(ids), CHUNK):
        chunk = files.c.id.in_(ids[start : start + CHUNK])
        found.update(conn.execute(sa.select(files.c.id).where(chunk, files.c.state.in_(wanted))).scalars())
    return found
