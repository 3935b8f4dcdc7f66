"""The picture of the daemon on terminals of any width."""

import io
import json
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from tablefeed.cli.looking import Daemon, Picture
from tablefeed.cli.picture import drawn
from tablefeed.nodes import FleetStatus, HeldStatus, NodeStatus, NodeTrouble
from tablefeed.status import (
    FeedState,
    FeedStatus,
    FileTrouble,
    Kind,
    ServerStatus,
    Snapshot,
    Trouble,
    UploadStatus,
)
from tablefeed.telling import plain

NOW = 1_764_000_000_000
HOUR = 3_600_000
RUNNING = Daemon(answers=True, process=7, runs=True)
HOSTILE = "a\x1b[2J\n[bold]b[/].csv"

ORDERS = FeedStatus(
    "orders", "/srv/orders", "table-1", FeedState.OK,
    queued=12, queued_bytes=3 * 2**20, uploading=2, archiving=1, refused=1, delivered_today=1234, bytes_today=5 * 2**30,
    last_arrival_at=NOW - 4 * HOUR, last_delivery_at=NOW - HOUR, expect_every=26 * 3600.0,
)  # fmt: skip
BLOCKED = FeedStatus(
    "invoices", "/srv/invoices", "table-2", FeedState.BLOCKED, expect_every=3600.0, last_arrival_at=NOW - 4 * HOUR,
    troubles=(
        Trouble(Kind.DELIVERY, "the key is refused", "Give it another key", NOW - 90_000, NOW + 30_000),
        Trouble(Kind.STALE, "no file has arrived", "See the job", NOW - 3 * HOUR),
    ),
)  # fmt: skip
PAUSED = FeedStatus("returns", "/srv/returns", "table-3", FeedState.PAUSED, paused_at=NOW - HOUR)
SNAPSHOT = Snapshot(
    "1.2.3", "node", 7, NOW, NOW - 2 * HOUR,
    concurrency=9,
    feeds=(ORDERS, BLOCKED, PAUSED),
    uploads=(UploadStatus(1, "orders", HOSTILE, 4 * 2**20, 2**20, 2**20, NOW, 0),),
    servers=(ServerStatus("https://store.test", "it answered 503", ("orders",), NOW - 60_000, NOW + 5_000),),
    files=(
        FileTrouble(8, "orders", HOSTILE, "rejected", "too large", 1, NOW - HOUR, None),
        FileTrouble(9, "orders", "late.csv", "queued", "it answered 503", 2, NOW - HOUR, NOW + 12_000),
        FileTrouble(10, "invoices", "held.csv", "queued", "the key is refused. Give it another key", 2, NOW, NOW),
    ),
)  # fmt: skip


def text(snapshot: Snapshot, width: int = 120, *, bars: bool = False, daemon: Daemon = RUNNING) -> str:
    """What is shown, without colours."""
    console = Console(file=io.StringIO(), width=width, force_terminal=bars, color_system=None)
    console.print(drawn(Picture(daemon, json.loads(json.dumps(plain(snapshot)))), width, bars=bars))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_everything_that_is_known_is_there() -> None:
    """Counts and sizes, ages, troubles with their reason, since when, what to do and what is next."""
    shown = text(SNAPSHOT, 160)
    lines = shown.splitlines()
    assert lines[0] == "Blocked: invoices; paused: returns; 1 file refused."
    assert lines[1] == "tablefeed 1.2.3 on node, process 7, up 2h, up to 9 uploads at a time"
    [orders] = [line for line in lines if line.startswith("orders ")][:1]
    assert orders.split() == [
        *("orders", "ok", "12", "3MiB", "3", "1234", "5GiB", "1", "1h", "ago", "4h", "ago,", "due", "in", "22h")
    ]
    for part in (
        "1MiB of 4MiB", "1MiB/s", "3s left", "25%",
        "server: https://store.test fails since", "(1m): it answered 503", "orders must wait. Next try in 5s.",
        "invoices: its files cannot be delivered since", "(1m30s): the key is refused",
        "Give it another key. Next try in 30s.", "4h ago, overdue 3h",
        "returns: paused since", "refused 1h ago: too large", "`tablefeed retry 8`",
        "orders/late.csv: failed 2 times: it answered 503", "Next try in 12s.",
    ):  # fmt: skip
        assert part in shown, part
    assert "held.csv" not in shown, "what holds the whole feed up is said once"


