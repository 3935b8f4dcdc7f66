"""Has a feed delivered the very content of a file before?

Asked for feeds with `duplicates = "skip"` alone. Files of one size of one feed go one after the other there, since
each may be what the next one repeats.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tablefeed.model import Duplicates, Entry, Feed, FileVersion


class Record(Protocol):
    """What is asked of the ledger."""

    async def has_delivered(self, feed: str, target: str, size: int) -> bool:
        """Whether the feed has delivered a file of this size to the datatable."""

    async def delivery_of(self, feed: str, target: str, size: int, md5: str) -> Entry | None:
        """The last row of the feed that delivered this content to the datatable."""


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Contents:
    """Tells duplicates from news."""

    def __init__(self, record: Record, digest: Callable[[Path, FileVersion], Awaitable[str]]) -> None:
        """`digest(directory, version)` gives a file's MD5 in hexadecimal; what it raises goes through."""
        self._record = record
        self._digest = digest
        self._turns: dict[tuple[str, int], _Turn] = {}

    @asynccontextmanager
    async def compared(self, feed: Feed, version: FileVersion) -> AsyncIterator[Entry | None]:
        """The row that delivered the same content before, or None when the file is to be sent.

        While the block runs no other file of this size is compared: what the block delivers counts for the next one.
        """
        if feed.duplicates is not Duplicates.SKIP:
            yield None
            return
        async with self._turn(feed.name, version.size):
            yield await self._earlier(feed, version)

    async def _earlier(self, feed: Feed, version: FileVersion) -> Entry | None:
        if not await self._record.has_delivered(feed.name, feed.target, version.size):
            return None
        md5 = await self._digest(feed.directory, version)
        return await self._record.delivery_of(feed.name, feed.target, version.size, md5)

    @asynccontextmanager
    async def _turn(self, feed: str, size: int) -> AsyncIterator[None]:
        turn = self._turns.setdefault((feed, size), _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[feed, size]
