"""Every question to the ledger. Each runs inside the caller's transaction and changes nothing."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tablefeed.ledger.schema import datasets, files, has_content, is_closed, is_left, is_open
from tablefeed.model import Entry, FileVersion, Grant, Receipt, State

CHUNK = 500
"""Values named in one IN (...)."""
_VERSION = (
    files.c.feed,
    files.c.path,
    files.c.device,
    files.c.inode,
    files.c.size,
    files.c.mtime_ns,
    files.c.root_inode,
    files.c.dropped_at,
)


def entry_of(row: sa.RowMapping, *, claimed: bool = False) -> Entry:
    """The entry that a row of `files` describes. `claimed`: the row was read just before its claim."""
    state = State(row["state"])
    grant = None
    if row["grant_url"] is not None:
        lifetime = row["grant_lifetime_ms"] / 1000
        grant = Grant(row["grant_url"], row["grant_expires_at"], lifetime, json.loads(row["grant_headers"]))
    receipt = None
    if row["md5"] is not None:
        receipt = Receipt(
            size=row["size"],
            md5=row["md5"],
            etag=row["etag"],
            verified=row["verified"],
            status=row["status"],
            request_id=row["request_id"],
            origin=row["origin"],
            started_at=row["started_at"],
            finished_at=row["finished_at"],
        )
    return Entry(
        id=row["id"],
        version=_version(row),
        state=State.UPLOADING if claimed and state is State.QUEUED else state,
        queued_at=row["queued_at"],
        attempts=row["attempts"],
        failed_at=row["failed_at"],
        grant=grant,
        receipt=receipt,
        duplicate_of=row["duplicate_of"],
    )


def _version(row: sa.RowMapping) -> FileVersion:
    return FileVersion(*(row[column.name] for column in _VERSION))


def open_versions(conn: sa.Connection, versions: Sequence[FileVersion]) -> Iterator[tuple[int, State, FileVersion]]:
    """(id, state, version) of the open rows at these paths, whatever their version."""
    for feed, paths in _by_feed(versions):
        at_paths = sa.select(files.c.id, files.c.state, *_VERSION).where(
            is_open, files.c.feed == feed, files.c.path.in_(paths)
        )
        for row in conn.execute(at_paths).mappings():
            yield row["id"], State(row["state"]), _version(row)


def unknown(conn: sa.Connection, versions: Sequence[FileVersion]) -> list[FileVersion]:
    """Those versions that are neither open nor closed and left in place."""
    known = {version for _, _, version in open_versions(conn, versions)}
    for feed, paths in _by_feed(versions):
        left = sa.select(*_VERSION).where(is_left, files.c.feed == feed, files.c.path.in_(paths))
        known.update(_version(row) for row in conn.execute(left).mappings())
    return [version for version in versions if version not in known]


def _by_feed(versions: Sequence[FileVersion]) -> Iterator[tuple[str, list[str]]]:
    paths: dict[str, list[str]] = {}
    for version in versions:
        paths.setdefault(version.feed, []).append(version.path)
    for feed, names in paths.items():
        for start in range(0, len(names), CHUNK):
            yield feed, names[start : start + CHUNK]


def feeds_due(conn: sa.Connection, after: int, until: int) -> list[str]:
    """Feeds with an open row that becomes due in (after, until]."""
    due = sa.select(files.c.feed).distinct().where(is_open, files.c.due_at > after, files.c.due_at <= until)
    return list(conn.execute(due).scalars())


def next_due(conn: sa.Connection, after: int) -> int | None:
    """When the next open row becomes due, later than `after`."""
    return conn.execute(sa.select(sa.func.min(files.c.due_at)).where(is_open, files.c.due_at > after)).scalar()


def counts(conn: sa.Connection) -> dict[tuple[str, State], int]:
    """How many rows each feed has in each open state."""
    rows = sa.select(files.c.feed, files.c.state, sa.func.count()).where(is_open).group_by(files.c.feed, files.c.state)
    return {(feed, State(state)): count for feed, state, count in conn.execute(rows)}


def open_entries(conn: sa.Connection, feeds: Collection[str], limit: int) -> list[tuple[Entry, str | None]]:
    """Open rows of these feeds with their last error in words, the longest waiting first."""
    mine = sa.select(files).where(is_open, files.c.feed.in_(feeds))
    rows = mine.order_by(files.c.queued_at, files.c.id).limit(limit)
    return [(entry_of(row), row["reason"]) for row in conn.execute(rows).mappings()]


def rejected_in_place(conn: sa.Connection, feed: str, limit: int) -> list[tuple[Entry, str]]:
    """Rejected rows of a feed whose file could not be moved to `failed/` yet, with their reasons."""
    rows = sa.select(files).where(is_left, files.c.feed == feed, files.c.state == State.REJECTED.value).limit(limit)
    return [(entry_of(row), row["reason"] or "") for row in conn.execute(rows).mappings()]


def dataset_of(conn: sa.Connection, base_url: str, tenant_id: str, datatable_id: str) -> str | None:
    """The dataset that was found for a datatable before."""
    key = {"base_url": base_url, "tenant_id": tenant_id, "datatable_id": datatable_id}
    return conn.execute(sa.select(datasets.c.dataset_id).filter_by(**key)).scalar()


def has_delivered(conn: sa.Connection, feed: str, target: str, size: int) -> bool:
    """Whether the feed has delivered a file of this size to the datatable."""
    return conn.execute(_delivered(feed, target, size).limit(1)).first() is not None


def delivery_of(conn: sa.Connection, feed: str, target: str, size: int, md5: str) -> Entry | None:
    """The last row of the feed that delivered this content to the datatable, itself or as a duplicate."""
    same = _delivered(feed, target, size).where(files.c.md5 == md5).order_by(files.c.id.desc()).limit(1)
    row = conn.execute(same).mappings().first()
    return None if row is None else entry_of(row)


def _delivered(feed: str, target: str, size: int) -> sa.Select[Any]:
    return sa.select(files).where(has_content, files.c.feed == feed, files.c.size == size, files.c.target == target)


@dataclass(frozen=True, slots=True)
class Kept:
    """A closed row whose file still lies somewhere."""

    entry: Entry
    destination: str | None
    """Where it was archived; None: it lies where it was dropped."""
    closed_at: int


Cursor = tuple[int, int]
"""(closed_at, id) of the last row that was seen; (0, 0) before the first."""


def archived_before(conn: sa.Connection, feed: str, before: int, after: Cursor, limit: int) -> list[Kept]:
    """Files of a feed that were archived before a time and have not been removed, in the order of their end."""
    there = files.c.destination.is_not(None) & files.c.removed_at.is_(None)
    delivered = files.c.state.in_([State.ARCHIVED.value, State.SKIPPED.value])
    return _kept(conn, sa.and_(files.c.feed == feed, there, delivered), before, after, limit)


def left_before(conn: sa.Connection, before: int, after: Cursor, limit: int) -> list[Kept]:
    """Files that were left where they were dropped, and closed before a time."""
    return _kept(conn, is_left, before, after, limit)


def _kept(conn: sa.Connection, which: sa.ColumnElement[bool], before: int, after: Cursor, limit: int) -> list[Kept]:
    closed_at, last_id = after
    beyond = (files.c.closed_at > closed_at) | ((files.c.closed_at == closed_at) & (files.c.id > last_id))
    rows = (
        sa.select(files)
        .where(is_closed, files.c.closed_at < before, files.c.closed_at >= closed_at, beyond, which)
        .order_by(files.c.closed_at, files.c.id)
        .limit(limit)
    )
    return [Kept(entry_of(row), row["destination"], row["closed_at"]) for row in conn.execute(rows).mappings()]