@pytest.mark.parametrize("width", [5, 20, 40, 80, 110, 300])
@pytest.mark.parametrize("bars", [False, True])
def test_it_fits_any_width(width: int, bars: bool) -> None:
    """No line is wider than the terminal, and no hostile name gets through."""
    shown = text(SNAPSHOT, width, bars=bars)
    assert max(cell_len(line) for line in shown.split("\n")) <= width
    assert "\x1b[2J" not in shown
    if width >= 40:
        assert r"\x1b[2J\n[bold]b[/].csv" in shown.replace("\n", "").replace(" ", "")


def test_at_80_columns_each_feed_has_one_line() -> None:
    """Sizes give way first."""
    lines = text(SNAPSHOT, 80).splitlines()
    first = lines.index(next(line for line in lines if line.startswith("FEED")))
    assert [line.split()[0] for line in lines[first + 1 : first + 4]] == ["orders", "invoices", "returns"]
    assert lines[first + 4] == ""


def test_at_60_columns_no_word_of_a_feed_is_broken() -> None:
    """There each feed has one line as well, with what somebody needs first."""
    lines = text(SNAPSHOT, 60).splitlines()
    first = lines.index(next(line for line in lines if line.startswith("FEED")))
    assert lines[first].split() == ["FEED", "STATE", "QUEUED", "REFUSED", "LAST", "FILE"]
    assert lines[first + 2].split() == ["invoices", "blocked", "0", "0", "overdue", "3h"]


def test_of_many_feeds_that_wait_for_a_server_some_are_named() -> None:
    """Its trouble is one, and stays one line."""
    server = replace(SNAPSHOT.servers[0], feeds=tuple(f"f{number}" for number in range(9)))
    assert "f0, f1, f2 and 6 more must wait." in text(replace(SNAPSHOT, servers=(server,)))


def test_files_that_are_not_whole_are_counted() -> None:
    """Who wonders why a file stays where it was dropped finds it there."""
    assert "Not whole" not in text(SNAPSHOT)
    feeds = (replace(ORDERS, unsettled=2), BLOCKED, replace(PAUSED, unsettled=1))
    assert "\nNot whole yet: 3 files of orders, returns.\n" in text(replace(SNAPSHOT, feeds=feeds))
    many = tuple(replace(ORDERS, name=f"f{number}", unsettled=1) for number in range(7))
    assert "7 files of f0, f1, f2, f3, f4 and 2 more." in text(replace(SNAPSHOT, feeds=many))


def test_nothing_looks_well_without_a_daemon() -> None:
    """A feed that nobody serves is not ok, and no file is tried again."""
    shown = text(
        replace(SNAPSHOT, servers=()), daemon=Daemon(answers=False, process=None, runs=False, remedy="Start it")
    )
    assert "not run" in shown
    assert " ok " not in shown
    assert "late.csv: failed 2 times: it answered 503\n" in shown
    assert "12s" not in shown


def test_a_daemon_of_another_version_is_shown_as_far_as_it_is_understood() -> None:
    """What is missing or new is no error."""
    console = Console(file=io.StringIO(), width=80)
    picture = Picture(RUNNING, {"feeds": [{"name": "orders", "state": "dreaming"}], "uploads": [{}], "files": [{}]})
    console.print(drawn(picture, 80, bars=False))
    assert isinstance(console.file, io.StringIO)
    assert "dreaming" in console.file.getvalue()


FLEET = FleetStatus(
    now=NOW,
    living=1,
    over=2,
    nodes=(
        NodeStatus("north", True, True, NOW - HOUR, NOW - 5_000, "1.2.3", ("orders",), 2, 1),
        NodeStatus("south\x1b[2J", False, False, NOW - HOUR, NOW - 90_000, "1.2.4", ("theirs",), waiting=7),
    ),
    held=(HeldStatus(4, "west", "orders", HOSTILE, 2**20, "uploading", NOW),),
)


