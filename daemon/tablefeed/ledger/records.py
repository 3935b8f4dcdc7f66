"""The ledger beside a running daemon: what happened to each file, and letting go of refused ones. Everything blocks.

The daemon's lock is not needed here: SQLite keeps readers and the one writer apart, and what is written here is a
transition like any other.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields

import sqlalchemy as sa

from tablefeed.errors import DiskTrouble, LedgerUnusable
from tablefeed.ledger import engine, upkeep
from tablefeed.ledger.census import Census, Delivered, census, delivered_between
from tablefeed.ledger.glance import Wanted, glance
from tablefeed.ledger.muster import Muster, Standing, muster, standing
from tablefeed.ledger.schema import files, is_closed, is_open, is_rejected
from tablefeed.model import FileVersion, State, printable


@dataclass(frozen=True, slots=True)
class Record:
    """All that is known of one file version, but for its grant. Times are Unix milliseconds."""

    id: int
    feed: str
    path: str
    device: int
    inode: int
    size: int
    mtime_ns: int
    state: str
    queued_at: int
    due_at: int
    closed_at: int | None
    attempts: int
    failed_at: int | None
    error: str | None
    reason: str | None
    md5: str | None
    etag: str | None
    verified: bool | None
    status: int | None
    request_id: str | None
    origin: str | None
    started_at: int | None
    finished_at: int | None
    destination: str | None
    left_in_place: bool
    target: str | None
    duplicate_of: int | None
    removed_at: int | None
    dropped_at: int | None
    node: str = ""
    """In whose directory the file lies; empty: there is no fleet, or all nodes share the directory."""
    sender: str | None = None
    """The node that delivered it; None: none did, or there is no fleet."""

    @property
    def version(self) -> FileVersion:
        """What identifies the file."""
        return FileVersion(self.feed, self.path, self.device, self.inode, self.size, self.mtime_ns)

    @property
    def changed_at(self) -> int:
        """When something happened to it last."""
        return self.closed_at or max(self.queued_at, self.failed_at or 0, self.finished_at or 0)


@dataclass(frozen=True, slots=True)
class Search:
    """Which records are wanted; None: all."""

    feed: str | None = None
    state: State | None = None
    since: int | None = None
    """Only what something happened to at or after this time, in Unix milliseconds."""
    ids: Sequence[int] | None = None
    node: str | None = None
    """In whose directory the files lie."""


PATIENCE = 0.5
"""Seconds that one look through the history may take."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the history, the latest first."""

    records: list[Record]
    next: int | None
    """Before which id the next page begins; None: there is nothing older."""
    complete: bool
    """False: what is older than `next` has not been looked at, although there are fewer records than were wanted."""


