"""Tells the webhooks of feeds what the outbox holds for them: at least once, in order, for as long as it takes.

Each URL is a line of its own, whose events go one at a time; a receiver that is down holds up its own line and nothing
else. Delivering files never waits for any of this.
"""

import asyncio
from contextlib import suppress

import structlog

from tablefeed.announce import Announcer
from tablefeed.ledger.outbox import Bounds, Dropped
from tablefeed.news import Delivered, Item, Rejected
from tablefeed.receiver import DROPPED, Line, Means

log = structlog.get_logger("notify")

KEPT = 7 * 86_400.0
"""Seconds after which an event that nobody took is dropped."""
MOST = 100_000
"""Events of one feed that wait; the oldest of more are dropped."""
PERIOD = 3_600.0
"""Seconds between two looks for what is to be dropped."""


class Sender:
    """All lines. It costs nothing while no feed has a webhook."""

    def __init__(self, means: Means, announcer: Announcer, *, keep: float) -> None:
        """`keep`: seconds for which the ledger keeps what has happened; 0: for ever."""
        self._means = means
        self._announcer = announcer
        self._kept = min(keep or KEPT, KEPT)
        self._lines: dict[str, tuple[Line, asyncio.Task[None]]] = {}
        self._changed = asyncio.Event()
        self._serves = asyncio.Event()

    def note(self, item: Item) -> None:
        """Something has happened, and may be in the outbox by now."""
        if isinstance(item, Delivered | Rejected):
            self.wake(item.feed)

    def wake(self, feed: str) -> None:
        """There is something new in the outbox for a feed's webhook."""
        known = self._means.feeds.get(feed)
        if known and known.notify_url in self._lines:
            self._lines[known.notify_url][0].wake()

    def reload(self) -> None:
        """Feeds, and so their webhooks, may have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled. Raises an ExceptionGroup with what the ledger raises."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._announcer.run())
            while True:
                self._changed.clear()
                await self._bound()
                await self._serve(tasks)
                self._serves.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(PERIOD):
                        await self._changed.wait()

    async def flush(self, patience: float) -> None:
        """Wait up to so many seconds until all is told that can be told now. It must run."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._serves.wait()
                await self._announcer.settled()
                for line, _ in [*self._lines.values()]:
                    await line.rests.wait()

    async def _serve(self, tasks: asyncio.TaskGroup) -> None:
        """Have a line for each URL."""
        wanted: dict[str, list[str]] = {}
        for feed in self._means.feeds.values():
            if feed.notify_url:
                wanted.setdefault(feed.notify_url, []).append(feed.name)
        ended = [self._lines.pop(url)[1] for url in self._lines.keys() - wanted.keys()]
        for task in ended:
            task.cancel()
        if ended:
            await asyncio.wait(ended)
        for url, names in wanted.items():
            if url in self._lines:
                line = self._lines[url][0]
                line.feeds = tuple(names)
                line.wake()
            else:
                line = Line(url, self._means)
                line.feeds = tuple(names)
                self._lines[url] = (line, tasks.create_task(line.run(), name=f"webhook of {names[0]}"))

    async def _bound(self) -> None:
        """Drop what nobody is to be told any more, and say so."""
        served = tuple(feed.name for feed in self._means.feeds.values() if feed.notify_url)
        since = self._means.now() - round(self._kept * 1000)
        totals: dict[tuple[str, str], int] = {}
        while dropped := await self._means.outbox.bound(Bounds(served, since, MOST, limit=1_000)):
            for feed, counts in dropped.items():
                for reason, count in _reasons(counts):
                    totals[feed, reason] = totals.get((feed, reason), 0) + count
        for (feed, reason), count in totals.items():
            log.warning("webhook_dropped", feeds=(feed,), count=count, reason=reason, effect=DROPPED)


def _reasons(dropped: Dropped) -> list[tuple[str, int]]:
    told = [
        ("the feed has no notify_url any more", dropped.unserved),
        ("its receiver has not taken it for too long", dropped.old),
        (f"more than {MOST} waited", dropped.surplus),
        ("the node that was to tell it is known no more", dropped.forsaken),
    ]
    return [(reason, count) for reason, count in told if count]
