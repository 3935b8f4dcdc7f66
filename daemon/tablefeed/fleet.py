"""This daemon among others that share its ledger: signs of life, and what follows when a node gives none.

And what of it all people are shown.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import asdict, replace
from typing import Protocol

import structlog

from tablefeed.ledger.census import Census
from tablefeed.ledger.muster import Muster
from tablefeed.ledger.nodes import Beat, Node
from tablefeed.ledger.reports import steadied, written
from tablefeed.nodes import FleetStatus, HeldStatus, NodeStatus, NodeTrouble
from tablefeed.status import FeedStatus, Kind, Trouble, state_of

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


SHOWN = 200
"""Nodes that are listed, and files that others work on."""


def fleet_status(muster: Muster, here: str) -> FleetStatus:
    """The fleet as it is shown; `here` is the node that is asked."""
    nodes = tuple(
        NodeStatus(
            standing.node.name,
            standing.node.name == here,
            standing.living,
            standing.node.started_at,
            standing.node.seen_at,
            standing.node.version,
            standing.feeds,
            standing.uploading,
            standing.archiving,
            standing.waiting,
            standing.report.troubles,
            standing.report.more,
        )
        for standing in muster.nodes
    )
    held = tuple(HeldStatus(**asdict(held)) for held in muster.held)
    return FleetStatus(muster.now or None, muster.living, muster.over, nodes, held)


def feeds_of_all(
    own: Iterable[FeedStatus], fleet: FleetStatus, census: Census, today: Callable[[str], tuple[int, int]]
) -> tuple[FeedStatus, ...]:
    """The `own` feeds, then those that only other nodes serve, each with the nodes and with what is in its way there.

    `today` gives files and bytes of a feed that were delivered today.
    """
    nodes = servers_of(fleet, today)
    others = [node for node in fleet.nodes if not node.here]
    told, silent = troubles_of(others), _silent(others, census)
    feeds = {feed.name: feed for feed in own}
    for name in sorted(nodes.keys() - feeds.keys()):
        feeds[name] = _feed_elsewhere(name, nodes[name], census, today(name))
    return tuple(
        _in_fleet(feed, nodes.get(name, ()), [*told.get(name, ()), *silent.get(name, ())])
        for name, feed in feeds.items()
    )


def _in_fleet(feed: FeedStatus, nodes: tuple[str, ...], elsewhere: Iterable[Trouble]) -> FeedStatus:
    troubles = (*feed.troubles, *elsewhere)
    return replace(feed, nodes=nodes, troubles=troubles, state=state_of(feed.paused_at, troubles))


def servers_of(fleet: FleetStatus, today: Callable[[str], tuple[int, int]]) -> dict[str, tuple[str, ...]]:
    """The nodes that serve each feed: those that live, or for which files wait.

    Where there are none, those that are over and have delivered `today`, which gives files and bytes of a feed.
    """
    found = _by_feed(node for node in fleet.nodes if node.living or node.waiting)
    over = _by_feed(node for node in fleet.nodes if not (node.living or node.waiting))
    return {feed: nodes for feed, nodes in over.items() if today(feed)[0]} | found


def _by_feed(nodes: Iterable[NodeStatus]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for node in nodes:
        for feed in node.feeds:
            found.setdefault(feed, []).append(node.name)
    return {feed: tuple(names) for feed, names in found.items()}


def troubles_of(nodes: Iterable[NodeStatus]) -> dict[str, tuple[Trouble, ...]]:
    """What these nodes have told of each feed."""
    found: dict[str, list[Trouble]] = {}
    for node in nodes:
        for it in node.troubles:
            # One of another version may have trouble of a sort that is not known here.
            kind = _KINDS.get(it.kind, Kind.DELIVERY)
            reason = it.reason or "why, its own page tells"
            trouble = Trouble(kind, reason, it.remedy, it.since, node="" if node.here else node.name)
            found.setdefault(it.feed, []).append(trouble)
    return {feed: tuple(troubles) for feed, troubles in found.items()}


_KINDS = {kind.value: kind for kind in Kind}


def _silent(nodes: Iterable[NodeStatus], census: Census) -> dict[str, list[Trouble]]:
    """The feeds of these nodes in whose own directories there no file has arrived for too long."""
    served = {node.name: node.feeds for node in nodes if node.living}
    found: dict[str, list[Trouble]] = {}
    for (node, feed), record in census.feeds.items():
        if record.stale_at is not None and feed in served.get(node, ()):
            found.setdefault(feed, []).append(_stale(record.stale_at, node))
    return found


def _stale(since: int, node: str = "") -> Trouble:
    why = "no file has arrived for longer than `expect_every` says there"
    return Trouble(Kind.STALE, why, "See its node's page", since, node=node)


def _feed_elsewhere(name: str, nodes: tuple[str, ...], census: Census, today: tuple[int, int]) -> FeedStatus:
    """A feed that only other nodes serve, as far as the ledger tells. `today`: files and bytes delivered."""
    open_files = census.backlogs(name)
    # Asked for by their keys: a fleet has thousands, and this is done for each of them.
    records = [record for node in ("", *nodes) if (record := census.feeds.get((node, name)))]
    shared = census.feeds.get(("", name))
    troubles = () if shared is None or shared.stale_at is None else (_stale(shared.stale_at),)
    paused_at = min(filter(None, (record.paused_at for record in records)), default=None)
    return FeedStatus(
        name=name,
        directory="",
        datatable_id="",
        state=state_of(paused_at, troubles),
        queued=open_files.queued.count,
        queued_bytes=open_files.queued.bytes,
        uploading=open_files.uploading.count,
        archiving=open_files.uploaded.count,
        retrying=open_files.failing,
        refused=census.refused.get(name, 0),
        delivered_today=today[0],
        bytes_today=today[1],
        oldest_queued_at=open_files.queued.oldest_at,
        oldest_undelivered_at=open_files.oldest_undelivered_at,
        next_try_at=open_files.next_try_at,
        last_arrival_at=max(filter(None, (record.arrived_at for record in records)), default=None),
        last_delivery_at=max(filter(None, (record.delivered_at for record in records)), default=None),
        paused_at=paused_at,
        here=False,
        troubles=troubles,
    )
