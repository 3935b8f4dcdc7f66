"""Feeds that somebody has paused: their files are taken in and queued, and wait. Kept in the ledger over restarts."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Protocol

import structlog

log = structlog.get_logger("service")


class PauseStore(Protocol):
    """What pauses need of the ledger."""

    async def set_paused(self, feed: str, since: int | None) -> None:
        """Keep since when a feed is paused, in Unix milliseconds; None: it is not."""


class Pauses:
    """The paused feeds by name, each with since when, in Unix milliseconds."""

    def __init__(self, store: PauseStore, wake: Callable[[str], None], *, clock: Callable[[], float]) -> None:
        """`wake` is called with a feed that goes on; `clock` gives Unix seconds."""
        self._store = store
        self._wake = wake
        self._clock = clock
        self._since: dict[str, int] = {}
        self._changes = 0
        """Counts those that began or ended here, so that what was looked up before one is not taken for newer."""
        self._under_way = 0
        self._changed_elsewhere = asyncio.Event()

    def __contains__(self, feed: object) -> bool:
        """Whether somebody has paused it."""
        return feed in self._since

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._since)

    def since(self, feed: str) -> int | None:
        """Since when it is paused, in Unix milliseconds; None: it is not."""
        return self._since.get(feed)

    def restore(self, feed: str, since: int) -> None:
        """It was paused in an earlier life of the daemon."""
        self._since[feed] = since
        log.warning("feed_still_paused", feed=feed, effect="its files wait until somebody resumes it")

    async def pause(self, feed: str) -> bool:
        """Send no more files of this feed; returns whether that is new. What is being sent is finished."""
        if feed in self._since:
            return False
        self._since[feed] = since = round(self._clock() * 1000)
        await self._keep(feed, since)
        log.warning("feed_paused_by_hand", feed=feed, effect="its files wait until somebody resumes it")
        return True

    async def resume(self, feed: str) -> bool:
        """Send files of this feed again; returns whether that is new."""
        if feed not in self._since:
            return False
        await self._keep(feed, None)
        self._since.pop(feed, None)
        log.info("feed_resumed_by_hand", feed=feed)
        self._wake(feed)
        return True

    async def _keep(self, feed: str, since: int | None) -> None:
        self._changes += 1
        self._under_way += 1
        try:
            await self._store.set_paused(feed, since)
        finally:
            self._changes += 1
            self._under_way -= 1

    def hint(self) -> None:
        """Another node may have paused or resumed a feed."""
        self._changed_elsewhere.set()

    async def run(self, look: Callable[[], Awaitable[Mapping[str, int]]]) -> None:
        """Follow what `look` says is paused on any node, at each hint, until cancelled."""
        while True:
            await self._changed_elsewhere.wait()
            self._changed_elsewhere.clear()
            await self._follow(look)

    async def _follow(self, look: Callable[[], Awaitable[Mapping[str, int]]]) -> None:
        before = self._changes
        kept = await look()
        if self._under_way or before != self._changes:
            return  # of what is changed here all nodes are told, this one among them, when it is kept
        for feed in kept.keys() - self._since.keys():
            log.warning("feed_paused_elsewhere", feed=feed, effect="its files wait until somebody resumes it")
        for feed in self._since.keys() - kept.keys():
            log.info("feed_resumed_elsewhere", feed=feed)
            del self._since[feed]
            self._wake(feed)
        self._since |= kept
