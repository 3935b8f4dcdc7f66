"""The queue: how rows come into it, are claimed, and go their way. Each method is durable when it returns."""

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from tablefeed.errors import DeliveryError
from tablefeed.ledger import arrivals, queries, transitions
from tablefeed.ledger.books import Books
from tablefeed.ledger.changes import Closing, Delivery, Failure
from tablefeed.ledger.claim import Want, claim
from tablefeed.ledger.member import Member, Taking
from tablefeed.ledger.nodes import Beat
from tablefeed.ledger.outbox import Outbox
from tablefeed.ledger.outlast import LONGEST_WAIT
from tablefeed.model import Entry, FileVersion, Grant, Notice, Receipt

R = TypeVar("R")


class Queue(Books):
    """A part of the ledger: the rows that are open, and who holds each of them."""

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
        self._held: dict[int, str] = {}
        """Who claimed the rows that are worked on here: an owner of this process, now or in an earlier epoch."""
        if member is not None:
            self._places = ("", member.name)
        self.outbox = Outbox(self._do, self._ask, member.name if member else "", self._whose)

    @property
    def node(self) -> str:
        """What this daemon is called in its fleet; empty: there is none."""
        return self._member.name if self._member else ""

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

    async def _renewed(self, member: Member, troubles: str | None = None) -> Beat:
        """A sign of life, and whether it was in time; None: there is nothing new to tell of troubles."""
        beat: Beat
        beat, before = await self._do(member.beat, troubles)
        member.renewed(before if beat.holds else -math.inf)
        return beat

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

    async def put_back(self, entry_id: int) -> None:
        """Give up the claim of a row that was not tried."""
        await self._last(entry_id, self._do(transitions.put_back, (self._held.get(entry_id), entry_id)))
