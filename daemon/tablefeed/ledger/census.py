"""What the ledger knows of each feed as a whole: how much is open, since when, and what was delivered."""

from dataclasses import dataclass, field

import sqlalchemy as sa

from tablefeed.ledger.feeds import FeedRecord, feed_records
from tablefeed.ledger.schema import FeedKey, files, is_closed, is_open, is_rejected
from tablefeed.model import State


@dataclass(frozen=True, slots=True)
class Backlog:
    """The open files of one feed in one state. Times are Unix milliseconds."""

    count: int = 0
    bytes: int = 0
    failing: int = 0
    """Those of them that have failed and are tried again."""
    oldest_at: int | None = None
    """When the first of them was queued."""
    next_due_at: int | None = None
    """When the first of those that wait is tried again; None: none waits."""


_NONE = Backlog()


@dataclass(frozen=True, slots=True)
class Backlogs:
    """The open files of one feed by their state. Times are Unix milliseconds."""

    queued: Backlog = _NONE
    uploading: Backlog = _NONE
    uploaded: Backlog = _NONE

    @property
    def failing(self) -> int:
        """Files that have failed and are tried again."""
        return self.queued.failing + self.uploading.failing + self.uploaded.failing

    @property
    def oldest_undelivered_at(self) -> int | None:
        """When the first of those was queued that are not delivered."""
        return min(filter(None, (self.queued.oldest_at, self.uploading.oldest_at)), default=None)

    @property
    def next_try_at(self) -> int | None:
        """When the first of those that wait is tried again, to be sent or to be moved; None: none waits."""
        return min(filter(None, (self.queued.next_due_at, self.uploaded.next_due_at)), default=None)


@dataclass(frozen=True, slots=True)
class Census:
    """All feeds at one moment."""

    open: dict[tuple[str, State], Backlog] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    """Files that were set aside and have not been put back, by feed."""
    feeds: dict[FeedKey, FeedRecord] = field(default_factory=dict)

    def backlogs(self, feed: str) -> Backlogs:
        """The open files of a feed."""
        states = (State.QUEUED, State.UPLOADING, State.UPLOADED)
        return Backlogs(*(self.open.get((feed, state), _NONE) for state in states))


def _sum(what: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """PostgreSQL's sums of large numbers are decimals."""
    return sa.cast(sa.func.sum(what), sa.BigInteger)


def census(conn: sa.Connection, now: int) -> Census:
    """Count all open and refused files; `now` in Unix milliseconds."""
    waiting = sa.case((files.c.due_at > now, files.c.due_at))
    failing = _sum(sa.case((files.c.attempts > 0, 1), else_=0))
    by_state = (
        sa.select(
            files.c.feed,
            files.c.state,
            sa.func.count(),
            _sum(files.c.size),
            failing,
            sa.func.min(files.c.queued_at),
            sa.func.min(waiting),
        )
        .where(is_open)
        .group_by(files.c.feed, files.c.state)
    )
    there = files.c.destination.is_not(None) | files.c.left_in_place.is_(True)
    refused = sa.select(files.c.feed, sa.func.count()).where(is_rejected, there).group_by(files.c.feed)
    return Census(
        open={(row[0], State(row[1])): Backlog(*row[2:]) for row in conn.execute(by_state)},
        refused={row[0]: row[1] for row in conn.execute(refused)},
        feeds={(record.node, record.name): record for record in feed_records(conn)},
    )


@dataclass(frozen=True, slots=True)
class Delivered:
    """What was delivered of one feed in one minute."""

    feed: str
    minute: int
    """Unix minutes."""
    files: int
    bytes: int


def delivered_between(conn: sa.Connection, since: int, until: int) -> list[Delivered]:
    """What was delivered in [since, until), in Unix milliseconds, by feed and minute. What was skipped was not sent."""
    minute = files.c.finished_at // 60_000
    delivered = (
        files.c.status.is_not(None),
        files.c.duplicate_of.is_(None),
        files.c.finished_at >= since,
        files.c.finished_at < until,
    )
    found = []
    # A delivered file is closed after its delivery, so the index on `closed_at` leads to all that can be meant.
    for which in (is_closed & (files.c.closed_at >= since), is_open):
        rows = sa.select(files.c.feed, minute, sa.func.count(), _sum(files.c.size))
        found += [Delivered(*row) for row in conn.execute(rows.where(which, *delivered).group_by(files.c.feed, minute))]
    return found
