"""The alarm that nothing arrives: a feed is stale when no file came for `expect_every`, and that is told once."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from tablefeed.ledger.feeds import FeedRecord
from tablefeed.model import Feed, Notice
from tablefeed.news import Item, Queued, Rejected
from tablefeed.notices import Notices
from tablefeed.status import stale_since
from tablefeed.units import iso

log = structlog.get_logger("freshness")

LONGEST_LOOK = 60.0
"""Seconds between two looks at the ledger at the most."""
_NOT_READY = 1.0
"""Seconds between two looks while directories are read for the first time."""


class Store(Protocol):
    """What the alarm needs of the ledger."""

    async def feed_records(self) -> list[FeedRecord]:
        """What is kept of all feeds."""
        ...

    async def set_stale(self, feed: str, since: int | None, notice: Notice | None = None) -> None:
        """Keep that it was told that no files arrive in a feed; None: that they do again."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of a feed. Times are Unix milliseconds."""

    stale_since: int | None = None
    """No file arrives, since then, and that was not told."""
    is_over: bool = False
    """It was told, and is so no more."""
    next_look: float = LONGEST_LOOK
    """Seconds after which that may be otherwise."""


def judge(expect_every: float, record: FeedRecord, age: float) -> Verdict:
    """Whether a feed's last file, or the feed if it never had one, is too old at `age` seconds."""
    last = record.known_at if record.arrived_at is None else record.arrived_at
    since = stale_since(expect_every, record.arrived_at, record.known_at, last + round(age * 1000))
    left = min(max(expect_every - age + 0.001, 0.01), LONGEST_LOOK) if expect_every and since is None else LONGEST_LOOK
    if record.stale_at is None:
        return Verdict(stale_since=since, next_look=left)
    if since is None:
        return Verdict(is_over=True, next_look=left)
    if (record.arrived_at or 0) > record.stale_at:
        # A file came, and none since for too long again: one after the other.
        return Verdict(is_over=True, next_look=0.01)
    return Verdict()


class Ages:
    """How long ago something happened whose time is in the ledger, however the wall clock is set meanwhile.

    What came to our notice while we ran happened between two looks, by a clock that nobody sets. What is older is told
    by the wall clock, which is all that is left of it; it is at least as old as this object, though.
    """

    def __init__(self, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        """`wall` gives Unix seconds, `steady` seconds that only grow."""
        self._wall = wall
        self._steady = steady
        self._began = self._looked = steady()
        self._seen: dict[str, tuple[int, float | None]] = {}

    def look(self, moments: Mapping[str, int]) -> dict[str, float]:
        """The ages in seconds, from Unix milliseconds by name."""
        wall, now = self._wall(), self._steady()
        ages = {}
        for name, moment in moments.items():
            known, at = self._seen.get(name, (moment, None))
            if known != moment:
                at = min(max(now - (wall - moment / 1000), self._looked), now)
            self._seen[name] = (moment, at)
            ages[name] = max(wall - moment / 1000, now - self._began) if at is None else now - at
        self._looked = now
        return ages


class Freshness:
    """Watches all feeds that have `expect_every`."""

    def __init__(
        self,
        feeds: Mapping[str, Feed],
        store: Store,
        notices: Notices,
        *,
        scanned: Callable[[str], bool],
        told: Callable[[str], None],
        wall: Callable[[], float],
        steady: Callable[[], float],
    ) -> None:
        """`scanned` says whether a feed's directory has been read, or cannot be; `told` is called with a feed for
        whose webhook there is something new. `wall` gives Unix seconds, `steady` seconds that only grow."""
        self._feeds = feeds
        self._store = store
        self._notices = notices
        self._scanned = scanned
        self._told = told
        self._wall = wall
        self._steady = steady
        self._ages = Ages(wall, steady)
        self._ready_at: dict[str, float] = {}
        self._stale: set[str] = set()
        self._woken = asyncio.Event()

    def note(self, item: Item) -> None:
        """Something has happened; a file for a feed that is stale is good news."""
        if isinstance(item, Queued | Rejected) and item.feed in self._stale:
            self._woken.set()

    def reload(self) -> None:
        """Feeds may have changed."""
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled. Raises what the ledger raises."""
        self._stale = {record.name for record in await self._store.feed_records() if record.stale_at is not None}
        while True:
            self._woken.clear()
            seconds = await self._judge_those_read()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._woken.wait()

    async def _judge_those_read(self) -> float | None:
        """Judge the feeds whose files have been taken in; returns the seconds until the next look, None: no need of it.

        What was dropped while no daemon ran has arrived as soon as it is found and settled, and not before.
        """
        expecting = [feed for feed in self._feeds.values() if feed.expect_every or feed.name in self._stale]
        now = self._steady()
        for feed in expecting:
            if feed.name not in self._ready_at and self._scanned(feed.name):
                self._ready_at[feed.name] = now + 2 * feed.settle + 1
        ready = [feed for feed in expecting if self._ready_at.get(feed.name, now + 1) <= now]
        waits = [await self.judge(ready)] if ready else []
        if len(ready) < len(expecting):
            waits.append(_NOT_READY)
        return min(waits, default=None)

    async def judge_all(self) -> None:
        """Judge every feed now: all directories have just been read."""
        await self.judge([*self._feeds.values()])

    async def judge(self, feeds: Sequence[Feed]) -> float:
        """Judge these feeds and tell what is new; returns the seconds until the next look."""
        records = {record.name: record for record in await self._store.feed_records()}
        moments = {name: it.known_at if it.arrived_at is None else it.arrived_at for name, it in records.items()}
        ages = self._ages.look(moments)
        longest = LONGEST_LOOK
        for feed in feeds:
            record = records.get(feed.name)
            if record is not None:
                verdict = judge(feed.expect_every, record, ages[feed.name])
                longest = min(longest, verdict.next_look)
                await self._act(feed, record, verdict)
        return longest

    async def _act(self, feed: Feed, record: FeedRecord, verdict: Verdict) -> None:
        if verdict.stale_since is not None:
            self._stale.add(feed.name)
            last = record.arrived_at and iso(record.arrived_at)
            log.error(
                "feed_stale",
                feed=feed.name,
                last_arrival=last,
                expect_every=feed.expect_every,
                remedy="see whether the job that exports its files runs, and whether it writes to this directory",
            )
            notice = self._notices.stale(feed, verdict.stale_since, record.arrived_at)
            await self._store.set_stale(feed.name, round(self._wall() * 1000), notice)
            self._told(feed.name)
        elif verdict.is_over:
            await self._store.set_stale(feed.name, None)
            self._stale.discard(feed.name)
            if (record.arrived_at or 0) > (record.stale_at or 0):
                log.info("feed_fresh_again", feed=feed.name)
            else:
                log.info("feed_not_overdue", feed=feed.name, reason="`expect_every` or the clock was changed")
