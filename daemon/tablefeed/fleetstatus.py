"""What people are shown of a fleet on any node: who is in it, and all feeds with what is in their way anywhere."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace

from tablefeed.ledger.census import Census
from tablefeed.ledger.muster import Muster
from tablefeed.nodes import FleetStatus, HeldStatus, NodeStatus
from tablefeed.status import FeedStatus, Kind, Trouble, state_of

NODES_SHOWN = 200
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
    nodes = _servers_of(fleet, today)
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


def _servers_of(fleet: FleetStatus, today: Callable[[str], tuple[int, int]]) -> dict[str, tuple[str, ...]]:
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
            found.setdefault(feed, []).append(_stale_there(record.stale_at, node))
    return found


def _stale_there(since: int, node: str = "") -> Trouble:
    why = "no file has arrived for longer than `expect_every` says there"
    return Trouble(Kind.STALE, why, "See its node's page", since, node=node)


def _feed_elsewhere(name: str, nodes: tuple[str, ...], census: Census, today: tuple[int, int]) -> FeedStatus:
    """A feed that only other nodes serve, as far as the ledger tells. `today`: files and bytes delivered."""
    open_files = census.backlogs(name)
    # Asked for by their keys: a fleet has thousands, and this is done for each of them.
    records = [record for node in ("", *nodes) if (record := census.feeds.get((node, name)))]
    shared = census.feeds.get(("", name))
    troubles = () if shared is None or shared.stale_at is None else (_stale_there(shared.stale_at),)
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
