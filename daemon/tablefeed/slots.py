"""Upload slots, shared fairly: feeds of the highest priority first, and among equals in turn.

Their number is configured, or found by trying, for each store of its own: one that takes few holds up no other.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

import structlog

from tablefeed.adaptive import LARGE, MOST, SMALL, START, Adaptive, Outcome, Trial

log = structlog.get_logger("slots")

_TOLD_EVERY = 60.0
"""Seconds between two lines of the log that tell of a limit that falls."""
_STORES = 100
"""Stores that are remembered while nothing is sent to them."""


class Draining(Exception):  # noqa: N818 - not an error: the daemon ends and no new upload may start
    """No slot is given any more."""


@dataclass(frozen=True, slots=True)
class Share:
    """A feed's claim on the slots. `limit` 0: only the global limit."""

    limit: int
    priority: int


@dataclass(slots=True)
class Store:
    """Where uploads go to."""

    origin: str
    adaptive: Adaptive
    busy: int = 0
    told_at: float = float("-inf")


@dataclass(order=True, slots=True)
class _Turn:
    """A feed that waits. The least is the next one: the highest priority, then who was served the longest ago."""

    rank: tuple[int, int, int]
    feed: str


class Slot:
    """What the holder of a slot tells of its upload."""

    def __init__(
        self, feed: str, store: Store, trial: Trial, note: "Callable[[Slot, Outcome, float | None], None]"
    ) -> None:
        """`note` is told how the trial goes."""
        self.feed = feed
        self.store = store
        self.trial = trial
        self._note = note
        self._ended = False

    def comes(self) -> None:
        """The store lets the body come."""
        if not self._ended:
            self._note(self, Outcome.COMES, None)

    def answered(self, latency: float | None) -> None:
        """The store took it, and answered so many seconds after the last byte."""
        self._end(Outcome.ANSWERED, latency)

    def refused(self) -> None:
        """The store wants fewer at a time."""
        self._end(Outcome.REFUSED, None)

    def end(self) -> None:
        """The upload is over, whatever became of it."""
        self._end(Outcome.FAILED, None)

    def _end(self, outcome: Outcome, latency: float | None) -> None:
        if not self._ended:
            self._ended = True
            self._note(self, outcome, latency)


@dataclass(eq=False, slots=True)
class _Waiter:
    given: asyncio.Future[Slot]
    feed: str
    store: Store
    size: int


