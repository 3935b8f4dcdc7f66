"""How rows come into the ledger: queued, or refused from the start. Transitions like those of `transitions.py`."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from tablefeed.errors import DeliveryError
from tablefeed.ledger import feeds, outbox
from tablefeed.ledger.prepared import Prepared
from tablefeed.ledger.queries import by_feed, identity, open_rows
from tablefeed.ledger.schema import files
from tablefeed.ledger.transitions import error_values, gone
from tablefeed.model import FileVersion, Notice, State

_NEW = (
    *("feed", "path", "device", "inode", "size", "mtime_ns", "root_inode", "dropped_at"),
    *("state", "queued_at", "due_at", "attempts", "left_in_place", "error", "reason", "failed_at", "closed_at"),
)
_INSERT = sa.insert(files).values({name: sa.bindparam(name, type_=files.c[name].type) for name in _NEW})
_ADD = Prepared(_INSERT)
_ADD_TOLD = Prepared(_INSERT.returning(files.c.id))


def enqueue(conn: sa.Connection, now: int, batches: Sequence[Sequence[FileVersion]]) -> list[int]:
    """Queue settled versions; returns how many of each batch are new.

    A path whose open row is queued with another version gives that row up as `gone`; a path whose row is being sent or
    moved is left alone, since the next scan sees it again.
    """
    return [sum(_enqueue(conn, now, feed, group) for feed, group in by_feed(batch).items()) for batch in batches]


def _enqueue(conn: sa.Connection, now: int, feed: str, versions: Sequence[FileVersion]) -> int:
    by_path = {version.path: version for version in versions}
    present = {known[0]: (row_id, state, known) for row_id, state, known in open_rows(conn, feed, [*by_path])}
    fresh, replaced = [], []
    for path, version in by_path.items():
        row_id, state, known = present.get(path, (0, None, None))
        if state is not None and (state != State.QUEUED or known == identity(version)):
            continue
        fresh.append(_row(version, now, State.QUEUED))
        if state is not None:
            replaced.append(row_id)
    if fresh:
        gone(conn, now, replaced)
        _ADD.each(conn, fresh)
        feeds.arrived(conn, now, [feed])
    return len(fresh)


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
        "error": None,
        "reason": None,
        "failed_at": None,
        "closed_at": None,
    }


def refuse(
    conn: sa.Connection, now: int, items: Sequence[tuple[FileVersion, DeliveryError, Notice | None]]
) -> list[int]:
    """Record versions that can never be delivered, as rejected and still in place; returns the new ids."""
    ids = []
    for version, error, _ in items:
        present = open_rows(conn, version.feed, [version.path])
        gone(conn, now, [row_id for row_id, state, _ in present if state == State.QUEUED])
        row = _row(version, now, State.REJECTED) | error_values(error, now) | {"closed_at": now, "left_in_place": True}
        [[row_id]] = _ADD_TOLD.each_told(conn, [row])
        ids.append(row_id)
    feeds.arrived(conn, now, {version.feed for version, _, _ in items})
    outbox.put(conn, now, [notice for _, _, notice in items])
    return ids
