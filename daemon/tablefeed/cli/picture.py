"""The daemon's state as a table, for terminals of any width and for pipes. Pure: from plain values to what Rich prints.

The values come from a daemon that may be of another version, so what is missing is shown as nothing.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tablefeed.cli.looking import Picture
from tablefeed.cli.trouble import next_try_in, troubles
from tablefeed.cli.words import clock_time, moment, plural, shown, span
from tablefeed.model import State
from tablefeed.status import FeedState, Kind
from tablefeed.telling import listed
from tablefeed.units import format_rate, format_size

Values = Mapping[str, Any]

WIDE = 110
"""Columns from which on sizes are shown beside counts."""
NARROW = 76
"""Columns below which what is told of a feed is what somebody needs first."""
UPLOADS = 12
FILES = 8
NODES = 50
"""Lines at most of uploads, of files with trouble, and of nodes."""
NODES_NAMED = 3
"""Nodes that are named beside a feed."""
FEEDS_NAMED = 5
"""Feeds that are named of those with files that are not whole."""
_COLORS: Mapping[str, str] = {
    FeedState.OK: "green",
    FeedState.PAUSED: "cyan",
    FeedState.WAITING: "yellow",
    FeedState.STALE: "yellow",
    FeedState.BLOCKED: "red",
    FeedState.UNUSABLE: "red",
}
_BAR = 20


def drawn(picture: Picture, width: int, *, bars: bool) -> Group:
    """The whole picture for so many columns; without `bars`, progress is told in per cent."""
    snapshot = picture.snapshot
    now = moment(snapshot.get("now")) or 0.0
    parts: list[RenderableType] = [_headline(picture), _who(picture, now), Text(), _feeds(picture, now, width)]
    parts += _unsettled(snapshot)
    for title, lines in (
        ("Nodes", _nodes(snapshot)),
        ("Uploads", _uploads(snapshot, bars=bars)),
        ("On other nodes", _held(snapshot)),
        ("Trouble", list(troubles(snapshot, now))),
        ("Files", list(_files(snapshot, now, runs=picture.daemon.runs))),
    ):
        if lines:
            parts += [Text(), Text(title, style="bold"), *lines]
    return Group(*parts)


def _headline(picture: Picture) -> Text:
    text = shown(str(picture.snapshot.get("headline", "")))
    return Text(text[:1].upper() + text[1:] + ".", style="bold green" if picture.ok else "bold red")


def _who(picture: Picture, now: float) -> Text:
    snapshot, daemon = picture.snapshot, picture.daemon
    if not daemon.answers:
        lines = [f"{daemon.remedy}."] if daemon.remedy else []
        return Text("\n".join([*lines, _from_ledger(snapshot, now)]), style="dim")
    started = moment(snapshot.get("started_at"))
    text = f"tablefeed {snapshot.get('version', '')} on {snapshot.get('node', '')}, process {daemon.process}"
    if started is not None:
        text += f", up {span(now - started)}"
    if snapshot.get("concurrency"):
        text += f", up to {plural(snapshot['concurrency'], 'upload')} at a time"
    if snapshot.get("bandwidth"):
        text += f", at most {format_rate(snapshot['bandwidth'])}"
    return Text(shown(text), style="dim")


def _from_ledger(snapshot: Values, now: float) -> str:
    """What is most wanted of a daemon that does not answer: what waits, since when, and what was delivered last."""
    if snapshot.get("ledger_problem"):
        return "What follows is from the configuration."
    totals = snapshot.get("totals", {})
    text = f"What follows is from the ledger: {plural(totals.get('queued', 0), 'file')} in the queue"
    oldest = min(filter(None, (moment(feed.get("oldest_queued_at")) for feed in snapshot["feeds"])), default=None)
    if oldest is not None:
        text += f", the first since {clock_time(oldest, now)} ({span(now - oldest)})"
    last = moment(totals.get("last_delivery_at"))
    return (
        f"{text}; delivered last: {'never' if last is None else f'{clock_time(last, now)} ({span(now - last)} ago)'}."
    )


def _feeds(picture: Picture, now: float, width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = ("FEED", "STATE", "QUEUED", "SENDING", "TODAY", "REFUSED", "DELIVERED", "LAST FILE")
    told = [name for name in names if width >= NARROW or name not in _ROOMY]
    for name in told:
        table.add_column(
            name, justify="right" if name in _NUMBERS else "left", overflow="fold", no_wrap=name not in _FOLDED
        )
    fleet = picture.snapshot.get("fleet", {})
    runs = picture.daemon.runs or bool(fleet.get("living"))
    living = {node.get("name") for node in fleet.get("nodes", ()) if node.get("living")}
    for feed in picture.snapshot["feeds"]:
        queued, today = str(feed.get("queued", "")), str(feed.get("delivered_today", ""))
        if width >= WIDE:
            queued = _with_size(queued, feed.get("queued_bytes"))
            today = _with_size(today, feed.get("bytes_today"))
        refused = feed.get("refused", 0)
        cells: Mapping[str, str | Text] = {
            "FEED": _name(feed),
            "STATE": _state(feed, living) if runs else Text("not run", style="red"),
            "QUEUED": queued,
            "SENDING": str(feed.get("uploading", 0) + feed.get("archiving", 0)),
            "TODAY": today,
            "REFUSED": Text(str(refused), style="red" if refused else ""),
            "DELIVERED": _ago(feed.get("last_delivery_at"), now),
            "LAST FILE": _freshness(feed, now, wide=width >= WIDE),
        }
        table.add_row(*(cells[name] for name in told))
    return table


def _unsettled(snapshot: Values) -> list[RenderableType]:
    """Files that wait in their directories since they are not whole, and whose they are."""
    feeds = [feed for feed in snapshot["feeds"] if feed.get("unsettled")]
    if not feeds:
        return []
    names = listed([shown(str(feed.get("name", ""))) for feed in feeds], FEEDS_NAMED)
    return [Text(f"Not whole yet: {plural(sum(feed['unsettled'] for feed in feeds), 'file')} of {names}.", "dim")]


def _state(feed: Values, living: Set[str]) -> Text:
    """How a feed is; of one that others serve nothing is known while none of them lives."""
    state = str(feed.get("state", ""))
    if state == FeedState.OK and feed.get("here") is False and living.isdisjoint(feed.get("nodes", ())):
        return Text("away", style="dim")
    return Text(state, style=_COLORS.get(state, ""))


_ROOMY = ("SENDING", "TODAY", "DELIVERED")
_FOLDED = ("FEED", "LAST FILE")
_NUMBERS = ("QUEUED", "SENDING", "TODAY", "REFUSED", "OWN FILES")


def _name(feed: Values) -> Text:
    """A feed's name, and where it is if that is not here."""
    name = Text(shown(str(feed.get("name", ""))))
    if feed.get("here") is False:
        nodes = [shown(str(node)) for node in feed.get("nodes", ())]
        name.append(f" on {listed(nodes, NODES_NAMED)}", style="dim")
    return name


