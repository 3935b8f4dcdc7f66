"""Events that are lost, roots that go away, directories without end: the scan finds all, once, and others go on."""

import asyncio
import os
import shutil
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from aiohttp import web

from support.bench import Bench, bench, ended
from support.daemon import Daemon, as_a_user, bound_by_permissions, rename_in, running_daemon
from support.disks import Broken
from support.mounts import Share, seen_at, shared, tmpfs
from support.stores import Server

MANY = int(os.environ.get("TABLEFEED_TEST_FILES", "100000"))
"""Files in one directory."""


async def refuse(server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
    """A store that is out of order for all but controls, so that what is found stays queued."""
    return server.take(request, body) if Bench.is_control(body) else web.Response(status=503)


def touch(directory: Path, count: int) -> None:
    """So many files of one byte, as fast as may be; they take no room on the disk."""
    for number in range(count):
        fd = os.open(directory / f"{number}.csv", os.O_WRONLY | os.O_CREAT, 0o600)
        os.ftruncate(fd, 1)
        os.close(fd)


async def test_a_burst_beyond_the_kernels_queue_is_found_whole(tmp_path: Path) -> None:
    """12,000 files while the process is stopped: all are queued without waiting for the next rescan, none twice."""
    async with bench(tmp_path, refuse) as it:
        orders = it.feed()
        it.site.sections |= {"watch": {"rescan": "1h"}, "log": {"level": "info"}}
        async with running_daemon(it.site.config) as daemon:
            await it.watched(daemon, orders)
            daemon.process.send_signal(signal.SIGSTOP)
            touch(orders, 12_000)
            daemon.process.send_signal(signal.SIGCONT)
            await daemon.until(lambda: queued_of(daemon, "orders") >= 12_000 + 2)
            assert await daemon.end() == 0
        found = Counter(path for path, _ in it.ledger() if not path.startswith("control-"))
        assert found == {f"{number}.csv": 1 for number in range(12_000)}


def limited(name: str, limit: int) -> Sequence[str]:
    """A command that runs another in a user namespace where this limit of inotify holds."""
    script = f'echo {limit} > /proc/sys/user/{name} && exec "$@"'
    return ("unshare", "--user", "--map-root-user", "sh", "-c", script, "sh")


async def require(*command: str) -> None:
    """Skip the test where a command does not work."""
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, error = await process.communicate()
    if process.returncode != 0:
        pytest.skip(f"{command[0]} does not work here: {error.decode().strip()}")


@pytest.mark.parametrize(
    ("name", "limit"), [("max_inotify_watches", 0), ("max_inotify_watches", 3), ("max_inotify_instances", 0)]
)
async def test_without_watches_the_scans_serve(tmp_path: Path, name: str, limit: int) -> None:
    """ENOSPC, at once or half-way through a tree, and EMFILE: said once with the remedy, and files arrive by scans."""
    await require(*limited(name, limit), "true")
    async with bench(tmp_path) as it:
        orders = it.feed(recursive=True)
        it.site.sections["watch"] = {"rescan": "1s"}
        for number in range(5):
            (orders / f"{number}").mkdir()
        async with running_daemon(it.site.config, prefix=limited(name, limit)) as daemon:
            await daemon.until_event("watch_failed")
            rename_in(orders / "4", "a.csv", b"content")
            await daemon.until(ended(daemon, "4/a.csv"))
            await it.control(daemon, orders)
            assert await daemon.end() == 0
        assert it.sent() == [("a.csv", b"content")]
        [said] = daemon.named("watch_failed")
        assert "watch.rescan" in said["remedy"]


@as_a_user
async def test_a_closed_directory_takes_the_events_from_no_other(tmp_path: Path) -> None:
    """One that may not be read is told, and files beside it are found by events, long before the next rescan."""
    async with bench(tmp_path) as it:
        orders = it.feed(recursive=True)
        it.site.sections["watch"] = {"rescan": "1h"}
        (orders / "closed").mkdir(0)
        (orders / "open").mkdir()
        async with running_daemon(it.site.config, prefix=bound_by_permissions()) as daemon:
            await it.watched(daemon, orders)
            rename_in(orders / "open", "a.csv", b"content")
            await daemon.until(ended(daemon, "open/a.csv"))
            assert await daemon.end() == 0
        assert [event["path"] for event in daemon.named("not_scanned")] == ["closed"]
        assert daemon.named("watch_failed") == []
        (orders / "closed").chmod(0o755)


async def test_polling_takes_no_watch(tmp_path: Path) -> None:
    """On a share where events never fire the operator turns them off: scans find all, and no inotify is open."""
    async with bench(tmp_path) as it:
        orders = it.feed()
        it.site.sections["watch"] = {"rescan": "1s", "polling": True}
        async with running_daemon(it.site.config) as daemon:
            await it.control(daemon, orders)
            await it.control(daemon, orders)
            open_now = [os.readlink(fd) for fd in Path(f"/proc/{daemon.process.pid}/fd").iterdir()]
            assert await daemon.end() == 0
    assert not [target for target in open_now if "inotify" in target]


def remade(root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()


def replaced(root: Path) -> None:
    root.rename(root.with_name("away"))
    root.mkdir()


def replaced_at_once(root: Path) -> None:
    """Two renames of a link leave no moment in which nothing is there."""
    root.with_name("away").mkdir()
    root.rename(root.with_name("real"))
    root.symlink_to("away")


@pytest.mark.parametrize("change", [remade, replaced, replaced_at_once])
async def test_a_root_that_is_another_is_served(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """What lies in the new one is found long before the next rescan, and then what comes into it by events."""
    async with bench(tmp_path) as it:
        orders = it.feed()
        it.site.sections["watch"] = {"rescan": "1h"}
        async with running_daemon(it.site.config) as daemon:
            await it.watched(daemon, orders)
            change(orders)
            (orders / "first.csv").write_bytes(b"first")
            await daemon.until(ended(daemon, "first.csv"))
            await it.watched(daemon, orders)
            assert await daemon.end() == 0
        assert it.sent() == [("first.csv", b"first")]


async def test_a_mount_over_the_root_is_noticed(tmp_path: Path) -> None:
    """It makes no event: what lies on it is found long before the next rescan, and then what comes by events."""
    async with bench(tmp_path) as it:
        orders = it.feed()
        it.site.sections["watch"] = {"rescan": "1h"}
        async with running_daemon(it.site.config) as daemon:
            await it.watched(daemon, orders)
            with tmpfs(orders):
                (orders / "first.csv").write_bytes(b"first")
                await daemon.until(ended(daemon, "first.csv"))
                await it.watched(daemon, orders)
                assert await daemon.end() == 0
        assert it.sent() == [("first.csv", b"first")]


def mentions_the_mount(daemon: Daemon) -> bool:
    return any("is it mounted" in event["reason"] for event in daemon.named("file_delayed"))


async def test_a_queued_file_outlasts_a_mount_that_goes_away(tmp_path: Path) -> None:
    """An empty mount point marks nothing as gone; when the share is back its file is sent, and new ones are seen."""
    healthy = False

    async def put(server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
        return server.take(request, body) if healthy else web.Response(status=503)

    async with bench(tmp_path, put) as it:
        orders = it.feed()
        it.site.sections["watch"] = {"rescan": "1h"}
        with shared(orders) as share:
            (share.content / "a.csv").write_bytes(b"content")
            async with running_daemon(it.site.config) as daemon:
                await daemon.until_event("file_delayed")
                share.hide()
                await daemon.until(lambda: mentions_the_mount(daemon))
                assert [(path, state != "gone") for path, state in it.ledger()] == [("a.csv", True)]
                healthy = True
                share.show()
                await daemon.until(ended(daemon, "a.csv"))
                await it.control(daemon, orders)
                assert await daemon.end() == 0
            assert it.archived() == {"a.csv": b"content"}
        assert it.sent() == [("a.csv", b"content")]
        assert it.ledger()[0] == ("a.csv", "archived")
        assert it.store.grants == 2


async def _delivered_file_outlasts(it: Bench, orders: Path, share: Share) -> None:
    it.site.sections["watch"] = {"rescan": "1s"}
    (share.content / "a.csv").write_bytes(b"content")
    (share.content / "archive").write_text("in the way")
    async with running_daemon(it.site.config) as daemon:
        await daemon.until_event("feed_paused")
        share.hide()
        await daemon.until(lambda: mentions_the_mount(daemon) or daemon.named("file_archived"))
        assert it.ledger() == [("a.csv", "uploaded")]
        (share.content / "archive").unlink()
        share.show()
        await daemon.until(ended(daemon, "a.csv"))
        await it.control(daemon, orders)
        assert await daemon.end() == 0
    assert it.archived() == {"a.csv": b"content"}
    assert it.ledger()[0] == ("a.csv", "archived")
    assert len(it.store.puts) == 2


async def test_a_delivered_file_outlasts_a_mount_that_goes_away(tmp_path: Path) -> None:
    """What could not be moved yet is not taken for moved: when the share is back it is moved, and not sent again."""
    async with bench(tmp_path) as it:
        orders = it.feed()
        with shared(orders) as share:
            await _delivered_file_outlasts(it, orders, share)


async def test_a_delivered_file_outlasts_a_bind_mount_that_goes_away(tmp_path: Path) -> None:
    """The same holds where mount point and share are of one file system."""
    (tmp_path / "content").mkdir()
    async with bench(tmp_path) as it:
        orders = it.feed()
        with seen_at(orders, tmp_path / "content") as share:
            await _delivered_file_outlasts(it, orders, share)


@pytest.mark.timeout(3600)
@pytest.mark.alone
async def test_a_share_that_hangs_keeps_no_daemon_from_ending(tmp_path: Path) -> None:
    """SIGTERM ends it in order while a scan waits for an answer that does not come."""
    async with bench(tmp_path) as it:
        hung, free = it.feed("hung"), it.feed("free")
        (hung / "a.csv").write_text("a")
        disk = Broken(hung, tmp_path)
        disk.hang()
        async with running_daemon(it.site.config, environ=disk.environ) as daemon:
            await it.control(daemon, free)
            assert await daemon.end() == 0
        assert daemon.named("stopped")
        assert not it.sent()


async def test_a_directory_without_end_delays_no_other_feed(tmp_path: Path) -> None:
    """While it is scanned for the first time, and again and again, small memory does, and others' files go on.

    TABLEFEED_TEST_FILES=1000000 makes it a million files.
    """
    async with bench(tmp_path) as it:
        it.store.unknown = "unknown"
        small = it.feed("small")
        huge = it.site.feed("huge", datatable_id="unknown", dataset_id="dataset-1")
        it.site.sections |= {"watch": {"rescan": "3s"}, "log": {"level": "info"}}
        touch(huge, MANY)
        async with running_daemon(it.site.config) as daemon:
            await daemon.until_event("ready")
            began = time.monotonic()
            first = await latencies(it, daemon, small, lambda: queued_of(daemon, "huge") >= MANY)
            found = time.monotonic() - began
            again = await latencies(it, daemon, small, lambda: time.monotonic() - began > found + 8)
            peak = daemon.peak_memory()
            assert await daemon.end() == 0
        rows = Counter(path for path, _ in it.ledger())
    print(
        f"{MANY} files: queued in {found:.0f} s, peak memory {peak / 2**20:.0f} MiB; another feed's file took "
        f"{told(first)} meanwhile, {told(again)} during rescans"
    )
    assert max(rows.values()) == 1
    assert len(rows) == MANY + len(first) + len(again)
    assert peak < 160 * 2**20
    assert max(first + again) < 5


def queued_of(daemon: Daemon, feed: str) -> int:
    return sum(event["count"] for event in daemon.named("files_queued") if event["feed"] == feed)


async def latencies(it: Bench, daemon: Daemon, directory: Path, ends: Callable[[], bool]) -> list[float]:
    """The seconds that each of a row of files took from its drop to the archive, at least one."""
    taken: list[float] = []
    while not taken or not ends():
        began = time.monotonic()
        await it.control(daemon, directory)
        taken.append(time.monotonic() - began)
    return taken


def told(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} s (longest {max(seconds):.2f} s, {len(seconds)} files)"
