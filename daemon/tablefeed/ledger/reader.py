"""Questions that people and monitoring ask of the ledger while the daemon works, on a connection of their own.

They may take long in a large ledger, and nothing that is delivered waits for them.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

from tablefeed.ledger.census import Census, Delivered
from tablefeed.ledger.glance import Wanted
from tablefeed.ledger.muster import Muster
from tablefeed.ledger.records import Page, Record, Records, Search, opened

R = TypeVar("R")


class Reader:
    """Reads the ledger of a running daemon. All methods raise LedgerUnusable."""

    def __init__(self, url: str) -> None:
        """The connection is made when it is needed first."""
        self.url = url
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="ledger-reader")
        self._stack = ExitStack()
        self._records: Records | None = None

    async def census(self, now: int) -> Census:
        """All feeds as a whole; `now` in Unix milliseconds."""
        return await self._ask(lambda records: records.census(now))

    async def delivered_between(self, since: int, until: int) -> list[Delivered]:
        """What was delivered in [since, until), in Unix milliseconds, by feed and minute."""
        return await self._ask(lambda records: records.delivered_between(since, until))

    async def find(self, search: Search, limit: int) -> list[Record]:
        """The latest records that fit, the latest first."""
        return await self._ask(lambda records: records.find(search, limit)[::-1])

    async def page(self, wanted: Wanted, limit: int) -> Page:
        """The latest records that fit, as far as they are found in a short time."""
        return await self._ask(lambda records: records.page(wanted, limit))

    async def troubled(self, limit: int) -> list[Record]:
        """Files that were refused or have failed, those of the latest failures."""
        return await self._ask(lambda records: records.troubled(limit))

    async def muster(self, most: int, besides: str) -> Muster:
        """At most so many nodes of the fleet, and so many files that others than `besides` work on."""
        return await self._ask(lambda records: records.muster(most, besides))

    async def close(self) -> None:
        """Let go of the ledger."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._stack.close)
        self._executor.shutdown(wait=False)

    async def _ask(self, question: Callable[[Records], R]) -> R:
        def run() -> R:
            if self._records is None:
                self._records = self._stack.enter_context(opened(self.url))
            return question(self._records)

        return await asyncio.get_running_loop().run_in_executor(self._executor, run)