def _nodes(snapshot: Values) -> list[RenderableType]:
    """Who is in the fleet, by the database's clock."""
    fleet: Values = snapshot.get("fleet", {})
    nodes: Sequence[Values] = fleet.get("nodes", ())
    if not nodes:
        return []
    now = moment(fleet.get("now")) or 0.0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("NODE", "STATE", "LAST SIGN", "SENDING", "OWN FILES", "STARTED", "VERSION"):
        table.add_column(name, justify="right" if name in _NUMBERS else "left", overflow="fold")
    for node in nodes[:NODES]:
        living, waiting = bool(node.get("living")), node.get("waiting", 0)
        table.add_row(
            Text(shown(str(node.get("name", ""))) + (" (this one)" if node.get("here") else "")),
            _state_of_node(node),
            _ago(node.get("seen_at"), now),
            str(node.get("uploading", 0) + node.get("archiving", 0)),
            Text(str(waiting), style="red" if waiting and not living else ""),
            _ago(node.get("started_at"), now),
            Text(shown(str(node.get("version", "")))),
        )
    more = fleet.get("living", 0) + fleet.get("over", 0) - len(nodes[:NODES])
    return [table, Text(f"and {more} more", style="dim")] if more > 0 else [table]


def _state_of_node(node: Values) -> Text:
    if not node.get("living"):
        return Text("over", style="red" if node.get("waiting") else "dim")
    return Text("in trouble", style="red") if node.get("troubles") else Text("living", style="green")


def _with_size(count: str, size: int | None) -> str:
    return f"{count} {format_size(size)}" if size else count


