"""One feed's way from a sighting to the ledger: look at what events and scans lead to, and queue what is settled.

Events are hints and the scan is the truth: whatever goes wrong in between costs time and never a file.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog

from tablefeed.clock import WatchedClock, steady
from tablefeed.dispatch import Front
from tablefeed.errors import DiskTrouble, FeedBlocked
from tablefeed.model import Feed, Ready, printable
from tablefeed.others import NOBODY, Others
from tablefeed.presence import assert_present
from tablefeed.readiness import RECHECK, Rules, Wait
from tablefeed.seen import LedgerPort, Seen
from tablefeed.threads import Threads
from tablefeed.watch.judge import Judge
from tablefeed.watch.scan import BATCH, Problem, Selection, is_empty, scan
from tablefeed.watch.watcher import Watcher

log = structlog.get_logger("intake")

LIMIT = 10_000
"""Hints and waiting files that one feed keeps in memory, of each."""
_LEAST_SLEEP = 0.01
_WAY_GIVEN = 9.0
"""A scan that finds nothing new rests so many times as long as it works, while files are delivered."""
_HANGS = 60.0
"""Seconds after which a share that gives no answer is left to other nodes."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hooks:
    """What an intake tells and asks the rest of the daemon."""

    queued: Callable[[str], None]
    """Files of the feed of this name may have become due."""
    trouble: Callable[[FeedBlocked | DiskTrouble], None]
    """The directory cannot be read."""
    recovered: Callable[[], None]
    """It can be read again."""
    delivering: Callable[[], bool] = lambda: False
    """Whether files are on their way now."""
    holds: Callable[[str], bool] | None = None
    """Whether the ledger can hold a path; None: it holds any."""


