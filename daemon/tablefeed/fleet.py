"""This daemon among others that share its ledger: signs of life, and what follows when a node gives none."""

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Protocol

import structlog

from tablefeed.ledger.nodes import Beat, Node
from tablefeed.ledger.reports import steadied, written
from tablefeed.nodes import NodeTrouble

log = structlog.get_logger("fleet")

_BEATS = 3
"""Signs of life in the time of a lease."""


class LedgerPort(Protocol):
    """What a fleet needs of the ledger."""

    async def beat(self, troubles: str) -> Beat:
        """Give a sign of life with these troubles, and take over from nodes that give none."""


class Fleet:
    """One node's view of all."""

    def __init__(
        self,
        ledger: LedgerPort,
        name: str,
        lease: float,
        *,
        sleep: Callable[[float], Awaitable[None]],
        lost: Callable[[], None],
        came_free: Callable[[], None],
        counted: Callable[[int], None],
        beaten: Callable[[], None],
        troubles: Callable[[], Iterable[NodeTrouble]],
    ) -> None:
        """`lease` in seconds; `troubles` gives what the others are told of this node's, the worst first.

        `lost` is called when others have taken over what this node worked on, `came_free` when files of another may be
        claimed here, `counted` with the number of nodes that live, `beaten` after each sign of life.
        """
        self._ledger = ledger
        self.name = name
        self._lease = lease
        self._sleep = sleep
        self._lost = lost
        self._came_free = came_free
        self._counted = counted
        self._beaten = beaten
        self._troubles = troubles
        self._told: list[NodeTrouble] = []
        self.nodes: tuple[Node, ...] = ()
        """All that ever registered, as they were at the last sign of life."""
        self.now = 0
        """The database's clock at that time, in Unix milliseconds."""

    @property
    def living(self) -> Collection[str]:
        """Those that gave a sign of life within their lease."""
        return [node.name for node in self.nodes if node.lives(self.now)]

    async def run(self) -> None:
        """Give signs of life until cancelled."""
        while True:
            await self.turn()
            await self._sleep(self._lease / _BEATS)

    async def turn(self) -> None:
        """One sign of life, and what follows from it."""
        self._told = steadied(self._troubles(), self._told)
        beat = await self._ledger.beat(written(self._told))
        if not beat.holds:
            log.error(
                "lease_lost",
                node=self.name,
                effect="others have taken over the files that this node worked on; it begins anew",
                remedy="if nobody stopped it, see whether this machine or its way to PostgreSQL hung",
            )
            self._lost()
        if beat.over:
            effect = "their shared files go on elsewhere"
            log.warning("nodes_over", nodes=list(beat.over), files=beat.taken_over, effect=effect)
        if beat.over or beat.letters:
            self._came_free()
        self.nodes, self.now = beat.nodes, beat.now
        self._counted(len(self.living))
        self._beaten()
