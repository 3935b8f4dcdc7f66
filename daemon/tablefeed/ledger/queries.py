"""Every question to the ledger. Each runs inside the caller's transaction and changes nothing."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from types import MappingProxyType
from typing import Any, TypeVar

import sqlalchemy as sa

from tablefeed.ledger.prepared import Prepared
from tablefeed.ledger.schema import FsPath, datasets, files, has_content, is_closed, is_left, is_open
from tablefeed.model import Entry, FileVersion, Grant, Receipt, State

T = TypeVar("T")

CHUNK = 500
"""Values named in one IN (...)."""
_LATEST = 10_000
"""Rows that are looked through for the last one of a feed."""

_ENTRY = (
    *("id", "state", "queued_at", "attempts", "failed_at", "duplicate_of"),
    *("feed", "path", "device", "inode", "size", "mtime_ns", "root_inode", "dropped_at"),
    *("grant_url", "grant_expires_at", "grant_lifetime_ms", "grant_headers"),
    *("md5", "etag", "verified", "status", "request_id", "origin", "started_at", "finished_at"),
)
ENTRY = [files.c[name] for name in _ENTRY]
"""What `entry_of` reads."""


def entry_of(row: Sequence[Any], *, claimed: bool = False) -> Entry:
    """The entry that a row of the columns `ENTRY` describes. `claimed`: the row was read just before its claim."""
    # By position, which is several times as fast as by name.
    entry_id, state, queued_at, attempts, failed_at, duplicate_of, *rest = row
    grant = None
    if rest[8] is not None:
        url, expires_at, lifetime, headers = rest[8:12]
        grant = Grant(url, expires_at, lifetime / 1000, json.loads(headers))
    size = rest[4]
    return Entry(
        id=entry_id,
        version=FileVersion(*rest[:8]),
        state=State.UPLOADING if claimed and state == "queued" else State(state),
        queued_at=queued_at,
        attempts=attempts,
        failed_at=failed_at,
        grant=grant,
        receipt=None if rest[19] is None else Receipt(size, *rest[12:20]),
        duplicate_of=duplicate_of,
    )


_SIZES = (1, 10, 100, CHUNK)
"""How many versions are asked for at a time; what is left over is filled with the last one."""

Identity = tuple[str, int, int, int]
"""Of a version within its feed: path, inode, size and mtime_ns, by which versions are compared."""


def identity(version: FileVersion) -> Identity:
    """Two versions of a feed are equal exactly where these are."""
    return version.path, version.inode, version.size, version.mtime_ns


_IDENTITY = [files.c[name] for name in ("path", "inode", "size", "mtime_ns")]
_NAMES = [f"{column.name}_{number}" for number in range(CHUNK) for column in _IDENTITY]
_MINE = (files.c.node == sa.bindparam("node", type_=sa.Text), files.c.feed == sa.bindparam("feed", type_=sa.Text))
"""Rows of a feed whose directory is on a node; empty: on all, or there is no fleet."""


@cache
def _at_paths(size: int) -> Prepared:
    """The open rows at so many paths of a feed."""
    paths = [sa.bindparam(name, type_=FsPath) for name in _NAMES[: 4 * size : 4]]
    mine = sa.select(files.c.id, files.c.state, *_IDENTITY)
    return Prepared(mine.where(is_open, *_MINE, files.c.path.in_(paths)))


@cache
def _not_among(size: int) -> Prepared:
    """The numbers of those of so many versions of a feed that are neither open nor closed and left in place."""
    named = [sa.bindparam(name, type_=_IDENTITY[index % 4].type) for index, name in enumerate(_NAMES[: 4 * size])]
    rows = [(sa.literal_column(str(number)), *named[4 * number : 4 * number + 4]) for number in range(size)]
    columns = [sa.column("number", sa.Integer), *(sa.column(it.name, it.type) for it in _IDENTITY)]
    # SQLite names the columns of values in a CTE only.
    offered = sa.values(*columns).data(rows).cte("offered")
    same = sa.and_(*_MINE, *(column == offered.c[column.name] for column in _IDENTITY))
    known = [sa.exists().where(which, same).correlate(offered) for which in (is_open, is_left)]
    return Prepared(sa.select(offered.c.number).where(*(~one for one in known)))


def open_rows(conn: sa.Connection, node: str, feed: str, paths: Sequence[str]) -> list[tuple[int, str, Identity]]:
    """(id, state, identity) of the open rows of a node's feed at these paths, whatever their version."""
    found = []
    for start in range(0, len(paths), CHUNK):
        part, size = _filled(paths[start : start + CHUNK])
        values = {"node": node, "feed": feed, **dict(zip(_NAMES[::4], part, strict=False))}
        found += [(row[0], row[1], row[2:]) for row in _at_paths(size).all(conn, values)]
    return found


