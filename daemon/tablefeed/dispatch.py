"""The dispatcher: claims due files from the ledger, feed by feed in turn, and hands them to workers.

It claims a little more than the upload slots, so that the next grants are fetched while the current uploads run, and
at least one file of every feed, so that a backlog in one delays no other.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from tablefeed.gates import Gates
from tablefeed.ledger import Want
from tablefeed.model import Entry, Feed, FileVersion
from tablefeed.shares import Demand, plan, refill

log = structlog.get_logger("dispatch")

TICK = 15.0
"""Seconds after which the dispatcher looks for due files of all feeds, whatever it was told."""
_NEVER = 2**62
_JUMP = 1.0
"""Seconds by which a wall clock is set back at least when it is set; less is drift."""


@dataclass(frozen=True, slots=True)
class Front:
    """What stands before the queue of a strict feed: the first of the files that are not whole yet."""

    ahead: FileVersion | None = None
    reason: str = ""
    """What that file waits for."""


_NO_FRONT = Front()
UnderWay = tuple[FileVersion, Path | None]
"""A file that somebody works on, and the directory of its feed when that began; None: it was not served then."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What others have to say of what is claimed next, and what they are told of it."""

    front: Callable[[str], Front | None] = lambda _feed: _NO_FRONT
    """What stands before a strict feed's queue; None while that is not known."""
    held: Callable[[str, Front], None] = lambda _feed, _front: None
    """A strict feed was given nothing, and this stands there."""
    ended: Callable[[], None] = lambda: None
    """A file has ended."""
    given_up: Callable[[int], None] = lambda _id: None
    """A row that was claimed is not begun, since it is another node's already."""


_NO_HOOKS = Hooks()


class QueuePort(Protocol):
    """What the dispatcher needs of the ledger."""

    async def claim(self, wants: Sequence[Want]) -> list[Entry]:
        """Take due rows."""

    async def feeds_due(self, after: int, until: int) -> list[str]:
        """Feeds with an open row that becomes due in (after, until]."""

    async def next_due(self, after: int) -> int | None:
        """When the next open row becomes due, later than `after`."""

    async def bring_forward(self, milliseconds: int) -> None:
        """Let all that waits become due so much earlier."""