class FairSlots:
    """At most `limit` holders at a time, of each feed at most its own limit, and of each store what it takes."""

    def __init__(
        self,
        limit: int | None,
        share: Callable[[str], Share],
        *,
        clock: Callable[[], float],
        grown: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`limit`: uploads at a time; None: as many as the stores take.

        `share` tells a feed's limit and priority. `clock` gives seconds that only grow. `grown` is told the feed whose
        upload has shown that more may run.
        """
        self._fixed = limit
        self._share = share
        self._clock = clock
        self._grown = grown
        self._busy: Counter[str] = Counter()
        self.busy = 0
        """Slots in use."""
        self._stores: dict[str, Store] = {}
        self._store_of: dict[str, Store] = {}
        """Where each feed's files went last."""
        self._waiters: dict[str, deque[_Waiter]] = {}
        self._turns: list[_Turn] = []
        """A heap with one entry for each feed in `_waiters`."""
        self._served: dict[str, int] = {}
        self._turn = 0
        self._arrivals = count()
        self._draining = False

    @property
    def limit(self) -> int:
        """Uploads that may run at a time now."""
        if self._fixed is not None:
            return self._fixed
        limits = [store.adaptive.limit for store in self._stores.values()]
        return min(sum(limits) or START, MOST)

    @property
    def soon(self) -> int:
        """Uploads that may run at a time before long, which is what files are to be claimed for.

        A limit that is being found may double with the next answer, and claims for a few are many claims.
        """
        return max(self.limit, LARGE) if self.is_automatic else self.limit

    @property
    def is_automatic(self) -> bool:
        """Whether the limit is found by trying."""
        return self._fixed is None

    def stores(self) -> Iterable[tuple[str, int]]:
        """The origin of each store and how many uploads it takes at a time, where that is found by trying."""
        return [(store.origin, store.adaptive.limit) for store in self._stores.values()] if self.is_automatic else []

    def most_of(self, feed: str) -> int:
        """Uploads of the feed that may run at a time, as far as its store is concerned; 0: no fewer than of others."""
        store = self._store_of.get(feed)
        return store.adaptive.limit if self.is_automatic and store and len(self._stores) > 1 else 0

    def change(self, limit: int | None) -> None:
        """Have another limit from now on, as in the constructor. Holders keep their slots."""
        self._fixed = limit
        self._hand_out()
        for feed in self._store_of:
            self._grown(feed)

    @asynccontextmanager
    async def slot(self, feed: str, origin: str, size: int) -> AsyncIterator[Slot]:
        """Hold a slot to send a file of so many bytes.

        Raises Draining once `drain` was called, also to those who wait.
        """
        slot = await self._acquire(feed, origin, size)
        try:
            yield slot
        finally:
            self._release(slot)

    def drain(self) -> None:
        """Give no more slots; holders keep theirs."""
        self._draining = True
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.given.done():
                    waiter.given.set_exception(Draining)
        self._waiters.clear()
        self._turns.clear()

    def _store(self, feed: str, origin: str) -> Store:
        store = self._stores.get(origin)
        if store is None:
            if len(self._stores) >= _STORES:
                kept = {id(waiter.store) for waiters in self._waiters.values() for waiter in waiters}
                self._stores = {o: s for o, s in self._stores.items() if s.busy or id(s) in kept}
            store = self._stores[origin] = Store(origin, Adaptive())
        self._store_of[feed] = store
        return store

    async def _acquire(self, feed: str, origin: str, size: int) -> Slot:
        if self._draining:
            raise Draining
        given: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(feed, deque())
        waiters.append(_Waiter(given, feed, self._store(feed, origin), size))
        if len(waiters) == 1:
            self._line_up(feed)
        self._hand_out()
        try:
            return await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled() and given.exception() is None:
                self._release(given.result())
            raise

    def _release(self, slot: Slot) -> None:
        self._busy[slot.feed] -= 1
        slot.store.busy -= 1
        self.busy -= 1
        slot.end()
        self._hand_out()

    def _line_up(self, feed: str) -> None:
        rank = (-self._share(feed).priority, self._served.get(feed, -1), next(self._arrivals))
        heappush(self._turns, _Turn(rank, feed))

    def _hand_out(self) -> None:
        passed_over = []
        while self._turns and self._has_room():
            turn = heappop(self._turns)
            waiters = self._waiters[turn.feed]
            waiter = self._next_of(turn.feed, waiters)
            if waiter is not None:
                self._give(waiter)
            if not waiters:
                del self._waiters[turn.feed]
            elif waiter is not None:
                self._line_up(turn.feed)
            else:
                passed_over.append(turn)
        for turn in passed_over:
            heappush(self._turns, turn)

    def _has_room(self) -> bool:
        if self._fixed is not None:
            return self.busy < self._fixed
        # A store's limit may have fallen below what it is sent already, which is no reason for others to wait.
        return self.busy < MOST and any(store.busy < store.adaptive.limit for store in self._stores.values())

    def _next_of(self, feed: str, waiters: deque[_Waiter]) -> _Waiter | None:
        """Take the first of a feed's waiters that may have a slot, and those that wait no more, from its line."""
        limit = self._share(feed).limit
        if limit and self._busy[feed] >= limit:
            return None
        for waiter in [*waiters]:
            if waiter.given.done():
                waiters.remove(waiter)
            elif self._takes(waiter):
                waiters.remove(waiter)
                return waiter
        return None

    def _takes(self, waiter: _Waiter) -> bool:
        if self._fixed is not None:
            return True
        adaptive = waiter.store.adaptive
        return waiter.store.busy < adaptive.limit and (waiter.size <= SMALL or adaptive.has_room_for_larger)

    def _give(self, waiter: _Waiter) -> None:
        self._turn += 1
        self._served[waiter.feed] = self._turn
        self._busy[waiter.feed] += 1
        waiter.store.busy += 1
        self.busy += 1
        trial = waiter.store.adaptive.begin(waiter.size, waiter.store.busy)
        waiter.given.set_result(Slot(waiter.feed, waiter.store, trial, self._note))

    def _note(self, slot: Slot, outcome: Outcome, latency: float | None) -> None:
        store, now = slot.store, self._clock()
        before = store.adaptive.limit
        store.adaptive.observe(slot.trial, outcome, latency, now)
        after = store.adaptive.limit
        if not self.is_automatic or after == before:
            return
        if after > before:
            self._hand_out()
            self._grown(slot.feed)
        elif outcome is Outcome.REFUSED and now - store.told_at >= _TOLD_EVERY:
            store.told_at = now
            log.info("concurrency_reduced", origin=store.origin, limit=after, effect="fewer uploads run at a time")