def unknown(
    conn: sa.Connection, versions: Sequence[FileVersion], nodes: Mapping[str, str] = MappingProxyType({})
) -> list[FileVersion]:
    """Those versions that are neither open nor closed and left in place. `nodes`: where each feed's directory is."""
    groups = by_feed(versions)
    found = [version for feed, group in groups.items() for version in _unknown(conn, nodes.get(feed, ""), feed, group)]
    if len(groups) > 1:
        strangers = {*found}
        return [version for version in versions if version in strangers]
    return found


def _unknown(conn: sa.Connection, node: str, feed: str, versions: Sequence[FileVersion]) -> Iterator[FileVersion]:
    for start in range(0, len(versions), CHUNK):
        offered = versions[start : start + CHUNK]
        part, size = _filled(offered)
        values = dict(zip(_NAMES, chain.from_iterable(map(identity, part)), strict=False))
        numbers = sorted(number for (number,) in _not_among(size).all(conn, {"node": node, "feed": feed, **values}))
        yield from (offered[number] for number in numbers if number < len(offered))


_LEFT = Prepared(
    sa.select(files.c.id)
    .where(is_left, *_MINE, *(column == sa.bindparam(column.name, type_=column.type) for column in _IDENTITY))
    .limit(sa.literal_column("1"))
)


def left_row(conn: sa.Connection, node: str, version: FileVersion) -> int | None:
    """The id of the closed row whose file is this version and still lies where it was dropped."""
    values = dict(zip((column.name for column in _IDENTITY), identity(version), strict=True))
    return next((row[0] for row in _LEFT.all(conn, {"node": node, "feed": version.feed, **values})), None)


def _filled(part: Sequence[T]) -> tuple[list[T], int]:
    """As many as a statement takes, the last one again and again where there are fewer."""
    size = next(size for size in _SIZES if size >= len(part))
    return [*part, *[part[-1]] * (size - len(part))], size


def by_feed(versions: Sequence[FileVersion]) -> dict[str, list[FileVersion]]:
    """The versions of each feed, in their order."""
    groups: dict[str, list[FileVersion]] = {}
    for version in versions:
        groups.setdefault(version.feed, []).append(version)
    return groups


Places = Collection[str]
"""The nodes in whose directories files lie that this node may touch, the empty one among them; none: there is no fleet,
and all are."""


def _lies_in(places: Places) -> list[sa.ColumnElement[bool]]:
    return [files.c.node.in_(places)] if places else []


def feeds_due(conn: sa.Connection, places: Places, after: int, until: int) -> list[str]:
    """Feeds with an open row that becomes due in (after, until]."""
    mine = (is_open, *_lies_in(places))
    due = sa.select(files.c.feed).distinct().where(*mine, files.c.due_at > after, files.c.due_at <= until)
    return list(conn.execute(due).scalars())


def next_due(conn: sa.Connection, places: Places, after: int) -> int | None:
    """When the next open row becomes due, later than `after`."""
    mine = (is_open, *_lies_in(places))
    return conn.execute(sa.select(sa.func.min(files.c.due_at)).where(*mine, files.c.due_at > after)).scalar()


