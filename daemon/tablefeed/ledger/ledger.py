"""The ledger as the rest of the daemon sees it: async methods, each durable when it returns.

What can be done with files is `queue.py`'s and `books.py`'s, and how it is done `committer.py`'s. Here is how the
ledger is opened and closed, and what it is among the nodes of a fleet.
"""

import asyncio
from collections.abc import Collection

import sqlalchemy as sa
import structlog

from tablefeed.errors import DiskTrouble, LedgerUnusable
from tablefeed.ledger import engine, feeds, sqlite, transitions
from tablefeed.ledger.messages import Message, PausesChanged
from tablefeed.ledger.nodes import Beat
from tablefeed.ledger.queue import Queue
from tablefeed.model import Notice
from tablefeed.retry import LONGEST_ASKED

log = structlog.get_logger("ledger")

_LAST_PATIENCE = 10.0
"""Seconds that the database gets to answer at the end."""


class Ledger(Queue):
    """The durable record of every file version, and the queue of those still open.

    While the disk is full or broken, transitions wait inside until they are durable: nothing is claimed, nothing is
    moved, and nothing is lost. Raises LedgerUnusable where waiting cannot help.
    """

    _lock: sqlite.Lock | None = None
    """What keeps a second daemon from a ledger in SQLite."""

    async def open(self) -> int:
        """Lock, open, migrate, and put back what a daemon that died held; returns how many rows that were.

        Raises LedgerUnusable, with the remedy in words.
        """
        try:
            held: int = await asyncio.get_running_loop().run_in_executor(self._executor, self._open)
            await self._batcher.submit((transitions.bound_waits, round(LONGEST_ASKED * 1000)))
        except DiskTrouble as error:
            self._abandon()
            raise LedgerUnusable(str(error), *engine.remedy(self._url, str(error))) from None
        except BaseException:
            self._abandon()
            raise
        self._was_opened = True
        return held

    def _abandon(self) -> None:
        if self._lock:
            self._lock.release()
        self._executor.submit(self._drop)
        self._executor.shutdown(wait=False)

    def _open(self) -> int:
        path = engine.sqlite_file(self._url)
        if path is not None:
            sqlite.prepare_file(path)
            self._lock = sqlite.Lock(path.with_name(path.name + sqlite.LOCK_SUFFIX))
            with self._transaction() as conn:
                return transitions.release(conn, self._now(), [None])[0]
        if self._member is None:
            raise AssertionError("a ledger on PostgreSQL is a fleet's")
        before = self._member.now()
        with self._transaction() as conn:
            self._owner, put_back = self._member.register(conn)
        self._member.renewed(before)
        return put_back

    def _connect(self) -> sa.Connection:
        if self._member is None:
            return engine.connect(self._url)
        return self._member.connect(self._url, self._lines)

    async def close(self) -> None:
        """Put back what this daemon still holds, then let go of the ledger.

        Where that cannot be written now, the next start does it, or another node of the fleet.
        """
        with self._let_go_after(_LAST_PATIENCE):
            try:
                await self._leave()
            except (DiskTrouble, LedgerUnusable) as error:
                log.warning("ledger_unwritable", reason=str(error), effect="the next start puts back what was begun")
            await self._batcher.close()
            await asyncio.get_running_loop().run_in_executor(self._executor, self._drop)
        self._executor.shutdown(wait=False)
        if self._lock:
            self._lock.release()

    async def _leave(self) -> None:
        try:
            await self._batcher.submit((transitions.release, self._owner))
        except DiskTrouble:
            # The connection may have ended while nobody used it, as when a server was restarted.
            await self._batcher.submit((transitions.release, self._owner))
        if self._member is not None:
            await self._batcher.submit((self._member.leave, None))

    async def beat(self, troubles: str = "") -> Beat:
        """Give a sign of life, and take over from nodes that give none. Only in a fleet.

        `troubles`: what the others are to know of this node's, as `reports` writes it.
        """
        if self._member is None:
            raise AssertionError("only a fleet's nodes give signs of life")
        # Longer than any statement may take: who waits for more is not answered any more.
        with self._let_go_after(1.5 * self._member.lease):
            beat = await self._renewed(self._member, troubles)
            if beat.holds:
                self._member.reported(troubles)
            else:
                self._owner, before = await self._do(self._member.begin_anew, None)
                self._member.renewed(before)
        return beat

    def scans(self, feed: str) -> bool:
        """Whether this node is the one that looks at the directory of a shared feed; without a fleet it is."""
        return self._member is None or feed in self._member.scans

    async def tell(self, message: Message) -> None:
        """Tell the other nodes of the fleet."""
        if self._member is not None:
            await self._do(self._member.tell, message)

    async def may_scan(self, feed: str) -> bool:
        """Whether the feed's directory is this node's to scan, also for as long as no other node does it."""
        if self._member is None or self._whose(feed):
            return True
        return bool(await self._do(self._member.may_scan, feed))

    async def leave_scan(self, feed: str) -> bool:
        """Let another node scan the feed's directory; False: no other has it."""
        if self._member is None or self._whose(feed):
            return False
        await self._do(self._member.leave_scans, feed)
        return True

    async def empty_journal(self) -> None:
        """Let nothing that was cleared lie in the journal any longer."""

        def run() -> None:
            with engine.translated(self._url):
                engine.empty_journal(self._conn)

        await self._outlast(lambda: asyncio.get_running_loop().run_in_executor(self._executor, run))

    async def know(
        self, names: Collection[str], shared: Collection[str] = (), told: Collection[str] | None = None
    ) -> None:
        """Keep from now on what happens to these feeds; `shared`: those whose directory several nodes have.

        `told`: those of the shared ones that have a webhook here; None: all.
        """
        if self._member is not None:
            self._nodes = {name: "" if name in shared else self._member.name for name in names}
        await self._do(feeds.know, [(self._whose(name), name) for name in names])
        if self._member is not None:
            own = [name for name in names if name not in shared]
            await self._do(self._member.adopt, ([*shared], own, [*(shared if told is None else told)]))

    async def set_paused(self, feed: str, since: int | None, notice: Notice | None = None) -> None:
        """Keep that somebody has paused a feed, in Unix milliseconds; None: that it goes on."""
        await self._do(feeds.set_paused, (feed, since, notice))
        await self.tell(PausesChanged())
