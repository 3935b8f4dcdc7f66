"""What has been seen of one feed and what becomes of it: queued, refused, or waited for."""

import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol, assert_never

from tablefeed.dispatch import Front
from tablefeed.errors import FileRefused
from tablefeed.ledger import comes_first
from tablefeed.model import Feed, FileVersion, printable
from tablefeed.readiness import Ignore, Refuse, Settled, Wait
from tablefeed.watch.judge import Judge, Sightings, Verdict
from tablefeed.watch.pending import Pending


class LedgerPort(Protocol):
    """What an intake asks of the ledger."""

    async def unknown(self, versions: Sequence[FileVersion]) -> list[FileVersion]:
        """Those versions that are neither open nor closed and left in place."""
        ...

    async def enqueue(self, versions: Sequence[FileVersion]) -> object:
        """Queue settled versions, durably; an older version that still waits at the same path is gone."""
        ...

    async def refuse(self, version: FileVersion, error: FileRefused) -> object:
        """Record a version that can never be delivered."""
        ...


class Seen:
    """The files of a feed that are not in the ledger yet."""

    def __init__(
        self,
        feed: Feed,
        ledger: LedgerPort,
        judge: Judge,
        limit: int,
        *,
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
        on_queued: Callable[[str], None],
    ) -> None:
        """`limit`: files that it keeps in memory at most. `in_thread` calls what blocks. `on_queued` gets the feed's
        name when files may have become due."""
        self._feed = feed
        self._ledger = ledger
        self._judge = judge
        self._limit = limit
        self._in_thread = in_thread
        self._on_queued = on_queued
        self.scans = 0
        """Those that have begun."""
        self.pending = Pending(limit)
        """What is not settled yet."""

    def forget(self) -> None:
        """Another node looks at all of it."""
        self.pending = Pending(self._limit)

    def begin_scan(self) -> None:
        """A whole scan begins: what is not seen again by its end is there no more."""
        self.scans += 1

    def end_scan(self, now: float) -> None:
        """It has ended; `now` in Unix seconds."""
        self.pending.expire(self.scans, now)

    def front(self) -> Front | None:
        """The first, in the feed's order, of the files that are not whole yet; None: not all are known."""
        if not self.pending.is_complete:
            return None
        first = Front()
        for version, wait in self.pending.versions():
            if first.ahead is None or comes_first(self._feed.order, version, first.ahead):
                first = Front(version, wait.reason)
        return first

    async def note(self, sightings: Sightings) -> None:
        """Take in what a look at some paths has shown of files."""
        await self.take(sightings.files)
        for path, wait in sightings.troubles:
            self.pending.put(path, self.pending.history(path), wait, self.scans)
        for path in sightings.others:
            self.pending.drop(path)

    async def take(self, entries: Sequence[tuple[str, os.stat_result]]) -> bool:
        """Judge the files that the ledger does not know, and do what follows; returns whether there were any."""
        found = {FileVersion.of(self._feed.name, path, it): it for path, it in entries}
        if not found:
            return False
        unknown = await self._ledger.unknown([*found])
        if self.pending:
            for version in found.keys() - set(unknown):
                self.pending.drop(version.path)
        if unknown:
            files = [(version.path, found[version], self.pending.history(version.path)) for version in unknown]
            await self._act(await self._in_thread(partial(self._judge.judge, files)))
        return bool(unknown)

    async def _act(self, verdicts: Iterable[Verdict]) -> None:
        settled: list[FileVersion] = []
        refused: list[tuple[FileVersion, FileRefused]] = []
        for verdict in verdicts:
            self.pending.drop(verdict.path)
            match verdict.decision:
                case Settled():
                    settled.append(verdict.version)
                case Wait() as wait:
                    self.pending.put(verdict.path, verdict.history, wait, self.scans, verdict.version)
                case Refuse(reason, remedy):
                    path = printable(str(self._feed.directory / verdict.path))
                    refused.append((verdict.version, FileRefused(path, reason, remedy)))
                case Ignore():
                    pass
                case _:
                    assert_never(verdict.decision)
        if settled:
            await self._ledger.enqueue(settled)
            self._on_queued(self._feed.name)
        for version, error in refused:
            await self._ledger.refuse(version, error)
