"""A daemon's part in a fleet: its name, its epoch and its lease, and what it locks on its connection.

What changes the ledger runs on its thread; `now`, `is_certain`, `scans` and `renewed` may be asked and told anywhere.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from tablefeed.errors import DiskTrouble, LedgerUnusable
from tablefeed.ledger import engine, nodes, outbox, postgres
from tablefeed.ledger.changes import put_back_all
from tablefeed.ledger.claim import Want, claim
from tablefeed.ledger.lines import Lines
from tablefeed.ledger.messages import Message, written
from tablefeed.ledger.nodes import Beat
from tablefeed.ledger.postgres import Session
from tablefeed.ledger.schema import files
from tablefeed.model import Entry


@dataclass(slots=True)
class Taking:
    """One claim, with what its last try took, for the next one."""

    wants: Sequence[Want]
    held: Collection[int] = ()
    """The rows that are worked on here, when it was asked for."""
    anew: bool = False
    """It is the first one of a connection."""
    took: list[int] = field(default_factory=list)
    owners: set[str] = field(default_factory=set)


class Member:
    """One node of a fleet."""

    def __init__(self, name: str, lease: float, steady: Callable[[], float]) -> None:
        """`lease` in seconds; `steady` gives seconds that only grow, also while the process stands still."""
        self.name = name
        self.lease = lease
        self.epoch = 0
        self._steady = steady
        self._certain_until = -math.inf
        self._in_touch_since = math.inf
        self._beat_at = -math.inf
        self._clocks: tuple[float, float] | None = None
        """What the database's clock told last in a sign of life, and this one's when that began, in seconds."""
        self._reported: str | None = None
        """What this node's row says of its troubles; None: that is not certain."""
        self._session: Session | None = None
        self._is_new = False
        """Nothing has been claimed on this connection yet."""
        self._scans: set[str] = set()
        self._shared: frozenset[str] = frozenset()
        self._told: frozenset[str] = frozenset()
        """Those of the shared feeds that have a webhook here."""

    def now(self) -> float:
        """Seconds that only grow, of the clock that leases are judged by."""
        return self._steady()

    @property
    def is_certain(self) -> bool:
        """Whether nobody can have taken over from this node: its lease is not over, by its own clock."""
        return self._steady() < self._certain_until

    @property
    def scans(self) -> frozenset[str]:
        """The shared feeds whose directories this node scans."""
        return frozenset(self._scans)

    def connect(self, url: str, lines: Lines) -> sa.Connection:
        """A connection that holds the node's name, and is among `lines`.

        Raises LedgerUnusable where another daemon has the name, DiskTrouble where waiting helps.
        """
        connection = engine.connect(url, postgres.session_name(self.name), lines)
        self._scans.clear()
        self._is_new = True
        self._reported = None
        self._in_touch_since = self._steady()
        try:
            self._lock_name(connection, url)
            self._session = postgres.session_of(connection)
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection

    def _lock_name(self, connection: sa.Connection, url: str) -> None:
        if postgres.lock_node(connection, self.name):
            return
        # The server may take our last connection for alive, until its packets fail.
        if self._session is not None and postgres.end_session(connection, self._session):
            raise DiskTrouble(engine.describe(url), "PostgreSQL has not yet let go of an earlier connection")
        found = {node.name: node for node in nodes.all_nodes(connection)}
        connection.commit()
        since = f", which registered as number {found[self.name].epoch}" if self.name in found else ""
        raise LedgerUnusable(
            f"a daemon called {self.name} uses the ledger {engine.describe(url)}{since}",
            "Give this one another name in [fleet] node, or end that one; one that was cut off is let go of by "
            "PostgreSQL when its connection fails",
        )

    def register(self, conn: sa.Connection) -> tuple[str, int]:
        """Begin the next epoch; returns what it marks claims with, and how many rows earlier epochs gave back."""
        self._reported = None
        self.epoch, put_back = nodes.register(conn, self.name, self._milliseconds, self.epoch)
        return nodes.owner_of(self.name, self.epoch), put_back

    def begin_anew(self, conn: sa.Connection, now: int, items: Sequence[None]) -> list[tuple[str, float]]:
        """As `register`, as a transition: an epoch was found to be over. With the owner comes the time of before."""
        before = self.now()
        owner, _ = self.register(conn)
        return [(owner, before) for _ in items]

    def beat(self, conn: sa.Connection, now: int, items: Sequence[str | None]) -> list[tuple[Beat, float]]:
        """Give a sign of life; with it comes the time of before, for `renewed`.

        An item is what there is to tell of troubles, as `reports` writes it; None: whatever was told before.
        """
        before = self._steady()
        if before - self._beat_at > self.lease / 2:
            self._in_touch_since = before
        self._beat_at = before
        # Where the database was away for all, the others are given the time of a lease to come back as well. So
        # they are where its clock was set ahead, or is another server's: their leases are over by that alone.
        report = next((item for item in reversed(items) if item not in (None, self._reported)), None)
        beat = nodes.beat(conn, self.name, self.epoch, self._milliseconds, report)
        if self._ahead(beat.now / 1000, before) > self.lease / 6:
            self._in_touch_since = before
        if before - self._in_touch_since >= self.lease:
            beat = nodes.take_over(conn, beat)
            beat = replace(beat, letters=self._letters(conn, beat))
        return [(beat, before) for _ in items]

    def _ahead(self, now: float, before: float) -> float:
        """Seconds by which the database's clock was set ahead since the last sign of life, at least.

        `now` is what it tells in the midst of this one, which began at `before`.
        """
        last, self._clocks = self._clocks, (now, before)
        return now - last[0] - (self._steady() - last[1]) if last else 0.0

    def _letters(self, conn: sa.Connection, beat: Beat) -> int:
        if not self._told:
            return 0
        living = [node.name for node in beat.nodes if node.lives(beat.now)]
        return outbox.hand_over(conn, self.name, living, self._told)

    def renewed(self, before: float) -> None:
        """What was asked for at that time is durable: only now may it be relied on. For any thread."""
        self._certain_until = before + self.lease

    def reported(self, troubles: str) -> None:
        """That this was told of troubles is durable: it need not be told again. For any thread."""
        self._reported = troubles

    def claim(self, conn: sa.Connection, now: int, items: Sequence[Taking]) -> list[tuple[str, list[Entry]]]:
        """As `claim.claim`, with the owner it is for: that of this moment, since a claim may have waited long.

        Nothing is claimed in an epoch that others have found to be over: nobody would give it back. What an earlier try
        took whose answer was lost goes back first, if it was taken. So does, at first on each connection, what nobody
        works on here: a server that has taken over from another may lack the last moments, in which it was let go of.
        """
        owner = nodes.owner_of(self.name, self.epoch)
        found = []
        for item in items:
            item.anew, self._is_new = item.anew or self._is_new, False
            if item.anew:
                put_back_all(conn, (files.c.owner == owner) & files.c.id.not_in(item.held))
            if item.took:
                put_back_all(conn, files.c.owner.in_(item.owners) & files.c.id.in_(item.took))
            entries = claim(conn, now, [(owner, item.wants)])[0] if nodes.lives(conn, self.name, self.epoch) else []
            item.took = [entry.id for entry in entries]
            item.owners.add(owner)
            found.append((owner, entries))
        return found

    def leave(self, conn: sa.Connection, now: int, items: Sequence[None]) -> list[None]:
        """Give back all, at the end."""
        self._certain_until = -math.inf
        nodes.leave(conn, self.name, self.epoch)
        return [None for _ in items]

    def adopt(
        self, conn: sa.Connection, now: int, items: Sequence[tuple[Collection[str], Collection[str], Collection[str]]]
    ) -> list[None]:
        """(shared, own, told): let the open rows of these feeds be everybody's, or this node's.

        `told`: the shared ones whose webhooks this node can tell what others leave undone.
        """
        for shared, own, told in items:
            self._shared, self._told = frozenset(shared), frozenset(told)
            nodes.adopt(conn, now, self.name, shared, own)
        # Others may share what is not shared here any more.
        self.leave_scans(conn, now, [*self._scans - self._shared])
        return [None for _ in items]

    def may_scan(self, conn: sa.Connection, now: int, feeds: Sequence[str]) -> list[bool]:
        """Whether these shared feeds are this node's to scan, until its connection ends."""
        for feed in ({*feeds} & self._shared) - self._scans:
            if postgres.lock_scan(conn, feed):
                self._scans.add(feed)
        return [feed in self._scans for feed in feeds]

    def leave_scans(self, conn: sa.Connection, now: int, feeds: Sequence[str]) -> list[None]:
        """Let other nodes scan these feeds."""
        for feed in {*feeds} & self._scans:
            postgres.unlock_scan(conn, feed)
            self._scans.discard(feed)
        return [None for _ in feeds]

    def tell(self, conn: sa.Connection, now: int, items: Sequence[Message]) -> list[None]:
        """Tell all nodes."""
        for text in dict.fromkeys(map(written, items)):
            postgres.notify(conn, text)
        return [None for _ in items]

    @property
    def _milliseconds(self) -> int:
        return round(self.lease * 1000)