class Records:
    """An open ledger. All methods raise LedgerUnusable."""

    def __init__(self, connection: sa.Connection, url: str) -> None:
        """`opened` makes one."""
        self._conn = connection
        self._url = url

    def find(self, search: Search, limit: int | None = None) -> list[Record]:
        """The records that fit, the oldest first; of more than `limit` the latest."""
        latest = sa.select(*_COLUMNS).where(*_conditions(search)).order_by(files.c.id.desc()).limit(limit)
        with _told(self._url), self._conn.begin():
            return [Record(**row) for row in reversed(self._conn.execute(latest).mappings().all())]

    def page(self, wanted: Wanted, limit: int) -> Page:
        """The latest records that fit, as far as they are found within `PATIENCE`."""
        with _told(self._url), self._conn.begin():
            found = glance(self._conn, wanted, limit, time.monotonic, time.monotonic() + PATIENCE, printable)
        ids = sorted(found.ids)
        return Page(self.find(Search(ids=ids))[::-1] if ids else [], found.next, found.complete)

    def refused(self, feed: str | None = None, *, after: int = 0, limit: int | None = None) -> list[Record]:
        """Refused files that have not been put back, of one feed or all, with ids above `after`, in their order."""
        conditions = [is_rejected, _there, files.c.id > after]
        if feed is not None:
            conditions.append(files.c.feed == feed)
        with _told(self._url), self._conn.begin():
            rows = sa.select(*_COLUMNS).where(*conditions).order_by(files.c.id).limit(limit)
            return [Record(**row) for row in self._conn.execute(rows).mappings()]

    def troubled(self, limit: int) -> list[Record]:
        """Refused files that have not been put back, and open ones that have failed: the latest failures first."""
        found: list[Record] = []
        with _told(self._url), self._conn.begin():
            # One query for each partial index that knows them; by id they would be sought among all that ever were.
            for which in (is_rejected & _there, is_open & (files.c.attempts > 0)):
                latest = sa.select(*_COLUMNS).where(which).order_by(files.c.failed_at.desc()).limit(limit)
                found += [Record(**row) for row in self._conn.execute(latest).mappings()]
        return sorted(found, key=lambda record: record.failed_at or 0, reverse=True)[:limit]

    def count(self, search: Search) -> int:
        """How many records fit."""
        with _told(self._url), self._conn.begin():
            many = sa.select(sa.func.count()).select_from(files).where(*_conditions(search))
            return self._conn.execute(many).scalar_one()

    def census(self, now: int) -> Census:
        """All feeds as a whole; `now` in Unix milliseconds."""
        with _told(self._url), self._conn.begin():
            return census(self._conn, now)

    def delivered_between(self, since: int, until: int) -> list[Delivered]:
        """What was delivered in [since, until), in Unix milliseconds, by feed and minute."""
        with _told(self._url), self._conn.begin():
            return delivered_between(self._conn, since, until)

    def muster(self, most: int, besides: str = "") -> Muster:
        """At most so many nodes of the fleet, and so many files that others than `besides` work on."""
        with _told(self._url), self._conn.begin():
            return muster(self._conn, most, besides)

    def standing(self, node: str) -> Standing | None:
        """A node of the fleet, and whether it lives; None: none of that name ever registered."""
        with _told(self._url), self._conn.begin():
            return standing(self._conn, node)

    def let_go(self, entry_id: int) -> None:
        """Forget that a refused file was set aside or left in place: it lies where it was dropped, to be found."""
        with _told(self._url), self._conn.begin():
            upkeep.retried(self._conn, round(time.time() * 1000), [entry_id])


_there = files.c.destination.is_not(None) | files.c.left_in_place.is_(True)
_COLUMNS = [files.c[field.name] for field in fields(Record)]


def _conditions(search: Search) -> Iterator[sa.ColumnElement[bool]]:
    if search.feed is not None:
        yield files.c.feed == search.feed
    if search.state is not None:
        yield files.c.state == search.state.value
    if search.since is not None:
        still_open = is_open & ((files.c.queued_at >= search.since) | (files.c.failed_at >= search.since))
        yield (is_closed & (files.c.closed_at >= search.since)) | still_open
    if search.node is not None:
        yield files.c.node == search.node
    if search.ids is not None:
        yield files.c.id.in_(search.ids)


@contextmanager
def opened(url: str) -> Iterator[Records]:
    """The records of a ledger that a daemon has made, whether it runs now or not.

    Raises LedgerUnusable, with the remedy in words.
    """
    engine.assert_usable(url)
    with connected(url, engine.make_engine(url)) as connection:
        yield Records(connection, url)


@contextmanager
def connected(url: str, made: sa.Engine) -> Iterator[sa.Connection]:
    """A connection of an engine, which ends with it, to a ledger in the form that this program knows.

    Raises LedgerUnusable, also for what the database says within.
    """
    try:
        with _told(url), made.connect() as connection:
            engine.assert_current(connection, url)
            yield connection
    finally:
        made.dispose()


@contextmanager
def _told(url: str) -> Iterator[None]:
    try:
        with engine.translated(url):
            yield
    except DiskTrouble as error:
        if engine.sqlite_file(url) is None:
            raise LedgerUnusable(str(error), *engine.remedy(url, str(error))) from None
        raise LedgerUnusable(str(error), "Try again when the disk is well") from None
