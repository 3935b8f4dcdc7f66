"""Files that change at each moment of their way: what is sent in the end is whole, and the last there was."""

import asyncio
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from aiohttp import web

from support.bench import Bench, bench, ended
from support.daemon import Daemon, as_a_user, bound_by_permissions, rename_in, running_daemon
from support.stores import Server

pytestmark = as_a_user

OLD, NEW, MORE = b"the old content\n", b"another file altogether\n", b"and more\n"
CHANGES: dict[str, tuple[Callable[[Path], object], bytes | None]] = {
    "replaced.csv": (lambda path: rename_in(path.parent, path.name, NEW), NEW),
    "appended.csv": (lambda path: append(path), OLD + MORE),
    "truncated.csv": (lambda path: os.truncate(path, 7), OLD[:7]),
    "deleted.csv": (lambda path: path.unlink(), None),
    "unreadable.csv": (lambda path: path.chmod(0), OLD),
}
"""What happens to each file, and what of it is to be delivered in the end."""
EXPECTED = {name: content for name, (_, content) in CHANGES.items() if content is not None}
CHANGED = [(name, content) for name, content in EXPECTED.items() if content != OLD]


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(MORE)


def drop_all(directory: Path) -> None:
    for name in CHANGES:
        (directory / name).write_bytes(OLD)


def change_all(directory: Path) -> None:
    for name, (change, _) in CHANGES.items():
        change(directory / name)


def delivered(daemon: Daemon) -> list[tuple[str, int]]:
    """(path, size) of each delivery but the controls', in order."""
    events = daemon.named("file_delivered")
    return sorted((event["path"], event["bytes"]) for event in events if event["path"] in CHANGES)


def assert_all_ended_well(bench: Bench, daemon: Daemon) -> None:
    """Every version that was there in the end is archived, and nothing else; nothing was refused."""
    assert bench.archived() == EXPECTED
    assert bench.site.dropped("orders") == set()
    assert daemon.named("file_rejected") == []


async def test_changes_while_a_file_waits(tmp_path: Path) -> None:
    """A writer has each open: once it lets go, each is sent once, as it is then, and the unreadable one once it can."""
    async with bench(tmp_path) as it:
        orders = it.feed()
        drop_all(orders)
        with ExitStack() as holders:
            for name in CHANGES:
                holders.enter_context((orders / name).open("r+b"))
            async with running_daemon(it.site.config, prefix=bound_by_permissions()) as daemon:
                await it.control(daemon, orders)
                change_all(orders)
                await daemon.until(ended(daemon, "replaced.csv"))  # nobody has the new one open
                await it.control(daemon, orders)
                assert [name for name, _ in it.sent()] == ["replaced.csv"]
                holders.close()
                await daemon.until(ended(daemon, "appended.csv", "truncated.csv"))
                await it.control(daemon, orders)
                assert "unreadable.csv" not in it.archived()
                (orders / "unreadable.csv").chmod(0o600)
                await daemon.until(ended(daemon, *EXPECTED))
                assert await daemon.end() == 0
        assert_all_ended_well(it, daemon)
        assert it.sent() == sorted(EXPECTED.items())
        assert len(it.store.puts) == it.store.grants


class Held:
    """A store that takes bodies and answers when it is let go; those with other content than OLD at once."""

    def __init__(self) -> None:
        self.bodies = 0
        self.arrived = asyncio.Condition()
        self.go = asyncio.Event()

    async def put(self, server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
        if body == OLD and not self.go.is_set():
            async with self.arrived:
                self.bodies += 1
                self.arrived.notify_all()
            await self.go.wait()
        return server.take(request, body)

    async def await_bodies(self, count: int) -> None:
        async with self.arrived, asyncio.timeout(60):
            await self.arrived.wait_for(lambda: self.bodies >= count)


async def test_changes_while_a_file_is_queued(tmp_path: Path) -> None:
    """The one slot is busy: when it is free each is sent once, as it is then, and no old version at all."""
    held = Held()
    async with bench(tmp_path, held.put) as it:
        orders = it.feed()
        it.site.sections["upload"] = {"concurrency": 1}
        (orders / "first.csv").write_bytes(OLD)
        async with running_daemon(it.site.config, prefix=bound_by_permissions()) as daemon:
            await held.await_bodies(1)
            drop_all(orders)
            await daemon.until(lambda: sum(event["count"] for event in daemon.named("files_queued")) == 6)
            change_all(orders)
            held.go.set()
            await daemon.until(lambda: any("may not be read" in e["reason"] for e in daemon.named("file_delayed")))
            (orders / "unreadable.csv").chmod(0o600)
            await daemon.until(ended(daemon, "first.csv", *EXPECTED))
            assert await daemon.end() == 0
        (orders / "archive" / "first.csv").unlink()
        assert_all_ended_well(it, daemon)
        assert it.sent() == sorted({"first.csv": OLD, **EXPECTED}.items())
        assert len(it.store.puts) == 5
        assert ("deleted.csv", "gone") in it.ledger()


async def test_changes_while_a_file_is_sent(tmp_path: Path) -> None:
    """The store has the old bytes and says so after the change: no such delivery counts, the new version is sent."""
    held = Held()
    async with bench(tmp_path, held.put) as it:
        orders = it.feed()
        drop_all(orders)
        async with running_daemon(it.site.config, prefix=bound_by_permissions()) as daemon:
            await held.await_bodies(len(CHANGES))
            change_all(orders)
            held.go.set()
            await daemon.until(lambda: any("may not be read" in e["reason"] for e in daemon.named("file_delayed")))
            (orders / "unreadable.csv").chmod(0o600)
            await daemon.until(ended(daemon, *EXPECTED))
            assert await daemon.end() == 0
        assert_all_ended_well(it, daemon)
        assert delivered(daemon) == sorted((name, len(content)) for name, content in EXPECTED.items())
        # A chmod makes no other version: that one went to the same object again.
        assert it.sent() == sorted([*((name, OLD) for name in CHANGES), *CHANGED])
        assert dict(it.ledger())["deleted.csv"] == "gone"


async def test_changes_between_the_delivery_and_the_move(tmp_path: Path) -> None:
    """Nothing is moved that was not sent, nothing sent again that was not changed, and the unreadable one is moved."""
    async with bench(tmp_path) as it:
        orders = it.feed()
        (orders / "archive").write_text("in the way")
        drop_all(orders)
        async with running_daemon(it.site.config, prefix=bound_by_permissions()) as daemon:
            await daemon.until_event("file_delivered", len(CHANGES))
            await daemon.until_event("feed_paused")
            change_all(orders)
            (orders / "archive").unlink()
            await daemon.until(lambda: not it.site.dropped("orders"))
            await daemon.until(ended(daemon, *EXPECTED))
            assert await daemon.end() == 0
        (orders / "archive" / "unreadable.csv").chmod(0o600)
        assert_all_ended_well(it, daemon)
        assert it.sent() == sorted([*((name, OLD) for name in CHANGES), *CHANGED])
        assert len(it.store.puts) == len(CHANGES) + len(CHANGED)