def _ago(iso: object, now: float) -> str:
    at = moment(iso)
    return "never" if at is None else f"{span(now - at)} ago"


def _freshness(feed: Values, now: float, *, wide: bool) -> Text:
    """When a file arrived last, and when the next one is due; only the latter where there is little room."""
    arrived = _ago(feed.get("last_arrival_at"), now)
    before = f"{arrived}, " if wide else ""
    at, every = moment(feed.get("last_arrival_at")), feed.get("expect_every")
    stale = [it for it in feed.get("troubles", ()) if it.get("kind") == Kind.STALE]
    overdue = next((it for it in stale if not (it.get("node") and feed.get("here"))), None)
    if overdue is not None and (since := moment(overdue.get("since"))) is not None:
        return Text(f"{before}overdue {span(now - since)}", style="yellow")
    if every and at is not None:
        return Text(f"{before}due in {span(at + every - now)}")
    return Text(arrived)


def _uploads(snapshot: Values, *, bars: bool) -> list[RenderableType]:
    uploads: Sequence[Values] = snapshot.get("uploads", ())
    if not uploads:
        return []
    table = Table.grid(padding=(0, 2))
    for column in ("feed", "path", "bar", "sent", "rate", "left"):
        table.add_column(overflow="fold", justify="left" if column in ("feed", "path", "bar") else "right")
    for upload in uploads[:UPLOADS]:
        size, sent, rate = upload.get("size", 0), upload.get("sent", 0), upload.get("rate", 0.0)
        share = sent / size if size else 1.0
        table.add_row(
            Text(shown(str(upload.get("feed", "")))),
            Text(shown(str(upload.get("path", "")))),
            ProgressBar(total=1.0, completed=share, width=_BAR) if bars else f"{share:.0%}",
            f"{format_size(sent)} of {format_size(size)}",
            format_rate(rate),
            f"{span((size - sent) / rate)} left" if rate >= 1 else "",
        )
    more = len(uploads) - UPLOADS
    return [table, Text(f"and {more} more", style="dim")] if more > 0 else [table]


def _held(snapshot: Values) -> list[RenderableType]:
    """What other nodes work on. How far they are only they know."""
    held: Sequence[Values] = snapshot.get("fleet", {}).get("held", ())
    if not held:
        return []
    table = Table.grid(padding=(0, 2))
    for column in ("node", "feed", "path", "size", "what"):
        table.add_column(overflow="fold", justify="right" if column == "size" else "left")
    for file in held[:UPLOADS]:
        table.add_row(
            *(Text(shown(str(file.get(name, "")))) for name in ("node", "feed", "path")),
            format_size(file.get("size", 0)),
            "being archived" if file.get("state") == State.UPLOADED else "being sent",
        )
    more = len(held) - UPLOADS
    return [table, Text(f"and {more} more", style="dim")] if more > 0 else [table]


def _files(snapshot: Values, now: float, *, runs: bool) -> Iterator[Text]:
    """The files that failed last, and how to have the refused ones again."""
    told = [(feed.get("name"), it.get("reason")) for feed in snapshot["feeds"] for it in feed.get("troubles", ())]
    files = [
        file
        for file in snapshot.get("files", ())
        # What holds the whole feed up has been said of that.
        if not any(file.get("feed") == feed and str(why) in str(file.get("reason")) for feed, why in told)
    ]
    for file in files[:FILES]:
        at, next_try = moment(file.get("changed_at")), moment(file.get("next_try_at"))
        refused = file.get("next_try_at") is None
        node = str(file.get("node", ""))
        where = f" on {shown(node)}" if node not in ("", snapshot.get("node")) else ""
        text = Text.assemble((f"{file.get('feed', '')}/{shown(str(file.get('path', '')))}", "bold"), ": ")
        if refused:
            text.append(f"refused {span(now - (at or now))} ago", style="red")
        else:
            text.append(f"failed {plural(file.get('attempts', 0), 'time')}", style="yellow")
        text.append(f": {shown(str(file.get('reason', '')))}")
        if refused:
            text.append(f"\n  When that is mended: `tablefeed retry {file.get('id', '')}`{where}.", style="dim")
        elif next_try is not None and runs:
            text.append(f"\n  {next_try_in(next_try, now)}.", style="dim")
        yield text
    if len(files) > FILES:
        yield Text("and more: `tablefeed history --state rejected` and `--state queued` show all.", style="dim")
