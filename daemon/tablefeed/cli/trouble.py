"""What is in the way, as `tablefeed status` tells it: since when, why, what to do, and what is next. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from tablefeed.cli.words import clock_time, moment, plural, shown, span
from tablefeed.status import FeedState, Kind
from tablefeed.telling import listed

Values = Mapping[str, Any]

NAMED = 3
"""Feeds that are named where one trouble is that of many."""
_KINDS: Mapping[str, str] = {
    Kind.DIRECTORY: "its directory is unusable",
    Kind.DELIVERY: "its files cannot be delivered",
    Kind.ARCHIVE: "its files cannot be archived",
    Kind.SERVER: "its server fails",
    Kind.STALE: "a file is overdue",
}


def troubles(snapshot: Values, now: float) -> Iterator[Text]:
    """One entry for each thing that keeps feeds, a server or a node from what it should do; `now` in Unix seconds."""
    if snapshot.get("ledger_held_up"):
        it = {"reason": snapshot["ledger_held_up"]}
        yield _trouble("ledger", "it cannot be written", it, "Nothing new is sent until then", now)
    for node in snapshot.get("fleet", {}).get("nodes", ()):
        if node.get("waiting") and not node.get("living"):
            it = {"reason": f"{plural(node['waiting'], 'file')} in its directories must wait"}
            yield _trouble(f"node {node.get('name', '')}", "it is away", it, "Start it again", now)
    for server in snapshot.get("servers", ()):
        feeds = listed(server.get("feeds", ()), NAMED)
        yield _trouble("server", f"{server.get('origin', '')} fails", server, f"{feeds} must wait", now)
    for feed in snapshot.get("feeds", ()):
        yield from _here(feed, now)
    yield from _elsewhere(snapshot, now)


def _here(feed: Values, now: float) -> Iterator[Text]:
    name, paused = str(feed.get("name", "")), feed.get("paused_at")
    if paused:
        it = {"since": paused, "reason": "somebody has paused it"}
        remedy = "Its files wait until somebody resumes it, on the daemon's page"
        yield _trouble(name, str(FeedState.PAUSED), it, remedy, now)
    for trouble in feed.get("troubles", ()):
        if trouble.get("kind") != Kind.SERVER and not trouble.get("node"):
            kind = str(trouble.get("kind", ""))
            yield _trouble(name, _KINDS.get(kind, kind), trouble, str(trouble.get("remedy", "")), now)


def _elsewhere(snapshot: Values, now: float) -> Iterator[Text]:
    """What is in the way on other nodes: once where it is the same on many."""
    found: dict[tuple[str, ...], list[tuple[str, Values]]] = {}
    for feed in snapshot.get("feeds", ()):
        for trouble in feed.get("troubles", ()):
            if trouble.get("node"):
                same = tuple(str(trouble.get(name, "")) for name in ("kind", "reason", "remedy"))
                found.setdefault(same, []).append((f"{feed.get('name', '')} on {trouble['node']}", trouble))
    for (kind, _, remedy), there in found.items():
        what = _KINDS.get(kind, kind)
        first = min((it for _, it in there), key=lambda it: str(it.get("since") or "~"))
        yield _trouble(
            listed([who for who, _ in there], NAMED),
            what.replace("its ", "their ", 1) if len(there) > 1 else what,
            first,
            remedy,
            now,
        )
    for node in snapshot.get("fleet", {}).get("nodes", ()):
        if node.get("more_troubles"):
            it = {"reason": "only the first are told to other nodes"}
            more = f"it has {plural(node['more_troubles'], 'more trouble')}"
            yield _trouble(f"node {node.get('name', '')}", more, it, "`tablefeed status` there tells all", now)


def _trouble(who: str, what: str, trouble: Values, remedy: str, now: float) -> Text:
    """One trouble: since when, why, what to do, and what is next."""
    since, next_try = moment(trouble.get("since")), moment(trouble.get("next_try_at"))
    text = Text.assemble((shown(who), "bold"), f": {shown(what)}")
    if since is not None:
        text.append(f" since {clock_time(since, now)} ({span(now - since)})")
    text.append(f": {shown(str(trouble.get('reason', '')))}")
    coming = [shown(remedy)] if remedy else []
    if next_try is not None:
        coming.append(next_try_in(next_try, now))
    if coming:
        text.append("\n  " + ". ".join(coming) + ".", style="dim")
    return text


def next_try_in(at: float, now: float) -> str:
    """When something is tried again; both in Unix seconds."""
    return f"Next try in {span(at - now)}" if at - now >= 1 else "Next try at once"
