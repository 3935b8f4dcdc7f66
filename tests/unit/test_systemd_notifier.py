"""The messages to systemd, received on real sockets."""

import asyncio
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tablefeed.nodes import FleetStatus, NodeStatus
from tablefeed.status import FeedState, FeedStatus, Kind, Snapshot, Trouble, UploadStatus
from tablefeed.systemd import STATUS_EVERY, Notifier
from tablefeed.telling import status_line


@contextmanager
def manager(address: str | bytes) -> Iterator[socket.socket]:
    """A socket that listens as systemd does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(address)
        server.settimeout(5)
        yield server


def test_each_state_arrives_as_sd_notify_writes_it(tmp_path: Path) -> None:
    """The service manager hears every state in its own words."""
    with manager(str(tmp_path / "notify")) as server:
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        notifier.ready()
        notifier.status("3 files in the queue")
        notifier.watchdog()
        notifier.stopping(30)
        received = [server.recv(4096) for _ in range(4)]
    assert received[:3] == [b"READY=1", b"STATUS=3 files in the queue", b"WATCHDOG=1"]
    assert received[3].startswith(b"STOPPING=1\nSTATUS=draining")


def test_the_drain_asks_for_the_time_that_it_may_take(tmp_path: Path) -> None:
    """A long `shutdown_grace` is not cut short by the unit: systemd is asked for it, and for the end after it."""
    with manager(str(tmp_path / "notify")) as server:
        Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}).stopping(600)
        asked = dict(line.split("=", 1) for line in server.recv(4096).decode().split("\n"))
    assert 600e6 < int(asked["EXTEND_TIMEOUT_USEC"]) < 700e6


def test_a_reload_tells_its_time(tmp_path: Path) -> None:
    """Type=notify-reload demands the monotonic time with RELOADING=1."""
    with manager(str(tmp_path / "notify")) as server:
        Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}).reloading()
        lines = server.recv(4096).decode().split("\n")
    assert lines[0] == "RELOADING=1"
    assert lines[1].startswith("MONOTONIC_USEC=")
    assert int(lines[1].partition("=")[2]) > 0


def test_an_abstract_socket_is_reached() -> None:
    """A name with @ stands in the abstract namespace, as containers use it."""
    name = f"tablefeed-{uuid.uuid4()}"
    with manager(f"\0{name}") as server:
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert server.recv(4096) == b"READY=1"


def test_a_status_cannot_smuggle_a_second_assignment(tmp_path: Path) -> None:
    """A file name with a line break stays one STATUS line, and one that is not UTF-8 is sent all the same."""
    with manager(str(tmp_path / "notify")) as server:
        Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}).status("a\nSTOPPING=1\udcff" + "x" * 10_000)
        message = server.recv(65536)
    assert message.startswith(b"STATUS=a STOPPING=1\\udcff")
    assert b"\n" not in message
    assert len(message) < 1000


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1", "/no/such/socket", "/" + "x" * 200])
def test_without_a_manager_nothing_happens(address: str) -> None:
    """A shell, a container and a broken environment are all fine."""
    Notifier({"NOTIFY_SOCKET": address} if address else {}).ready()


def test_a_manager_that_does_not_read_blocks_nobody(tmp_path: Path) -> None:
    """When the socket's queue is full, messages are dropped rather than waited for."""
    with manager(str(tmp_path / "notify")):
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        for _ in range(2_000):
            notifier.watchdog()


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ""}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_twice_per_period_by_the_process_it_watches(
    environ: dict[str, str], interval: float | None
) -> None:
    """Half of the unit's period, and only when it is this process that is watched."""
    assert Notifier(environ).watchdog_interval == interval


def picture(*feeds: FeedStatus, **more: Any) -> Snapshot:
    """The daemon with these feeds."""
    return Snapshot(version="1", node="n", pid=1, now=0, started_at=0, feeds=feeds, **more)


def feed(name: str = "orders", state: FeedState = FeedState.OK, reason: str = "", **counts: Any) -> FeedStatus:
    """A feed as it is shown."""
    troubles = (Trouble(Kind.DELIVERY, reason, ""),) if reason else ()
    return FeedStatus(name, "/srv", "table-1", state, troubles=troubles, **counts)


AWAY = NodeStatus("south", False, False, 0, 0, "1", waiting=3)
UPLOAD = UploadStatus(1, "orders", "a.csv", 10, 5, 1.0, 0, 0)
IDLE = "0 uploading, 0 queued, 0 delivered today"


@pytest.mark.parametrize(
    ("snapshot", "line"),
    [
        (picture(feed()), IDLE),
        (
            picture(feed(queued=1200, uploading=2, archiving=3), feed("b", delivered_today=4211), uploads=(UPLOAD,)),
            "1 uploading, 1,204 queued, 4,211 delivered today",
        ),
        (
            picture(feed("b", FeedState.PAUSED), feed("a", FeedState.BLOCKED, "the key was refused", refused=2)),
            f"{IDLE}; paused: b; blocked: a (the key was refused); 2 refused",
        ),
        (
            picture(*(feed(f"feed-{n}", FeedState.WAITING, "x" * 1000) for n in range(1234))),
            f"{IDLE}; waiting: " + ", ".join(f"feed-{n} ({'x' * 119}…)" for n in range(3)) + " and 1,231 more",
        ),
        (
            picture(replace(feed(), state=FeedState.BLOCKED, troubles=(Trouble(Kind.DELIVERY, "why", "", node="b"),))),
            f"{IDLE}; blocked: orders on b (why)",
        ),
        (
            picture(draining=True, ledger_problem="it is busy"),
            f"draining: {IDLE}; the ledger cannot be read: it is busy",
        ),
        (
            picture(ledger_held_up="it is full", fleet=FleetStatus(1, 1, 1, (AWAY,))),
            f"{IDLE}; the ledger cannot be written: it is full; files wait for a node that is away: south",
        ),
    ],
)
def test_the_status_is_one_short_line_with_all_trouble_in_it(snapshot: Snapshot, line: str) -> None:
    """Counts first, then what is in trouble and why; a few of many, so that it fits."""
    assert status_line(snapshot) == line
    assert len(line) < 512


async def test_the_status_is_told_again_only_when_it_has_changed(tmp_path: Path) -> None:
    """systemd writes each STATUS into its books, so an idle daemon tells nothing."""
    looks = iter([picture(feed(queued=1))] * 2 + [picture(feed(delivered_today=1))] * 2)
    waits: list[float] = []

    async def look() -> Snapshot:
        found = next(looks, None)
        if found is None:
            raise asyncio.CancelledError
        return found

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    with manager(str(tmp_path / "notify")) as server:
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        with pytest.raises(asyncio.CancelledError):
            await notifier.keep_status(look, sleep)
        server.setblocking(False)
        received = [server.recv(4096), server.recv(4096)]
        with pytest.raises(BlockingIOError):
            server.recv(4096)
    assert received == [
        b"STATUS=0 uploading, 1 queued, 0 delivered today",
        b"STATUS=0 uploading, 0 queued, 1 delivered today",
    ]
    assert waits == [STATUS_EVERY] * 4


async def test_without_a_manager_nothing_is_counted() -> None:
    """A daemon outside systemd does not ask its ledger for a line that nobody reads."""

    async def look() -> Snapshot:
        raise AssertionError("nobody asked for this")

    await Notifier({}).keep_status(look, asyncio.sleep)