class Intake:
    """Finds the files of one feed and puts them into the ledger's queue."""

    def __init__(
        self,
        feed: Feed,
        ledger: LedgerPort,
        hooks: Hooks,
        *,
        rescan: float,
        polling: bool,
        clock: Callable[[], float],
        others: Others = NOBODY,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        tick: float = 5.0,
    ) -> None:
        """`rescan` is the time between scans, `tick` the time between looks at a directory that is away, in seconds.

        `polling`: find files by scans alone. `clock` gives Unix seconds. `others`: the nodes that have the directory as
        well.
        """
        self._feed = feed
        self._rescan = rescan
        self._polling = polling
        self._clock = clock
        self._hooks = hooks
        self._others = others
        self._is_ours = True
        """No other node looks at the files of this directory."""
        self._rest = sleep
        self._tick = tick
        self._rules = Rules.of(feed)
        self._judge = Judge(feed, self._rules, clock=WatchedClock(clock, steady), pause=tick)
        self._seen = Seen(feed, ledger, self._judge, LIMIT, in_thread=self._in_thread, on_queued=hooks.queued)
        self._selection = Selection(feed, hooks.holds)
        self.takes = self._selection.takes
        """Whether a path, relative to the feed's directory, is that of one of its files."""
        self._hints: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._scan_at = steady()
        self._scan_not_before = steady()
        self._trouble = ""
        self._problems: frozenset[Problem] = frozenset()
        # A thread of its own: a share that hangs holds up this feed alone, and not the end of the daemon.
        self._thread = Threads(1, f"tablefeed-{feed.name}")
        self._log = log.bind(feed=feed.name)
        self.first_scan = asyncio.Event()
        """The first scan has begun."""
        self.scanned = asyncio.Event()
        """A whole scan has been done."""

    @property
    def waiting(self) -> Mapping[str, Wait]:
        """What is not settled yet, by relative path."""
        return self._seen.pending.waits()

    @property
    def has_hints(self) -> bool:
        """Whether there is something to look at again."""
        return bool(self._hints)

    def front(self) -> Front | None:
        """The first, in the feed's order, of the files that are not whole yet; None before all have been seen.

        So it is where another node may look by now, as after a lost connection, until this one has scanned again: soon.
        """
        if self.scanned.is_set() and self._others.scans(self._feed.name):
            return self._seen.front()
        if self.scanned.is_set():
            self._want_scan()
        return None

    def hint(self, path: str) -> None:
        """Look at a path (relative to the feed's directory, "" for all of it) soon."""
        if self._rules.marks(path):
            path = path.removesuffix(self._rules.marker_suffix)
        if not path:
            self._want_scan()
        elif self._is_worth_a_look(path):
            self._hints[path] = None
            if len(self._hints) > LIMIT:
                self._hints.clear()
                self._want_scan()
            self._wake.set()

    async def run(self) -> None:
        """Take files in until cancelled, outlasting all trouble with the directory.

        Raises an ExceptionGroup with what the ledger raises.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                if not self._polling:
                    tasks.create_task(self._watcher().run())
                while True:
                    if steady() >= self._scan_at:
                        await self._scan_or_report()
                    await self._look_around()
                    self._tell_strict()
                    if self._seen.pending.has_room_again():
                        self._want_scan()
                    await self._sleep(self._scan_at - steady())
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def settle_all(self, patience: float) -> Mapping[str, Wait]:
        """Queue what is there, waiting up to `patience` seconds for files to settle.

        Returns what those that are left wait for, by relative path. Trouble with the directory is reported as in `run`.
        """
        end = steady() + patience
        await self._scan_or_report()
        while True:
            await self._look_around()
            self._tell_strict()
            if self._seen.pending.has_room_again():
                await self._scan_or_report()
            due = self._seen.pending.next_due()
            if due is None or due - self._clock() > end - steady() or steady() >= end:
                return self.waiting
            await self._sleep(end - steady())

    def _tell_strict(self) -> None:
        """In a strict feed, what no longer has to be waited for may let another file go."""
        if self._feed.strict:
            self._hooks.queued(self._feed.name)

    def _watcher(self) -> Watcher:
        return Watcher(
            self._feed.directory,
            feed=self._feed.name,
            recursive=self._feed.recursive,
            # A file waits for `settle` anyway, so that the watch may take a quarter of it and rest the longer.
            step=0.02 if self._feed.ready is Ready.MARKER else min(max(self._feed.settle / 4, 0.02), 0.5),
            tick=self._tick,
            on_changes=self._hint_all,
            on_gap=self._want_scan,
        )

    def _hint_all(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.hint(path)

    def _is_worth_a_look(self, path: str) -> bool:
        """Whether it may be that of a file which will not be looked at anyway, or of a directory that is entered."""
        if self._selection.takes(path):
            return not self._is_due_soon(path)
        return self._selection.enters(path)

    def _is_due_soon(self, path: str) -> bool:
        """Whether a file will be looked at anyway, so that a file that grows is not looked at with every write."""
        due = self._seen.pending.due_at(path)
        return due is not None and due - self._clock() <= max(self._rules.settle, RECHECK)

    def _want_scan(self) -> None:
        self._scan_at = min(self._scan_at, max(steady(), self._scan_not_before))
        self._wake.set()

    async def _sleep(self, longest: float) -> None:
        """Until a hint, the next file's time, or `longest` seconds have passed."""
        due = self._seen.pending.next_due()
        seconds = longest if due is None else min(longest, due - self._clock())
        try:
            async with asyncio.timeout(0 if self._hints else max(seconds, _LEAST_SLEEP)):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _in_thread(self, function: Callable[[], T], /) -> T:
        call = asyncio.get_running_loop().run_in_executor(self._thread, function)
        if self._feed.shared:
            try:
                await asyncio.wait((call,), timeout=_HANGS)
            except asyncio.CancelledError:
                call.cancel()  # what it says in the end is nobody's to hear
                raise
            if not call.done() and await self._others.leave(self._feed.name):
                self._log.warning("directory_hangs", seconds=_HANGS, effect="another node looks at it meanwhile")
        return await call

    async def _scan_or_report(self) -> None:
        began = steady()
        self._scan_at = began + self._rescan
        try:
            if self._feed.shared:
                await self._assert_mounted()
            if await self._others.may_scan(self._feed.name):
                self._is_ours = True
                await self._scan()
            else:
                self._leave_to_others()
                self.first_scan.set()
        except (FeedBlocked, DiskTrouble) as error:
            if await self._others.leave(self._feed.name):
                self._leave_to_others()
            self._scan_at = steady() + min(self._tick, self._rescan)
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._hooks.trouble(error)
            return
        # Scans that events ask for take at most half of the time.
        self._scan_not_before = steady() + min(steady() - began, self._rescan)
        if self._trouble:
            self._trouble = ""
            self._hooks.recovered()

    async def _assert_mounted(self) -> None:
        """Others have a share as well, and are kept from its scans only by a node that has it.

        Raises FeedBlocked and DiskTrouble.
        """
        self.first_scan.set()  # this is where a share whose server is away keeps it waiting
        if await self._in_thread(partial(is_empty, self._feed.directory)):
            last = await self._others.last(self._feed.name)
            if last is not None:
                await self._in_thread(partial(assert_present, self._feed.directory, last))

    def _leave_to_others(self) -> None:
        """What waits here is another node's to look at."""
        self._is_ours = False
        self._seen.forget()
        self.scanned.clear()

    async def _scan(self) -> None:
        self._seen.begin_scan()
        self.first_scan.set()
        await self._in_thread(self._judge.prepare)
        problems = await self._scan_below("")
        for problem in problems - self._problems:
            self._log.warning("not_scanned", path=printable(problem.path), reason=problem.cause)
        self._problems = problems
        self._seen.end_scan(self._clock())
        self.scanned.set()

    async def _scan_below(self, path: str) -> frozenset[Problem]:
        problems: set[Problem] = set()
        began = steady()
        async with aclosing(scan(self._feed.directory, self._selection, path, run=self._in_thread)) as batches:
            async for batch in batches:
                problems.update(batch.problems[: BATCH - len(problems)])
                has_news = await self._seen.take(batch.entries)
                if not path:
                    await self._look_around()
                if not has_news and self._hooks.delivering():
                    await self._rest((steady() - began) * _WAY_GIVEN)
                began = steady()
        return frozenset(problems)

    async def _look_around(self) -> None:
        """Look at what events have told and what is due by now."""
        hints, self._hints = self._hints, {}
        if not self._is_ours:
            if hints:
                await self._others.look(self._feed.name, [*hints])
            return
        paths = [*(hints | dict.fromkeys(self._seen.pending.due(self._clock(), LIMIT)))]
        for start in range(0, len(paths), BATCH):
            sightings = await self._in_thread(partial(self._judge.look, paths[start : start + BATCH], self.takes))
            await self._seen.note(sightings)
            self._hint_all(sightings.elsewhere)
            for path in sightings.directories:
                if self._selection.enters(path):
                    await self._scan_below(path)
