"""What the daemon offers over HTTP: its state, its history, and the few things that people may change while it runs."""

import asyncio

from tablefeed.assembly import Parts
from tablefeed.overview import Overview
from tablefeed.status import Snapshot

_PATIENCE = 2.0
"""Seconds that the ledger gets to show that it works."""


class Panel:
    """The parts of a running daemon, as the web room sees them."""

    def __init__(self, parts: Parts, overview: Overview) -> None:
        """`overview` looks at `parts`."""
        self._parts = parts
        self._overview = overview

    async def problems(self) -> list[str]:
        """Why the daemon cannot deliver everything now; empty when it can."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._parts.ledger.next_due(0)
        except TimeoutError:
            return ["the ledger does not answer; is its disk full?"]
        return [f"{feed}: {trouble}" for feed, trouble in self._parts.troubles.items()]

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
