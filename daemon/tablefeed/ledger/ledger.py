"""The ledger as the rest of the daemon sees it: async methods, each durable when it returns.

How that is done is `committer.py`'s; here is what can be done.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeVar

import sqlalchemy as sa
import structlog

from tablefeed.errors import DeliveryError, DiskTrouble, LedgerUnusable
from tablefeed.ledger import arrivals, engine, feeds, queries, sqlite, transitions
from tablefeed.ledger.books import Books
from tablefeed.ledger.changes import Closing, Delivery, Failure
from tablefeed.ledger.claim import Want, claim
from tablefeed.ledger.member import Member, Taking
from tablefeed.ledger.messages import Message, PausesChanged
from tablefeed.ledger.nodes import Beat
from tablefeed.ledger.outbox import Outbox
from tablefeed.ledger.outlast import LONGEST_WAIT
from tablefeed.model import Entry, FileVersion, Grant, Notice, Receipt
from tablefeed.retry import LONGEST_ASKED

R = TypeVar("R")
log = structlog.get_logger("ledger")

_LAST_PATIENCE = 10.0
"""Seconds that the database gets to answer at the end."""


class Ledger(Books):
    """The durable record of every file version, and the queue of those still open.

    While the disk is full or broken, transitions wait inside until they are durable: nothing is claimed, nothing is
    moved, and nothing is lost. Raises LedgerUnusable where waiting cannot help.
    """

    def __init__(
        self,
        url: str,
        *,
        owner: str,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        committed: Callable[[float, int], None] = lambda _seconds, _transitions: None,
        member: Member | None = None,
    ) -> None:
        """`owner` marks this daemon's claims; `clock` gives Unix seconds.

        `committed` is called on the ledger's thread with what each commit took and how many transitions it made.
        `member`: this daemon's part in a fleet, which a ledger on PostgreSQL needs, and which marks its claims then.
        """
        # Well within a lease, so that all nodes are back before one is taken for dead.
        wait = min(LONGEST_WAIT, member.lease / 3) if member else LONGEST_WAIT
        super().__init__(url, clock=clock, sleep=sleep, committed=committed, longest_wait=wait)
        self._owner = owner
        self._member = member
        self._lock: sqlite.Lock | None = None
        self._held: dict[int, str] = {}
        """Who claimed the rows that are worked on here: an owner of this process, now or in an earlier epoch."""
        if member is not None:
            self._places = ("", member.name)
        self.outbox = Outbox(self._do, self._ask, member.name if member else "", self._whose)

    @property
    def node(self) -> str:
        """What this daemon is called in its fleet; empty: there is none."""
        return self._member.name if self._member else ""

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

    async def _renewed(self, member: Member, troubles: str | None = None) -> Beat:
        beat: Beat
        beat, before = await self._do(member.beat, troubles)
        member.renewed(before if beat.holds else -math.inf)
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

    async def unknown(self, versions: Sequence[FileVersion]) -> list[FileVersion]:
        """Those versions that are neither open nor closed and left in their directory."""
        return await self._ask(queries.unknown, versions, self._nodes)

    async def enqueue(self, versions: Sequence[FileVersion]) -> int:
        """Queue settled versions; returns how many are new. A replaced version that still waited is `gone`."""
        count: int = await self._do(arrivals.enqueue, arrivals.Found(versions, self._nodes))
        return count

    async def refuse(self, version: FileVersion, error: DeliveryError, notice: Notice | None = None) -> int:
        """Record a version that never got into the queue as rejected; returns its id."""
        entry_id: int = await self._do(arrivals.refuse, (self._whose(version.feed), version, error, notice))
        return entry_id

    async def claim(self, wants: Sequence[Want]) -> list[Entry]:
        """Take due rows for this daemon; nothing while it still works on what it held in an epoch that is over."""
        if any(owner != self._owner for owner in self._held.values()):
            return []
        owner = self._owner
        placed = [replace(want, node=self._whose(want.feed)) for want in wants] if self._nodes else wants
        entries: list[Entry]
        if self._member is None:
            entries = await self._do(claim, (owner, placed))
        else:
            owner, entries = await self._do(self._member.claim, Taking(placed, [*self._held]))
        self._held |= {entry.id: owner for entry in entries}
        return entries

    def is_ours(self, entry_id: int) -> bool:
        """Whether a row that is worked on here was claimed in this epoch, and not in one that is over."""
        return self._held.get(entry_id) == self._owner

    def holds(self, entry_id: int) -> bool:
        """Whether a row is certainly nobody's but this node's: no lease can be over. For any thread."""
        if self._member is None:
            return True
        return self._held.get(entry_id, self._owner) == self._owner and self._member.is_certain

    async def confirm(self, entry_id: int) -> bool:
        """Whether a row that was claimed here is still this node's; waits for the database while nobody can tell."""
        if not self.holds(entry_id) and self._held.get(entry_id) == self._owner and self._member is not None:
            # Where the epoch is over, whoever gives signs of life begins the next one, and says so.
            await self._renewed(self._member)
        return self.holds(entry_id)

    def give_up(self, entry_id: int) -> None:
        """Work on a row no more, whatever has become of it."""
        self._held.pop(entry_id, None)

    async def _last(self, entry_id: int, work: Awaitable[R]) -> R:
        """What ends the work on a row, which is let go of when that is durable."""
        try:
            return await work
        finally:
            self.give_up(entry_id)

    async def feeds_due(self, after: int, until: int) -> list[str]:
        """Feeds with an open row that becomes due in (after, until], in Unix milliseconds."""
        return await self._ask(queries.feeds_due, self._places, after, until)

    async def next_due(self, after: int) -> int | None:
        """When the next open row becomes due, later than `after`."""
        return await self._ask(queries.next_due, self._places, after)

    async def bring_forward(self, milliseconds: int) -> None:
        """Let all that waits become due so much earlier, because the clock has been set back by that."""
        await self._do(transitions.bring_forward, milliseconds)

    async def granted(self, entry_id: int, grant: Grant) -> bool:
        """Keep a grant, before it is used for the first time; False: the row is not this node's any more."""
        return bool(await self._do(transitions.granted, (self._held.get(entry_id), entry_id, grant)))

    async def uploaded(
        self,
        entry_id: int,
        receipt: Receipt,
        *,
        target: str | None = None,
        duplicate_of: int | None = None,
        notice: Notice | None = None,
    ) -> bool:
        """Record the store's 2xx, before the file is moved; a cancelled caller does not keep that from being done.

        `target`: the datatable in full; `duplicate_of`: the row that delivered the content, when this one did not;
        `notice`: for the feed's webhook, in the same transaction. False: the row is not this node's any more.
        """
        delivery = Delivery(entry_id, receipt, target, duplicate_of, notice, self.node)
        return bool(await self._see_through(transitions.uploaded, (self._held.get(entry_id), delivery)))

    async def archived(self, closing: Closing) -> bool:
        """Close a delivered row, or one that was skipped, after its move, also where the caller is cancelled."""
        item = (self._held.get(closing.entry_id), closing)
        return bool(await self._last(closing.entry_id, self._see_through(transitions.archived, item)))

    async def rejected(self, entry_id: int, error: DeliveryError, notice: Notice | None = None) -> bool:
        """Close a row whose file can never be delivered, before it is moved."""
        item = (self._held.get(entry_id), entry_id, error, notice)
        return bool(await self._last(entry_id, self._do(transitions.rejected, item)))

    async def set_aside(self, closing: Closing) -> bool:
        """Record where a rejected file has been moved to."""
        return bool(await self._do(transitions.set_aside, closing))

    async def gone(self, entry_id: int) -> bool:
        """Close a row whose version vanished before it was sent."""
        return bool(await self._last(entry_id, self._do(transitions.gone, (self._held.get(entry_id), entry_id))))

    async def failed(self, failure: Failure) -> None:
        """Put a row back until its next try."""
        item = (self._held.get(failure.entry_id), failure)
        await self._last(failure.entry_id, self._do(transitions.failed, item))

    async def empty_journal(self) -> None:
        """Let nothing that was cleared lie in the journal any longer."""

        def run() -> None:
            with engine.translated(self._url):
                engine.empty_journal(self._conn)

        await self._outlast(lambda: asyncio.get_running_loop().run_in_executor(self._executor, run))

    async def put_back(self, entry_id: int) -> None:
        """Give up the claim of a row that was not tried."""
        await self._last(entry_id, self._do(transitions.put_back, (self._held.get(entry_id), entry_id)))

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
