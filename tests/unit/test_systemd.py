"""The messages to systemd, received on real sockets."""

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tablefeed.systemd import Notifier


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
        notifier.stopping()
        received = [server.recv(4096) for _ in range(4)]
    assert received == [b"READY=1", b"STATUS=3 files in the queue", b"WATCHDOG=1", b"STOPPING=1"]


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
