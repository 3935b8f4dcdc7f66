"""What the daemon offers over HTTP: its state, its history, and the few things that people may change while it runs."""

import asyncio

from tablefeed.assembly import Parts
from tablefeed.metrics import Page, Scene
from tablefeed.overview import Overview
from tablefeed.status import Snapshot

_PATIENCE = 2.0
"""Seconds that the ledger gets to show that it works."""
_NAMED = 5
"""Feeds that are named one by one."""


class Panel:
    """The parts of a running daemon, as the web room sees them."""

    def __init__(self, parts: Parts, overview: Overview) -> None:
        """`overview` looks at `parts`."""
        self._parts = parts
        self._overview = overview
        self._has_begun = False

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
            return ["the ledger does not answer; does its disk hang?"]
        trouble = self._parts.ledger.trouble
        return [f"the ledger cannot be written: {trouble}; free space on its disk"] if trouble else []

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

    async def metrics(self, accept: str, accept_encoding: str) -> Page:
        """All metrics, in the format and the coding that the scraper's headers ask for."""
        parts = self._parts
        scene = Scene(
            await self.snapshot(),
            apis={feed.api.origin for feed in parts.feeds.values()},
            ledger_writable=not parts.ledger.trouble,
            spaces=parts.disks.spaces,
        )
        return await parts.metrics.page(scene, accept, accept_encoding)

    async def snapshot(self) -> Snapshot:
        """What it is doing now."""
        return await self._overview.snapshot()

    def has_feed(self, feed: str) -> bool:
        """Whether it serves a feed of that name."""
        return feed in self._parts.feeds

    async def pause(self, feed: str) -> None:
        """Send no more files of a feed that it serves."""
        await self._parts.pauses.pause(feed)
        self._overview.expire()

    async def resume(self, feed: str) -> None:
        """Send files of a feed again."""
        await self._parts.pauses.resume(feed)
        self._overview.expire()
