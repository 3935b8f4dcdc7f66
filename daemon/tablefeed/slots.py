"""Upload slots, shared fairly: feeds of the highest priority first, and among equals in turn."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass


class Draining(Exception):  # noqa: N818 - not an error: the daemon ends and no new upload may start
    """No slot is given any more."""


@dataclass(frozen=True, slots=True)
class Share:
    """A feed's claim on the slots. `limit` 0: only the global limit."""

    limit: int
    priority: int


def choose(waiting: Mapping[str, int], busy: Mapping[str, int], shares: Mapping[str, Share]) -> str | None:
    """The feed that gets the next free slot, or None when none that waits may have one.

    `waiting` maps feeds to how long ago, in turns, they were served last (larger: longer ago); `busy` to slots in use.
    """
    allowed = [feed for feed in waiting if not shares[feed].limit or busy.get(feed, 0) < shares[feed].limit]
    return max(allowed, key=lambda feed: (shares[feed].priority, waiting[feed]), default=None)


class FairSlots:
    """At most `limit` holders at a time, and of each feed at most its own limit."""

    def __init__(self, limit: int, share: Callable[[str], Share]) -> None:
        """`share` tells a feed's limit and priority."""
        self._limit = limit
        self._share = share
        self._busy: dict[str, int] = {}
        self._waiters: dict[str, deque[asyncio.Future[None]]] = {}
        self._served: dict[str, int] = {}
        self._turn = 0
        self._draining = False

    @property
    def busy(self) -> int:
        """Slots in use."""
        return sum(self._busy.values())

    @asynccontextmanager
    async def slot(self, feed: str) -> AsyncIterator[None]:
        """Hold a slot for a feed.

        Raises Draining once `drain` was called, also to those who wait.
        """
        await self._acquire(feed)
        try:
            yield
        finally:
            self._busy[feed] -= 1
            self._hand_out()

    def drain(self) -> None:
        """Give no more slots; holders keep theirs."""
        self._draining = True
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(Draining)
        self._waiters.clear()

    async def _acquire(self, feed: str) -> None:
        if self._draining:
            raise Draining
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(feed, deque()).append(waiter)
        self._hand_out()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._busy[feed] -= 1
                self._hand_out()
            raise

    def _hand_out(self) -> None:
        while self.busy < self._limit:
            waiting = {feed: self._turn - self._served.get(feed, -1) for feed in self._waiters}
            feed = choose(waiting, self._busy, {name: self._share(name) for name in waiting})
            if feed is None:
                return
            waiters = self._waiters[feed]
            waiter = waiters.popleft()
            if not waiters:
                del self._waiters[feed]
            if waiter.done():
                continue
            self._turn += 1
            self._served[feed] = self._turn
            self._busy[feed] = self._busy.get(feed, 0) + 1
            waiter.set_result(None)
