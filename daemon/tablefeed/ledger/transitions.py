"""What changes a row on its way, each change one function over a batch, run inside the caller's transaction.

A transition names in its WHERE the state that it starts from and who holds the row, so that one that comes late, or
from a node whose lease is over, changes nothing. All take `(connection, now, items)` and return one result an item, in
order.
"""

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from tablefeed.errors import DeliveryError
from tablefeed.ledger import feeds, outbox
from tablefeed.ledger.changes import (
    BACK,
    NO_GRANT,
    Closing,
    Delivery,
    Failure,
    Owner,
    Transition,
    change,
    error_values,
    held,
    put_back_all,
)
from tablefeed.ledger.prepared import Prepared
from tablefeed.ledger.schema import files, is_open, is_uploaded
from tablefeed.model import OPEN_STATES, Grant, Notice, State

_GRANTED = Prepared(held([State.UPLOADING], *NO_GRANT))


def granted(conn: sa.Connection, now: int, items: Sequence[tuple[Owner, int, Grant]]) -> list[bool]:
    """Keep the grants of rows that are being sent, so that a restart overwrites the same object."""
    rows = [
        {
            "b_id": entry_id,
            "b_owner": owner,
            "grant_url": grant.url,
            "grant_expires_at": grant.expires_at,
            "grant_lifetime_ms": round(grant.lifetime * 1000),
            "grant_headers": json.dumps({**grant.headers}) if grant.headers else "{}",
        }
        for owner, entry_id, grant in items
    ]
    return _GRANTED.each(conn, rows)


_RECEIPT = ("md5", "etag", "verified", "status", "request_id", "origin", "started_at", "finished_at")
_UPLOADED = Prepared(
    held(
        [State.UPLOADING],
        *("target", "duplicate_of", "sender", *_RECEIPT),
        state=sa.literal_column(f"'{State.UPLOADED}'"),
        due_at=sa.literal_column("0"),  # for every node at once, also for one whose clock is behind this one's
        attempts=sa.literal_column("0"),
        error=sa.null(),
        reason=sa.null(),
        **NO_GRANT,
    ).returning(files.c.node, files.c.feed)
)


_IS_UPLOADED = Prepared(
    sa.select(files.c.id).where(
        files.c.id == sa.bindparam("b_id"), is_uploaded, files.c.owner.is_not_distinct_from(sa.bindparam("b_owner"))
    )
)


def uploaded(conn: sa.Connection, now: int, items: Sequence[tuple[Owner, Delivery]]) -> list[bool]:
    """Record the store's 2xx, of this row's sending or of an earlier one of the same content.

    From here on the file is never sent, only moved.
    """
    rows = [
        {
            "b_id": item.entry_id,
            "b_owner": owner,
            "target": item.target,
            "duplicate_of": item.duplicate_of,
            "sender": None if item.duplicate_of is not None else item.node or None,
            "md5": receipt.md5,
            "etag": receipt.etag,
            "verified": receipt.verified,
            "status": receipt.status,
            "request_id": receipt.request_id,
            "origin": receipt.origin,
            "started_at": receipt.started_at,
            "finished_at": receipt.finished_at,
        }
        for owner, item in items
        for receipt in [item.receipt]
    ]
    told = [*zip(items, _UPLOADED.each_told(conn, rows), strict=True)]
    for key in {(row[0], row[1]) for (_, item), row in told if row is not None and item.duplicate_of is None}:
        feeds.delivered(conn, key)
    outbox.put(conn, now, [item.notice for (_, item), row in told if row is not None])
    return [row is not None for _, row in told]


def _uploaded_again(conn: sa.Connection, now: int, items: Sequence[tuple[Owner, Delivery]]) -> list[bool]:
    return [
        done or bool(_IS_UPLOADED.all(conn, {"b_id": item.entry_id, "b_owner": owner}))
        for (owner, item), done in zip(items, uploaded(conn, now, items), strict=True)
    ]


_WAS_SENT = files.c.duplicate_of.is_(None)
_ARCHIVED = Prepared(
    held(
        [State.UPLOADED],
        *("closed_at", "destination", "left_in_place"),
        owner=sa.null(),
        state=sa.case(
            (_WAS_SENT, sa.literal_column(f"'{State.ARCHIVED}'")),
            else_=sa.literal_column(f"'{State.SKIPPED}'"),
        ),
    )
)
_IS_ARCHIVED = Prepared(
    sa.select(files.c.id).where(
        files.c.id == sa.bindparam("b_id"),
        files.c.state.in_([sa.literal_column(f"'{state}'") for state in (State.ARCHIVED, State.SKIPPED)]),
    )
)


def archived(conn: sa.Connection, now: int, items: Sequence[tuple[Owner, Closing]]) -> list[bool]:
    """Close delivered rows after their move; False: another holds the row by now."""
    rows = [
        {
            "b_id": item.entry_id,
            "b_owner": owner,
            "closed_at": now,
            "destination": item.destination,
            "left_in_place": item.left_in_place,
        }
        for owner, item in items
    ]
    return _ARCHIVED.each(conn, rows)


