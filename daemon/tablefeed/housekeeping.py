"""What is done once an hour: refused files that could not be moved, and what has grown: archives, history, journal."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from tablefeed.archive.moves import Disk, lstat
from tablefeed.archive.removal import Old, remove_old
from tablefeed.errors import DiskTrouble
from tablefeed.ledger import Cursor, Ledger, Purge
from tablefeed.model import Entry, Feed, FileVersion
from tablefeed.presence import assert_present

log = structlog.get_logger("housekeeping")

PERIOD = 3_600.0
"""Seconds between two passes."""
BATCH = 1_000
_START: Cursor = (0, 0)

T = TypeVar("T")


class Housekeeper:
    """Keeps archives and ledger from growing for ever."""

    def __init__(
        self,
        feeds: Mapping[str, Feed],
        ledger: Ledger,
        leftovers: Callable[[], Awaitable[None]],
        executor: Executor,
        *,
        wall: Callable[[], float],
        history_keep: float,
    ) -> None:
        """`leftovers` moves refused files that could not be moved; `history_keep` in seconds, 0: for ever."""
        self._feeds = feeds
        self._ledger = ledger
        self._leftovers = leftovers
        self._executor = executor
        self._wall = wall
        self._history_keep = history_keep
        self._disk = Disk()
        self._removed_until: dict[str, Cursor] = {}

    async def run(self) -> None:
        """One pass after the other, for ever. Raises what the ledger raises."""
        while True:
            await self.tidy()
            await asyncio.sleep(PERIOD)

    async def tidy(self) -> None:
        """One pass."""
        await self._leftovers()
        ours = {feed.name: feed for feed in [*self._feeds.values()] if self._is_ours(feed)}
        for feed in ours.values():
            if feed.archive_keep:
                await self._remove_archived(feed)
        if self._history_keep:
            before = self._ago(self._history_keep)
            await self._forget_vanished(before, ours)
            kept = tuple(feed.name for feed in self._feeds.values() if feed.archive_keep)
            while await self._ledger.purge(Purge(before, BATCH, kept)) == BATCH:
                pass
        await self._ledger.empty_journal()

    def _is_ours(self, feed: Feed) -> bool:
        """Whether this node is the one that looks after the feed's directories: of two that remove an old file at the
        same time, one might remove what has got its name since."""
        return not feed.shared or self._ledger.scans(feed.name)

    def _ago(self, seconds: float) -> int:
        return round((self._wall() - seconds) * 1000)

    async def _remove_archived(self, feed: Feed) -> None:
        """Delete what has been in the archive for longer than `archive_keep`. What fails is tried by the next pass."""
        before = self._ago(feed.archive_keep)
        cursor = self._removed_until.get(feed.name, _START)
        first_trouble: tuple[str, str] | None = None
        removed = 0
        while kept := await self._ledger.archived_before(feed.name, before, cursor, BATCH):
            cursor = (kept[-1].closed_at, kept[-1].entry.id)
            old = [Old(it.entry.id, it.entry.version, Path(it.destination)) for it in kept if it.destination]
            removal = await self._in_thread(partial(remove_old, feed, old, self._disk))
            await asyncio.gather(*(self._ledger.removed(entry_id) for entry_id in removal.settled))
            removed += removal.removed
            for path in removal.strangers:
                log.warning("archive_changed", feed=feed.name, path=path, effect="what lies there now stays")
            first_trouble = first_trouble or next(iter(removal.troubles.items()), None)
            if first_trouble is None and len(removal.settled) == len(kept):
                self._removed_until[feed.name] = cursor
        if removed:
            log.info("archive_cleaned", feed=feed.name, removed=removed)
        if first_trouble is not None:
            path, reason = first_trouble
            log.warning("archive_not_cleaned", feed=feed.name, path=path, reason=reason, effect="tried again later")

    async def _forget_vanished(self, before: int, ours: Mapping[str, Feed]) -> None:
        """Let go of the rows of files of these feeds that were left in place, once those have been taken away."""
        cursor = _START
        while kept := await self._ledger.left_before(before, cursor, BATCH):
            cursor = (kept[-1].closed_at, kept[-1].entry.id)
            mine = [(feed, it.entry) for it in kept if (feed := ours.get(it.entry.version.feed))]
            vanished = await self._in_thread(partial(_vanished, mine))
            await asyncio.gather(*(self._ledger.vanished(entry_id) for entry_id in vanished))

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)


def _vanished(left: Sequence[tuple[Feed, Entry]]) -> list[int]:
    return [entry.id for feed, entry in left if _has_vanished(feed, entry.version)]


def _has_vanished(feed: Feed, version: FileVersion) -> bool:
    """Whether the path holds another version or none, its directory being there."""
    try:
        found = lstat(feed.directory / version.path)
        if found is None:
            assert_present(feed.directory, version)
    except (OSError, DiskTrouble):
        return False
    return found is None or not version.describes(found)
