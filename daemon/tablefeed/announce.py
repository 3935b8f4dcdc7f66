"""Trouble of whole feeds, told to their webhooks once, and once more when it is over: also after a restart between."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from tablefeed.gates import Place
from tablefeed.ledger.outbox import Outbox
from tablefeed.model import Feed, Notice
from tablefeed.news import Archived, Blocked, Delivered, Item, Unblocked
from tablefeed.notices import Notices

_Change = Callable[[str, str, Notice | None], Awaitable[None]]


class Announcer:
    """Listens to the news and puts what follows into the outbox, in order. What delivers files never waits for it.

    What was told is kept in the ledger, and gates are not: after a restart a delivery is what shows that a feed works.
    """

    def __init__(
        self, feeds: Mapping[str, Feed], outbox: Outbox, notices: Notices, wake: Callable[[str], None]
    ) -> None:
        """`wake` is called with a feed for whose webhook there is something new."""
        self._feeds = feeds
        self._outbox = outbox
        self._notices = notices
        self._wake = wake
        self._told: set[tuple[str, str]] = set()
        self._changes: asyncio.Queue[tuple[_Change, str, str, Notice | None]] = asyncio.Queue()

    def note(self, item: Item) -> None:
        """Something has happened."""
        feed = self._feeds.get(item.feed)
        if feed is None:
            return
        match item:
            case Blocked() if feed.notify_url and (feed.name, item.place) not in self._told:
                self._told.add((feed.name, item.place))
                notice = self._notices.blocked(feed, item.place, item.reason, item.remedy)
                self._changes.put_nowait((self._outbox.announce, feed.name, item.place, notice))
            case Unblocked():
                self._works(feed, item.place)
            case Delivered():
                self._works(feed, Place.DELIVERY.value)
            case Archived():
                self._works(feed, Place.ARCHIVE.value)
            case _:
                pass

    def _works(self, feed: Feed, place: str) -> None:
        if (feed.name, place) in self._told:
            self._told.remove((feed.name, place))
            notice = self._notices.unblocked(feed, place)
            self._changes.put_nowait((self._outbox.withdraw, feed.name, place, notice))

    async def run(self) -> None:
        """Until cancelled. Raises what the ledger raises."""
        self._told |= await self._outbox.announced()
        while True:
            change, feed, place, notice = await self._changes.get()
            try:
                await change(feed, place, notice)
                self._wake(feed)
            finally:
                self._changes.task_done()

    async def settled(self) -> None:
        """Wait until all that has happened is in the outbox. It must run."""
        await self._changes.join()


class PauseStore(Protocol):
    """What keeps pauses."""

    async def set_paused(self, feed: str, since: int | None, notice: Notice | None = None) -> None:
        """Keep since when a feed is paused, in Unix milliseconds; None: it is not."""
        ...


class Pausing:
    """Keeps that somebody has paused a feed, or resumed it, and tells its webhook in the same transaction."""

    def __init__(
        self, feeds: Mapping[str, Feed], store: PauseStore, notices: Notices, wake: Callable[[str], None]
    ) -> None:
        """`wake` is called with a feed for whose webhook there is something new."""
        self._feeds = feeds
        self._store = store
        self._notices = notices
        self._wake = wake

    async def set_paused(self, feed: str, since: int | None) -> None:
        """Keep since when a feed is paused, in Unix milliseconds; None: it is not."""
        known = self._feeds.get(feed)
        tell = self._notices.resumed if since is None else self._notices.paused
        await self._store.set_paused(feed, since, tell(known) if known else None)
        self._wake(feed)
