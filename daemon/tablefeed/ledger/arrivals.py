"""How rows come into the ledger: queued, or refused from the start. Transitions like those of `transitions.py`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from tablefeed.errors import DeliveryError
from tablefeed.ledger import feeds, outbox, postgres
from tablefeed.ledger.changes import error_values
from tablefeed.ledger.messages import Queued, written
from tablefeed.ledger.prepared import Prepared
from tablefeed.ledger.queries import by_feed, identity, left_row, open_rows
from tablefeed.ledger.schema import files
from tablefeed.ledger.transitions import gone
from tablefeed.model import FileVersion, Notice, State

_NEW = (
    *("node", "feed", "path", "device", "inode", "size", "mtime_ns", "root_inode", "dropped_at"),
    *("state", "queued_at", "due_at", "attempts", "left_in_place", "error", "reason", "failed_at", "closed_at"),
)
_INSERT = insert(files).values({name: sa.bindparam(name, type_=files.c[name].type) for name in _NEW})
_ADD = Prepared(_INSERT.on_conflict_do_nothing())


@dataclass(frozen=True, slots=True)
class Found:
    """Versions, and on which node the directory of each feed is; empty: on all, or there is no fleet."""

    versions: Sequence[FileVersion]
    nodes: Mapping[str, str] = field(default_factory=dict)

    def by_feed(self) -> Iterator[tuple[str, str, list[FileVersion]]]:
        """(node, feed, versions), feed by feed."""
        for feed, versions in by_feed(self.versions).items():
            yield self.nodes.get(feed, ""), feed, versions


def enqueue(conn: sa.Connection, now: int, batches: Sequence[Found]) -> list[int]:
    """Queue settled versions; returns how many of each batch are new.

    A path whose open row is queued with another version gives that row up as `gone`; a path whose row is being sent or
    moved is left alone, since the next scan sees it again.
    """
    return [sum(_enqueue(conn, now, *group) for group in batch.by_feed()) for batch in batches]


def _enqueue(conn: sa.Connection, now: int, node: str, feed: str, versions: Sequence[FileVersion]) -> int:
    by_path = {version.path: version for version in versions}
    present = {known[0]: (row_id, state, known) for row_id, state, known in open_rows(conn, node, feed, [*by_path])}
    fresh, replaced = [], []
    for path, version in by_path.items():
        row_id, state, known = present.get(path, (0, None, None))
        if state is not None and (state != State.QUEUED or known == identity(version)):
            continue
        fresh.append(_row(node, version, now, State.QUEUED))
        if state is not None:
            replaced.append(row_id)
    if not fresh:
        return 0
    gone(conn, now, [(None, row_id) for row_id in replaced])
    # Another node may have seen the same file in this instant.
    count = sum(_ADD.each(conn, fresh))
    feeds.arrived(conn, (node, feed))
    if postgres.is_postgres(conn) and not node:
        postgres.notify(conn, written(Queued(feed)))
    return count


def _row(node: str, version: FileVersion, now: int, state: State) -> dict[str, Any]:
    return {
        "node": node,
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


_ADD_REFUSED = Prepared(_INSERT.returning(files.c.id))


def refuse(
    conn: sa.Connection, now: int, items: Sequence[tuple[str, FileVersion, DeliveryError, Notice | None]]
) -> list[int]:
    """Record versions of a node that can never be delivered, as rejected and still in place; returns the ids."""
    ids = []
    for node, version, error, notice in items:
        known = left_row(conn, node, version)
        if known is not None:
            ids.append(known)
            continue
        present = open_rows(conn, node, version.feed, [version.path])
        gone(conn, now, [(None, row_id) for row_id, state, _ in present if state == State.QUEUED])
        fresh = _row(node, version, now, State.REJECTED) | error_values(error, now)
        [[row_id]] = _ADD_REFUSED.each_told(conn, [fresh | {"closed_at": now, "left_in_place": True}])
        ids.append(row_id)
        feeds.arrived(conn, (node, version.feed))
        outbox.put(conn, now, [notice])
    return ids