def _archived_again(conn: sa.Connection, now: int, items: Sequence[tuple[Owner, Closing]]) -> list[bool]:
    return [
        done or bool(_IS_ARCHIVED.all(conn, {"b_id": item.entry_id}))
        for (_, item), done in zip(items, archived(conn, now, items), strict=True)
    ]


_REJECTED = Prepared(
    held(
        [State.UPLOADING],
        *("closed_at", "error", "reason", "failed_at"),
        state=sa.literal_column(f"'{State.REJECTED}'"),
        owner=sa.null(),
        left_in_place=sa.true(),
        **NO_GRANT,
    )
)


def rejected(
    conn: sa.Connection, now: int, items: Sequence[tuple[Owner, int, DeliveryError, Notice | None]]
) -> list[bool]:
    """Close rows whose file can never be delivered; the file is still in place until `set_aside`."""
    rows = [
        {"b_id": entry_id, "b_owner": owner, "closed_at": now, **error_values(error, now)}
        for owner, entry_id, error, _ in items
    ]
    changed = _REJECTED.each(conn, rows)
    outbox.put(conn, now, [notice for (*_, notice), done in zip(items, changed, strict=True) if done])
    return changed


_IS_REJECTED = Prepared(
    sa.select(files.c.id).where(
        files.c.id == sa.bindparam("b_id"), files.c.state == sa.literal_column(f"'{State.REJECTED}'")
    )
)


def _rejected_again(
    conn: sa.Connection, now: int, items: Sequence[tuple[Owner, int, DeliveryError, Notice | None]]
) -> list[bool]:
    return [
        done or bool(_IS_REJECTED.all(conn, {"b_id": entry_id}))
        for (_, entry_id, _, _), done in zip(items, rejected(conn, now, items), strict=True)
    ]


_SET_ASIDE = change([State.REJECTED], "destination", "left_in_place", unless=files.c.destination.is_not(None))


def set_aside(conn: sa.Connection, now: int, items: Sequence[Closing]) -> list[bool]:
    """Record where rejected files have been moved to.

    Nobody holds their rows: of two nodes that move one at the same time, the one that found nothing changes nothing.
    """
    rows = [
        {"b_id": item.entry_id, "destination": item.destination, "left_in_place": item.left_in_place} for item in items
    ]
    return _SET_ASIDE.each(conn, rows)


_GONE = Prepared(
    held(
        [State.QUEUED, State.UPLOADING],
        "closed_at",
        state=sa.literal_column(f"'{State.GONE}'"),
        owner=sa.null(),
        **NO_GRANT,
    )
)


def gone(conn: sa.Connection, now: int, items: Sequence[tuple[Owner, int]]) -> list[bool]:
    """Close rows whose version vanished before it was sent."""
    return _GONE.each(conn, [{"b_id": entry_id, "b_owner": owner, "closed_at": now} for owner, entry_id in items])


def _failing(**values: Any) -> Prepared:
    return Prepared(
        held(
            OPEN_STATES,
            *("due_at", "error", "reason", "failed_at"),
            owner=sa.null(),
            state=BACK,
            attempts=files.c.attempts + sa.literal_column("1"),
            **values,
        )
    )


_FAILED = {True: _failing(), False: _failing(**NO_GRANT)}
"""By whether the grant is kept."""


def failed(conn: sa.Connection, now: int, items: Sequence[tuple[Owner, Failure]]) -> list[bool]:
    """Put rows back: those being sent into the queue, those being moved into the wait for the next move."""
    for owner, item in items:
        row = {
            "b_id": item.entry_id,
            "b_owner": owner,
            "due_at": item.due_at,
            **error_values(item.error, now),
        }
        _FAILED[item.keep_grant].each(conn, [row])
    return [True] * len(items)


_PUT_BACK = Prepared(held(OPEN_STATES, owner=sa.null(), state=BACK))


def put_back(conn: sa.Connection, now: int, items: Sequence[tuple[Owner, int]]) -> list[bool]:
    """Give up claims of rows that were not tried, grants kept."""
    return _PUT_BACK.each(conn, [{"b_id": entry_id, "b_owner": owner} for owner, entry_id in items])


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
    return [
        put_back_all(conn, files.c.owner.is_not(None) if owner is None else files.c.owner == owner) for owner in owners
    ]


_AGAIN: dict[Transition, Transition] = {
    uploaded: _uploaded_again,
    archived: _archived_again,
    rejected: _rejected_again,
}


def again(transition: Transition) -> Transition:
    """The same after a try of which nobody knows whether it was committed, as after a lost connection.

    What that one has done counts then, where it would otherwise be taken for another's.
    """
    return _AGAIN.get(transition, transition)
