"""What happens to files and feeds, told as it happens to whoever listens: tallies, metrics, the page.

A listener is called on the event loop, between two steps of a file, so it must be quick and raise nothing.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tablefeed.model import Entry, Receipt


@dataclass(frozen=True, slots=True)
class Queued:
    """Whole files of a feed are in the queue now."""

    feed: str
    count: int


@dataclass(frozen=True, slots=True)
class Granted:
    """A URL was fetched for a file."""

    feed: str
    seconds: float
    refreshed: bool
    """The file had one before, which is too old or was refused."""


@dataclass(frozen=True, slots=True)
class Sending:
    """An upload has begun."""

    feed: str
    entry: Entry


@dataclass(frozen=True, slots=True)
class Delivered:
    """The store has a file, and the ledger says so."""

    feed: str
    entry: Entry
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file's content was delivered before, so it is not sent."""

    feed: str
    entry: Entry


@dataclass(frozen=True, slots=True)
class Archived:
    """A delivered file has left its drop directory."""

    feed: str
    entry: Entry
    seconds: float
    """What the move took."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file can never be delivered."""

    feed: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Vanished:
    """A file was replaced or removed before it was sent."""

    feed: str
    path: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A try failed and another follows."""

    feed: str
    error: str
    """The class of the error."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """A feed is paused, because what is wrong with it is wrong for all its files."""

    feed: str
    place: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Unblocked:
    """What was wrong with a feed is mended."""

    feed: str
    place: str


Item = Queued | Granted | Sending | Delivered | Skipped | Archived | Rejected | Vanished | Failed | Blocked | Unblocked


class News:
    """Passes every item on to all listeners, in the order in which they came."""

    def __init__(self) -> None:
        """Nobody listens yet."""
        self._listeners: list[Callable[[Item], None]] = []

    def listen(self, listener: Callable[[Item], None]) -> None:
        """Call `listener` with all that happens from now on."""
        self._listeners.append(listener)

    def tell(self, item: Item) -> None:
        """Something has happened."""
        for listener in self._listeners:
            listener(item)


class Rest:
    """Pauses of somebody who looks at the daemon again and again: short while something happens, else long."""

    def __init__(self, news: News, longest: float) -> None:
        """`longest` in seconds, for what changes without being told."""
        self._longest = longest
        self._heard = asyncio.Event()
        news.listen(lambda _: self._heard.set())

    async def __call__(self, seconds: float) -> None:
        """Pause for so long at least, and then until something has happened since the last pause."""
        await asyncio.sleep(seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._longest - seconds):
                await self._heard.wait()
        self._heard.clear()
