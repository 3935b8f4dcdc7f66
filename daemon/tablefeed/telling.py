"""How the one picture of the daemon is told: in a line for people, in one for systemd, and as plain values for JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tablefeed.model import printable
from tablefeed.status import FeedState, FeedStatus, Snapshot
from tablefeed.units import iso

_FEEDS_NAMED = 5
_NODES_NAMED = 3
"""Of each state, and of each feed."""
_FEWER_NAMED = ((2, 1), (0, 0))
"""Feeds and nodes where those would make the headline too long; where these do too, feeds are counted."""
_HEADLINE = 140
"""Characters of a headline that still is one on a phone."""
_SHORTLY_NAMED = 3
_LONGEST_REASON = 120
"""In one line of `systemctl status`, which systemd cuts."""
_LABELS = {
    FeedState.UNUSABLE: "directory unusable",
    FeedState.BLOCKED: "blocked",
    FeedState.WAITING: "waiting for a server",
    FeedState.STALE: "no file for too long",
    FeedState.PAUSED: "paused",
}


def headline(snapshot: Snapshot) -> str:
    """The state of things in one line: all is well, or what is not, the worst first."""
    if snapshot.ledger_problem:
        return f"the ledger cannot be read: {snapshot.ledger_problem}"
    if snapshot.ledger_held_up:
        return f"the ledger cannot be written: {snapshot.ledger_held_up}"
    text = _told(snapshot, _FEEDS_NAMED, _NODES_NAMED)
    for feeds, nodes in _FEWER_NAMED:
        if len(text) > _HEADLINE:
            text = _told(snapshot, feeds, nodes)
    return text or "all is well"


def _told(snapshot: Snapshot, feeds: int, nodes: int) -> str:
    parts = ["ending: uploads in flight are finished"] if snapshot.draining else []
    missed = [node.name for node in snapshot.fleet.missed]
    if len(missed) == 1:
        parts.append(f"files wait for a node that is away: {missed[0]}")
    elif missed:
        parts.append(f"files wait for nodes that are away: {_some(missed, feeds, 'nodes')}")
    parts += states_of(snapshot.feeds, feeds, nodes)
    refused = sum(feed.refused for feed in snapshot.feeds)
    if refused:
        parts.append(f"{refused} {'file' if refused == 1 else 'files'} refused")
    return "; ".join(parts)


def states_of(feeds: Sequence[FeedStatus], named: int = _FEEDS_NAMED, nodes: int = _NODES_NAMED) -> list[str]:
    """Which of these feeds are not well, in words, the worst first: so many by name, each with so many nodes."""
    return [
        f"{label}: {_some(names, named, 'feed' if len(names) == 1 else 'feeds')}"
        for state, label in _LABELS.items()
        if (names := [called(feed, nodes) for feed in feeds if feed.state is state])
    ]


def called(feed: FeedStatus, most: int = _NODES_NAMED) -> str:
    """A feed's name, and where it is as it is if that is on other nodes alone, of which so many are named."""
    nodes = [trouble.node for trouble in feed.troubles if trouble.state is feed.state]
    if not nodes or "" in nodes:
        return feed.name
    return f"{feed.name} on {_some(nodes, most, 'nodes')}"


def _some(names: Sequence[str], most: int, kind: str) -> str:
    """As `listed`; or only how many there are, of which kind, where none is to be named."""
    return listed(names, most) if most else f"{len(names)} {kind}"


def listed(names: Sequence[str], most: int) -> str:
    """The first of these names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def status_line(snapshot: Snapshot) -> str:
    """One line for `systemctl status`: what goes on, then what a human has to look at."""
    feeds = snapshot.feeds
    uploading = len(snapshot.uploads)
    waiting = sum(feed.queued + feed.uploading + feed.archiving for feed in feeds)
    delivered, refused = sum(feed.delivered_today for feed in feeds), sum(feed.refused for feed in feeds)
    parts = [f"{uploading:,} uploading, {max(0, waiting - uploading):,} queued, {delivered:,} delivered today"]
    if snapshot.ledger_problem:
        parts.append(f"the ledger cannot be read: {_short(snapshot.ledger_problem)}")
    if snapshot.ledger_held_up:
        parts.append(f"the ledger cannot be written: {_short(snapshot.ledger_held_up)}")
    if missed := [node.name for node in snapshot.fleet.missed]:
        parts.append(f"files wait for a node that is away: {listed(missed, _SHORTLY_NAMED)}")
    for state in FeedState:
        named = [_named(feed) for feed in feeds if feed.state is state]
        if named and state is not FeedState.OK:
            parts.append(f"{state}: {listed(named, _SHORTLY_NAMED)}")
    if refused:
        parts.append(f"{refused:,} refused")
    return ("draining: " if snapshot.draining else "") + "; ".join(parts)


def _named(feed: FeedStatus) -> str:
    reason = next((trouble.reason for trouble in feed.troubles), "")
    return f"{called(feed)} ({_short(reason)})" if reason else feed.name


def _short(reason: str) -> str:
    return reason if len(reason) <= _LONGEST_REASON else reason[: _LONGEST_REASON - 1].rstrip() + "…"


def plain(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot for JSON: names as printable text, times in ISO 8601, UTC."""
    values = _plain(asdict(snapshot))
    return {"ok": snapshot.ok, "headline": headline(snapshot), "totals": _totals(snapshot.feeds), **values}


def _totals(feeds: Sequence[FeedStatus]) -> dict[str, Any]:
    names = ("queued", "queued_bytes", "uploading", "archiving", "refused", "delivered_today", "bytes_today")
    last = max((feed.last_delivery_at for feed in feeds if feed.last_delivery_at), default=None)
    return {name: sum(getattr(feed, name) for feed in feeds) for name in names} | {
        "last_delivery_at": last and iso(last)
    }


_TIMES = {"at", "now", "since"}


def _plain(value: Any, key: str = "") -> Any:
    match value:
        case dict():
            return {name: _plain(each, name) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case int() if key in _TIMES or key.endswith("_at"):
            return iso(value)
        case str():
            return printable(value)
        case _:
            return value
