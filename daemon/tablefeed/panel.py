"""What the daemon offers over HTTP: its state, its history, and the few things that people may change while it runs."""

import asyncio

import structlog

from tablefeed.assembly import Parts
from tablefeed.clock import steady
from tablefeed.config import KeyFile, usable_token
from tablefeed.errors import Fatal, LedgerUnusable
from tablefeed.ledger.glance import Wanted
from tablefeed.ledger.records import Page
from tablefeed.metrics import Page as Exposition
from tablefeed.metrics import Scene
from tablefeed.overview import Overview
from tablefeed.recovery import Choice, Outcome, Recovery
from tablefeed.status import Snapshot

log = structlog.get_logger("service")

_PATIENCE = 2.0
"""Seconds that the ledger gets to show that it works."""
_NAMED = 5
"""Feeds that are named one by one."""
_MANY = 100
"""Files of one feed from which on reading its directory through is less work than looking at each."""


class Panel:
    """The parts of a running daemon, as the web room sees them."""

    def __init__(self, parts: Parts, overview: Overview, token: KeyFile | None = None) -> None:
        """`overview` looks at `parts`. Without a `token`, nothing can be changed."""
        self._parts = parts
        self._overview = overview
        self._has_begun = False
        self._token = token
        self._recovery = Recovery(parts.reader.url, parts.feeds, steady, parts.ledger.node)
        self._reading = asyncio.Lock()
        self._searching = asyncio.Lock()

    async def problems(self) -> list[str]:
        """Why the daemon cannot deliver everything now; empty when it can."""
        if self._overview.draining:
            return ["the daemon is ending"]
        return [*await self._problems_of_ledger(), *self._not_begun(), *self._problems_of_directories()]

    async def _problems_of_ledger(self) -> list[str]:
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._parts.ledger.next_due(0)
        except TimeoutError:
            answers = False
        else:
            answers = True
        if held_up := self._held_up():
            return [held_up]
        hangs = "server" if self._parts.ledger.node else "disk"
        return [] if answers else [f"the ledger does not answer; does its {hangs} hang?"]

    def _held_up(self) -> str:
        """Why the ledger cannot be written, and what to do about it; empty while it can."""
        ledger = self._parts.ledger
        return f"the ledger cannot be written: {ledger.trouble}; {ledger.remedy}" if ledger.trouble else ""

    def _problems_of_directories(self) -> list[str]:
        return [f"{feed}: {trouble}" for feed, trouble in self._parts.troubles.items()]

    def _not_begun(self) -> list[str]:
        """At the start, what has not been looked at; what a reload brings later makes nobody unready."""
        if self._has_begun:
            return []
        troubles = self._parts.troubles
        slow = [name for name, it in self._parts.intakes.items() if not (it.first_scan.is_set() or name in troubles)]
        self._has_begun = not slow
        more = f" and of {len(slow) - _NAMED} others" if len(slow) > _NAMED else ""
        return [f"the first scan of {', '.join(slow[:_NAMED])}{more} has not begun"] if slow else []

    async def ailments(self) -> list[str]:
        """What only a restart can help; empty while nothing is."""
        if self._overview.draining:
            return []
        parts = self._parts
        ended = [
            f"no more files of feed {feed} are taken in: what does that has ended" for feed in parts.roster.ended()
        ]
        if parts.dispatcher.ended:
            ended.append("no more files are sent: the dispatcher has ended")
        slow = await parts.pulse.problem()
        return [*ended, slow] if slow else ended

    async def metrics(self, accept: str, accept_encoding: str) -> Exposition:
        """All metrics, in the format and the coding that the scraper's headers ask for."""
        parts = self._parts
        scene = Scene(
            await self.snapshot(),
            apis={feed.api.origin for feed in parts.feeds.values()},
            spaces=parts.disks.spaces,
        )
        return await parts.metrics.page(scene, accept, accept_encoding)

    async def snapshot(self) -> Snapshot:
        """What it is doing now."""
        return await self._overview.snapshot()

    async def history(self, wanted: Wanted, limit: int) -> Page:
        """The latest files that fit, one search at a time. Raises LedgerUnusable."""
        async with self._searching:
            return await self._parts.reader.page(wanted, limit)

    @property
    def may_change(self) -> bool:
        """Whether there is a token, so that who has it may change something."""
        return self._token is not None

    async def token(self) -> str:
        """The token as its file holds it now. Raises Fatal when it holds none that will do."""
        if self._token is None:
            raise Fatal("[http] token_file is not set", "Set it to a file that holds a token, then restart the daemon")
        async with self._reading:
            return await asyncio.to_thread(usable_token, self._token)

    def has_feed(self, feed: str) -> bool:
        """Whether it serves a feed of that name, or another node of its fleet does."""
        return feed in self._parts.feeds or self._overview.knows(feed)

    async def pause(self, feed: str) -> None:
        """Send no more files of a feed, on all nodes that serve it. Raises LedgerUnusable where that cannot be kept."""
        self._assert_writable()
        await self._parts.pauses.pause(feed)
        self._overview.expire()

    async def resume(self, feed: str) -> None:
        """Send files of a feed again. Raises LedgerUnusable where that cannot be kept."""
        self._assert_writable()
        await self._parts.pauses.resume(feed)
        self._overview.expire()

    def _assert_writable(self) -> None:
        # Who asked would else get no answer for as long as it lasts, which may be hours.
        if held_up := self._held_up():
            raise LedgerUnusable(f"Nothing was changed, since {held_up}", "")

    async def retry(self, choice: Choice) -> Outcome:
        """Put refused files back to where they were dropped, and look at them soon. Raises LedgerUnusable."""
        outcome = await self._recovery.retry(choice)
        paths: dict[str, list[str]] = {}
        for returned in outcome.files:
            if not returned.problem:
                paths.setdefault(returned.feed, []).append(returned.path)
        for feed, found in paths.items():
            log.info("files_put_back", feed=feed, count=len(found), effect="they are taken like any other file")
            intake = self._parts.intakes.get(feed)
            for path in found if len(found) < _MANY else [""]:
                if intake is not None:
                    intake.hint(path)
        self._overview.expire()
        return outcome

    def limit_bandwidth(self, rate: float | None) -> None:
        """Let all uploads together take so many bytes a second, None: as many as they can. Raises ValueError."""
        self._parts.throttle.override(rate)

    def release_bandwidth(self) -> None:
        """Limit the uploads as the configuration says."""
        self._parts.throttle.release()
