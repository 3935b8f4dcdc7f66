"""Questions that people and monitoring ask of the ledger while the daemon works.

They may take long in a large ledger. So they have another connection than what is delivered, which waits for none.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Protocol, TypeVar

from tablefeed.ledger.census import Census, Delivered
from tablefeed.ledger.glance import Wanted
from tablefeed.ledger.muster import Muster
from tablefeed.ledger.records import Page, Record, Records, Search, opened

R = TypeVar("R")


class Source(Protocol):
    """What questions are asked of, one after the other."""

    async def ask(self, question: Callable[[Records], R]) -> R:
        """What `question` returns, called on a thread with the open ledger. Raises LedgerUnusable."""

    async def close(self) -> None:
        """Let go of the ledger."""


class OwnConnection:
    """A connection for questions alone, and its thread."""

    def __init__(self, url: str) -> None:
        """The connection is made when it is needed first."""
        self._url = url
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="ledger-reader")
        self._stack = ExitStack()
        self._records: Records | None = None

    async def ask(self, question: Callable[[Records], R]) -> R:
        """As any source's."""

        def run() -> R:
            if self._records is None:
                self._records = self._stack.enter_context(opened(self._url))
            return question(self._records)

        return await asyncio.get_running_loop().run_in_executor(self._executor, run)

    async def close(self) -> None:
        """As any source's."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._stack.close)
        self._executor.shutdown(wait=False)


class Reader:
    """Reads the ledger of a running daemon. All methods raise LedgerUnusable."""

    def __init__(self, url: str, source: Source | None = None) -> None:
        """`source` is closed at the end; None: a connection of its own."""
        self.url = url
        self._source = source or OwnConnection(url)

    async def census(self, now: int) -> Census:
        """All feeds as a whole; `now` in Unix milliseconds."""
        return await self._source.ask(lambda records: records.census(now))

    async def delivered_between(self, since: int, until: int) -> list[Delivered]:
        """What was delivered in [since, until), in Unix milliseconds, by feed and minute."""
        return await self._source.ask(lambda records: records.delivered_between(since, until))

    async def find(self, search: Search, limit: int) -> list[Record]:
        """The latest records that fit, the latest first."""
        return await self._source.ask(lambda records: records.find(search, limit)[::-1])

    async def page(self, wanted: Wanted, limit: int) -> Page:
        """The latest records that fit, as far as they are found in a short time."""
        return await self._source.ask(lambda records: records.page(wanted, limit))

    async def troubled(self, limit: int) -> list[Record]:
        """Files that were refused or have failed, those of the latest failures."""
        return await self._source.ask(lambda records: records.troubled(limit))

    async def muster(self, most: int, besides: str) -> Muster:
        """At most so many nodes of the fleet, and so many files that others than `besides` work on."""
        return await self._source.ask(lambda records: records.muster(most, besides))

    async def close(self) -> None:
        """Let go of the ledger."""
        await self._source.close()
