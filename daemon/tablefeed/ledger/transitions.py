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
from tablefeed.ledger.prepared import Prepared
from tablefeed.ledger.queries import CHUNK
from tablefeed.ledger.schema import files, is_open
from tablefeed.model import OPEN_STATES, Grant, Notice, Receipt, State

_NO_GRANT: dict[str, Any] = {
    name: sa.null() for name in ("grant_url", "grant_expires_at", "grant_lifetime_ms", "grant_headers")
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


def change(states: Sequence[State], *names: str, **values: Any) -> Prepared:
    """Change the row `b_id` if it is in one of these states: columns of these names to parameters of the same names."""
    return Prepared(_change(states, *names, **values))


def _change(states: Sequence[State], *names: str, **values: Any) -> sa.Update:
    fits = files.c.state.in_([sa.literal_column(f"'{state.value}'") for state in states])
    given = {name: sa.bindparam(name, type_=files.c[name].type) for name in names}
    return sa.update(files).where(files.c.id == sa.bindparam("b_id"), fits).values(given | values)


def error_values(error: DeliveryError, now: int) -> dict[str, Any]:
    """What a row keeps of an error."""
    return {"error": type(error).__name__, "reason": str(error), "failed_at": now}


_GRANTED = change([State.UPLOADING], *_NO_GRANT)


def granted(conn: sa.Connection, now: int, items: Sequence[tuple[int, Grant]]) -> list[bool]:
    """Keep the grants of rows that are being sent, so that a restart overwrites the same object."""
    rows = [
        {
            "b_id": entry_id,
            "grant_url": grant.url,
            "grant_expires_at": grant.expires_at,
            "grant_lifetime_ms": round(grant.lifetime * 1000),
            "grant_headers": json.dumps({**grant.headers}) if grant.headers else "{}",
        }
        for entry_id, grant in items
    ]
    return _GRANTED.each(conn, rows)


_RECEIPT = ("md5", "etag", "verified", "status", "request_id", "origin", "started_at", "finished_at")
_UPLOADED = Prepared(
    _change(
        [State.UPLOADING],
        *("target", "duplicate_of", "due_at", *_RECEIPT),
        state=sa.literal_column(f"'{State.UPLOADED}'"),
        attempts=sa.literal_column("0"),
        error=sa.null(),
        reason=sa.null(),
        **_NO_GRANT,
    ).returning(files.c.feed)
)


def uploaded(conn: sa.Connection, now: int, items: Sequence[Delivery]) -> list[bool]:
    """Record the store's 2xx, of this row's sending or of an earlier one of the same content.

    From here on the file is never sent, only moved.
    """
    rows = [
        {
            "b_id": item.entry_id,
            "target": item.target,
            "duplicate_of": item.duplicate_of,
            "due_at": now,
            "md5": receipt.md5,
            "etag": receipt.etag,
            "verified": receipt.verified,
            "status": receipt.status,
            "request_id": receipt.request_id,
            "origin": receipt.origin,
            "started_at": receipt.started_at,
            "finished_at": receipt.finished_at,
        }
        for item in items
        for receipt in [item.receipt]
    ]
    told = [*zip(items, _UPLOADED.each_told(conn, rows), strict=True)]
    feeds.delivered(conn, now, {row[0] for item, row in told if row is not None and item.duplicate_of is None})
    outbox.put(conn, now, [item.notice for item, row in told if row is not None])
    return [row is not None for _, row in told]


_WAS_SENT = files.c.duplicate_of.is_(None)
_ARCHIVED = change(
    [State.UPLOADED],
    *("closed_at", "destination", "left_in_place"),
    owner=sa.null(),
    state=sa.case(
        (_WAS_SENT, sa.literal_column(f"'{State.ARCHIVED}'")),
        else_=sa.literal_column(f"'{State.SKIPPED}'"),
    ),
)


def archived(conn: sa.Connection, now: int, items: Sequence[Closing]) -> list[bool]:
    """Close delivered rows after their move."""
    rows = [
        {
            "b_id": item.entry_id,
            "closed_at": now,
            "destination": item.destination,
            "left_in_place": item.left_in_place,
        }
        for item in items
    ]
    return _ARCHIVED.each(conn, rows)


_REJECTED = change(
    [State.UPLOADING],
    *("closed_at", "error", "reason", "failed_at"),
    state=sa.literal_column(f"'{State.REJECTED}'"),
    owner=sa.null(),
    left_in_place=sa.true(),
    **_NO_GRANT,
)


def rejected(conn: sa.Connection, now: int, items: Sequence[tuple[int, DeliveryError, Notice | None]]) -> list[bool]:
    """Close rows whose file can never be delivered; the file is still in place until `set_aside`."""
    rows = [{"b_id": entry_id, "closed_at": now, **error_values(error, now)} for entry_id, error, _ in items]
    changed = _REJECTED.each(conn, rows)
    outbox.put(conn, now, [notice for (_, _, notice), done in zip(items, changed, strict=True) if done])
    return changed


_SET_ASIDE = change([State.REJECTED], "destination", "left_in_place")


def set_aside(conn: sa.Connection, now: int, items: Sequence[Closing]) -> list[bool]:
    """Record where rejected files have been moved to."""
    rows = [
        {"b_id": item.entry_id, "destination": item.destination, "left_in_place": item.left_in_place} for item in items
    ]
    return _SET_ASIDE.each(conn, rows)


_GONE = change(
    [State.QUEUED, State.UPLOADING],
    "closed_at",
    state=sa.literal_column(f"'{State.GONE}'"),
    owner=sa.null(),
    **_NO_GRANT,
)


def gone(conn: sa.Connection, now: int, ids: Sequence[int]) -> list[bool]:
    """Close rows whose version vanished before it was sent."""
    return _GONE.each(conn, [{"b_id": entry_id, "closed_at": now} for entry_id in ids])


def _failing(**values: Any) -> Prepared:
    return change(
        OPEN_STATES,
        *("due_at", "error", "reason", "failed_at"),
        owner=sa.null(),
        state=_BACK,
        attempts=files.c.attempts + sa.bindparam("counted", type_=sa.Integer),
        **values,
    )


_FAILED = {True: _failing(), False: _failing(**_NO_GRANT)}
"""By whether the grant is kept."""


def failed(conn: sa.Connection, now: int, items: Sequence[Failure]) -> list[bool]:
    """Put rows back: those being sent into the queue, those being moved into the wait for the next move."""
    for item in items:
        row = {
            "b_id": item.entry_id,
            "due_at": item.due_at,
            "counted": int(item.counts),
            **error_values(item.error, now),
        }
        _FAILED[item.keep_grant].each(conn, [row])
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