def test_a_fleet_is_shown_and_what_waits_for_a_node_that_is_away() -> None:
    """Nodes with their last sign of life, on the database's clock, and what others send; without one, nothing of it."""
    refused = FileTrouble(8, "theirs", "a.csv", "rejected", "too large", 0, NOW, None, "south")
    theirs = FeedStatus("theirs", "", "", FeedState.OK, here=False, nodes=("a", "b", "c", "d"))
    shown = text(replace(SNAPSHOT, feeds=(ORDERS, theirs), files=(refused,), fleet=FLEET), 160)
    lines = [line.split() for line in shown.splitlines()]
    assert ["north", "(this", "one)", "living", "5s", "ago", "3", "0", "1h", "ago", "1.2.3"] in lines
    for part in (
        r"south\x1b[2J", "over", "1m30s ago", "and 1 more", "theirs on a, b, c and 1 more", "On other nodes",
        "`tablefeed retry 8` on south.",
        r"node south\x1b[2J: it is away: 7 files in its directories must wait",
        "files wait for a node that is away: south",
    ):  # fmt: skip
        assert part in shown.replace("Files wait", "files wait"), part
    assert "\x1b[2J" not in shown
    one = replace(FLEET, nodes=tuple(replace(node, waiting=1) for node in FLEET.nodes))
    assert "it is away: 1 file in its directories must wait" in text(replace(SNAPSHOT, fleet=one), 160)
    alone = text(SNAPSHOT, 160)
    assert "NODE" not in alone
    assert "other nodes" not in alone


def test_what_is_in_the_way_on_other_nodes_is_told_with_their_names() -> None:
    """Once where it is the same on many, and not as if it were here."""
    refused = Trouble(Kind.DELIVERY, "the key is refused", "Give it another key", NOW - 90_000)
    down = Trouble(Kind.SERVER, "it answered 503", "Nothing", NOW - 30_000)
    feeds = (
        replace(
            ORDERS,
            state=FeedState.BLOCKED,
            nodes=("north", "a", "b", "c\x1b[2J", "d"),
            troubles=(
                *(replace(refused, node=node) for node in ("a", "b", "c\x1b[2J")),
                replace(refused, node="d", since=NOW - 3_600_000),
                Trouble(Kind.STALE, "no file", "See there", NOW - 7_200_000, node="d"),
            ),
        ),
        FeedStatus("theirs", "", "", FeedState.WAITING, here=False, nodes=("a",), troubles=(replace(down, node="a"),)),
        FeedStatus("gone", "", "", FeedState.OK, here=False, nodes=("south",)),
    )
    north = replace(FLEET.nodes[0], name="a", troubles=(NodeTrouble("theirs", "server", "", ""),), more_troubles=2)
    shown = text(replace(SNAPSHOT, feeds=feeds, servers=(), files=(), fleet=replace(FLEET, nodes=(north,))), 200)
    lines = shown.splitlines()
    assert (
        lines[0] == "Blocked: orders on a, b, c\\x1b[2J and 1 more; waiting for a server: theirs on a; 1 file refused."
    )
    for part in (
        r"orders on a, orders on b, orders on c\x1b[2J and 1 more: their files cannot be delivered since",
        "(1h): the key",
        "Give it another key.", "theirs on a: its server fails since", "(30s): it answered 503",
        "orders on d: a file is overdue since", "node a: it has 2 more troubles: only the first", "in trouble",
    ):  # fmt: skip
        assert part in shown, part
    assert shown.count("the key is refused") == 1
    [gone] = [line for line in lines if line.startswith("gone on south")]
    assert gone.split()[3] == "away"
    [orders] = [line for line in lines if line.startswith("orders  ")][:1]
    assert "due in 22h" in orders, "not overdue here"


def test_a_ledger_that_cannot_be_written_is_told() -> None:
    """It is the first thing to mend."""
    shown = text(replace(SNAPSHOT, ledger_held_up="PostgreSQL does not answer; start PostgreSQL"), 160)
    assert shown.startswith("The ledger cannot be written: PostgreSQL does not answer; start PostgreSQL.")