def counts(conn: sa.Connection, places: Places) -> dict[tuple[str, State], int]:
    """How many rows each feed has in each open state."""
    mine = (is_open, *_lies_in(places))
    rows = sa.select(files.c.feed, files.c.state, sa.func.count()).where(*mine).group_by(files.c.feed, files.c.state)
    return {(feed, State(state)): count for feed, state, count in conn.execute(rows)}


def open_entries(
    conn: sa.Connection, places: Places, feeds: Collection[str], limit: int
) -> list[tuple[Entry, str | None]]:
    """Open rows of these feeds with their last error in words, the longest waiting first."""
    mine = sa.select(*ENTRY, files.c.reason).where(is_open, files.c.feed.in_(feeds), *_lies_in(places))
    rows = mine.order_by(files.c.queued_at, files.c.id).limit(limit)
    return [(entry_of(row[:-1]), row[-1]) for row in conn.execute(rows)]


_REJECTED_IN_PLACE = Prepared(
    sa.select(*ENTRY, files.c.reason)
    .where(is_left, *_MINE, files.c.state == State.REJECTED.value)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)


def rejected_in_place(conn: sa.Connection, node: str, feed: str, limit: int) -> list[tuple[Entry, str]]:
    """Rejected rows of a node's feed whose file could not be moved to `failed/` yet, with their reasons."""
    rows = _REJECTED_IN_PLACE.all(conn, {"node": node, "feed": feed, "limit": limit})
    return [(entry_of(row[:-1]), row[-1] or "") for row in rows]


def last_found(conn: sa.Connection, node: str, feed: str) -> FileVersion | None:
    """The version of a node's feed that came last, if it is among the latest of all."""
    latest = sa.select(sa.func.max(files.c.id) - _LATEST).scalar_subquery()
    mine = sa.select(*ENTRY).where(files.c.id > latest, files.c.node == node, files.c.feed == feed)
    row = conn.execute(mine.order_by(files.c.id.desc()).limit(1)).first()
    return None if row is None else entry_of(row).version


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
    row = conn.execute(same).first()
    return None if row is None else entry_of(row)


def _delivered(feed: str, target: str, size: int) -> sa.Select[Any]:
    return sa.select(*ENTRY).where(has_content, files.c.feed == feed, files.c.size == size, files.c.target == target)


@dataclass(frozen=True, slots=True)
class Kept:
    """A closed row whose file still lies somewhere."""

    entry: Entry
    destination: str | None
    """Where it was archived; None: it lies where it was dropped."""
    closed_at: int


Cursor = tuple[int, int]
"""(closed_at, id) of the last row that was seen; (0, 0) before the first."""


def archived_before(
    conn: sa.Connection, places: Places, feed: str, before: int, after: Cursor, limit: int
) -> list[Kept]:
    """Files of a feed that were archived before a time and have not been removed, in the order of their end."""
    there = files.c.destination.is_not(None) & files.c.removed_at.is_(None)
    delivered = files.c.state.in_([State.ARCHIVED.value, State.SKIPPED.value])
    return _kept(conn, sa.and_(files.c.feed == feed, there, delivered, *_lies_in(places)), before, after, limit)


def left_before(conn: sa.Connection, places: Places, before: int, after: Cursor, limit: int) -> list[Kept]:
    """Files that were left where they were dropped, and closed before a time."""
    return _kept(conn, sa.and_(is_left, *_lies_in(places)), before, after, limit)


def _kept(conn: sa.Connection, which: sa.ColumnElement[bool], before: int, after: Cursor, limit: int) -> list[Kept]:
    closed_at, last_id = after
    beyond = (files.c.closed_at > closed_at) | ((files.c.closed_at == closed_at) & (files.c.id > last_id))
    rows = (
        sa.select(*ENTRY, files.c.destination, files.c.closed_at)
        .where(is_closed, files.c.closed_at < before, files.c.closed_at >= closed_at, beyond, which)
        .order_by(files.c.closed_at, files.c.id)
        .limit(limit)
    )
    return [Kept(entry_of(row[:-2]), row[-2], row[-1]) for row in conn.execute(rows)]