class Dispatcher:
    """Claims files and works on each in a task; a task that has ended its file takes the next one that is claimed."""

    def __init__(
        self,
        queue: QueuePort,
        feeds: Mapping[str, Feed],
        gates: Gates,
        work: Callable[[Entry], Awaitable[None]],
        *,
        slots: Callable[[], int],
        wall: Callable[[], float],
        steady: Callable[[], float],
        slots_of: Callable[[str], int] = lambda _: 0,
        paused: Container[str] = (),
        hooks: Hooks = _NO_HOOKS,
    ) -> None:
        """`slots`: uploads at a time now; `slots_of`: those of a feed, where its store takes only so many, else 0.

        `wall` gives Unix seconds, `steady` is the clock of the gates. Of feeds in `paused` nothing is claimed; it may
        change at any time, and `wake` tells that one is not in it any more.
        """
        self._queue = queue
        self._feeds = feeds
        self._gates = gates
        self._work = work
        self._slots = slots
        self._slots_of = slots_of
        self._paused = paused
        self._hooks = hooks
        self._wall = wall
        self._steady = steady
        self._in_flight: Counter[str] = Counter()
        """By feed, of those that have any."""
        self._maybe = dict.fromkeys(feeds)
        """Feeds that may have due files, in the order of their turns."""
        self._alarm = 0
        """When the ledger must be asked for due rows, in Unix milliseconds; 0: at once."""
        self._asked_until = self._now()
        self._tick_at = steady() + TICK
        self._lead = wall() - steady()
        self._wake = asyncio.Event()
        self._stopping = False
        self.held_back: set[str] = set()
        """Feeds of which nothing is claimed; `wake` tells that one is not in it any more."""
        self._ready: deque[Entry] = deque()
        self._workers: dict[int, tuple[UnderWay, asyncio.Task[None] | None]] = {}
        """Who works on each row now, and on which file."""
        self.ended = False
        """`run` claims nothing any more."""

    def wake(self, feed: str) -> None:
        """Tell that a feed has new due files."""
        if feed in self._feeds:
            self._maybe.setdefault(feed)
            self._wake.set()

    def due_at(self, moment: int) -> None:
        """Tell that some row becomes due then, in Unix milliseconds."""
        # It may be past already: the commit that made it due takes time, and the ledger may have been asked meanwhile.
        self._asked_until = min(self._asked_until, moment - 1)
        if moment < self._alarm:
            self._alarm = moment
            self._wake.set()

    def stop(self) -> None:
        """Claim no more; `run` returns when all files in flight have ended."""
        self._stopping = True
        self._wake.set()

    def cut_off(self, is_ours: Callable[[int], bool]) -> None:
        """Break off the work on the files in flight that are not this node's any more, by the ids of their rows.

        What was claimed since is: nobody else would give it back.
        """
        lost = [entry for entry in self._ready if not is_ours(entry.id)]
        self._ready = deque(entry for entry in self._ready if is_ours(entry.id))
        for entry in lost:
            self._hooks.given_up(entry.id)
            self._end(entry)
        for entry_id, (_, worker) in self._workers.items():
            if worker and not is_ours(entry_id):
                worker.cancel()

    @property
    def in_flight(self) -> int:
        """Files claimed and not ended."""
        return self._in_flight.total()

    @property
    def under_way(self) -> dict[int, UnderWay]:
        """Files that are being sent or moved now, by the ids of their rows."""
        return {entry_id: file for entry_id, (file, _) in self._workers.items()}

    async def run(self) -> None:
        """Dispatch until `stop`, then wait for the files in flight."""
        try:
            async with asyncio.TaskGroup() as workers:
                while not self._stopping:
                    self._wake.clear()
                    await self._follow_clock()
                    await self._note_due()
                    entries = await self._claim()
                    self._ready.extend(entries)
                    for _ in entries:
                        workers.create_task(self._worker())
                    if not entries:
                        await self._sleep()
        finally:
            self.ended = True

    async def _worker(self) -> None:
        while self._ready:
            entry = self._ready.popleft()
            feed = self._feeds.get(entry.version.feed)
            self._workers[entry.id] = ((entry.version, feed.directory if feed else None), asyncio.current_task())
            try:
                await self._work(entry)
            finally:
                self._workers.pop(entry.id, None)
                self._end(entry)

    def _end(self, entry: Entry) -> None:
        feed = entry.version.feed
        self._in_flight[feed] -= 1
        if not self._in_flight[feed]:
            del self._in_flight[feed]
        self._gates.ended(feed, entry.id)
        if feed not in self._in_flight or self._room() > 0:
            self._wake.set()
        self._hooks.ended()

    def _room(self) -> int:
        return refill(self._slots(), self.in_flight)

    async def _follow_clock(self) -> None:
        """Rows wait by the wall clock: where that is set back, they shall not wait the longer for it."""
        lead = self._wall() - self._steady()
        back, self._lead = self._lead - lead, lead
        if back > _JUMP:
            log.warning("clock_set_back", seconds=round(back, 1), effect="retries come at the time they would have")
            await self._queue.bring_forward(round(back * 1000))
            self._alarm = self._asked_until = 0

    async def _note_due(self) -> None:
        now = self._now()
        if self._steady() >= self._tick_at:
            self._tick_at = self._steady() + TICK
            self._maybe |= dict.fromkeys(self._feeds)
        if now < self._alarm:
            return
        self._alarm = _NEVER
        for feed in await self._queue.feeds_due(self._asked_until, now):
            self.wake(feed)
        self._asked_until = now
        following = await self._queue.next_due(now)
        if following is not None:
            self.due_at(following)

    def _eligible(self, room: int) -> list[str]:
        """Feeds that may get a file now: without room those alone that have none in flight, often few of very many."""
        maybe = self._maybe if room else [feed for feed in self._maybe if feed not in self._in_flight]
        held = self.held_back
        return [feed for feed in maybe if feed in self._feeds and feed not in self._paused and feed not in held]

    async def _claim(self) -> list[Entry]:
        room = self._room()
        eligible = self._eligible(room)
        fronts = {feed: self._hooks.front(feed) if self._feeds[feed].strict else _NO_FRONT for feed in eligible}
        counts = plan([self._demand(feed) for feed, front in fronts.items() if front is not None], room)
        counts = {feed: count for feed, count in counts.items() if self._gates.probe(feed)}
        if not counts:
            return []
        wants = [self._want(feed, count, fronts[feed] or _NO_FRONT) for feed, count in counts.items()]
        for feed in counts:
            del self._maybe[feed]
        entries = await self._queue.claim(wants)
        got = Counter(entry.version.feed for entry in entries)
        self._in_flight.update(got)
        for entry in entries:
            self._gates.started(entry.version.feed, entry.id)
        for feed, count in counts.items():
            if got[feed] == count:
                self._maybe.setdefault(feed)
            elif got[feed] == 0:
                self._gates.ended(feed)
                if (front := fronts[feed]) and front.ahead is not None:
                    self._hooks.held(feed, front)
        return entries

    def _want(self, name: str, count: int, front: Front) -> Want:
        feed = self._feeds[name]
        return Want(name, feed.order, count, feed.strict, front.ahead, most=feed.concurrency if feed.shared else 0)

    def _demand(self, name: str) -> Demand:
        feed = self._feeds[name]
        return Demand(
            feed=name,
            in_flight=self._in_flight[name],
            limit=self._limit(feed),
            priority=feed.priority,
            allowance=self._gates.allowance(name),
        )

    def _limit(self, feed: Feed) -> int:
        limits = [1] if feed.strict else [2 * feed.concurrency] if feed.concurrency else []
        if slots := self._slots_of(feed.name):
            in_flight = self._in_flight[feed.name]
            limits.append(in_flight + refill(slots, in_flight))
        return min(limits, default=0)

    async def _sleep(self) -> None:
        seconds = max(0.0, min(self._tick_at - self._steady(), (self._alarm - self._now()) / 1000))
        probe = self._gates.next_probe(self._eligible(self._room()))
        if probe is not None:
            seconds = min(seconds, max(0.0, probe - self._steady()))
        # Not `wait_for`: in Python 3.11 it swallows a cancellation that comes together with the event.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _now(self) -> int:
        return round(self._wall() * 1000)
