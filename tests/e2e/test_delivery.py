import asyncio
import os
import sqlite3
import stat
import sys
from pathlib import Path

import pytest

from support.daemon import KEY, Daemon, Site, clean_environ, contents, rename_in, running_daemon
from support.patience import PATIENCE
from tablefeed.sandbox.server import RunningSandbox, SandboxSettings, running

SLOW_WRITER = """
import sys, time
with open(sys.argv[1], "wb") as file:
    for part in range(3):
        file.write(b"part %d\\n" % part * 1000)
        file.flush()
        time.sleep(2)
"""


async def archived(daemon: Daemon, count: int, patience: float = PATIENCE) -> None:
    await daemon.until(lambda: len(daemon.named("file_archived")) >= count, patience)


async def test_files_of_all_kinds_arrive_whole_and_once(site: Site, sandbox: RunningSandbox) -> None:
    """Two feeds; files present at start, renamed in, and written by a process that pauses longer than `settle`."""
    orders = site.feed("orders", settle="500ms")
    items = site.feed("items", settle="500ms", datatable_id="table-457")
    expected = {"orders": {f"early-{n}.csv": os.urandom(1000 + n) for n in range(20)}, "items": {}}
    for name, content in expected["orders"].items():
        (orders / name).write_bytes(content)
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("ready")
        slow = await asyncio.create_subprocess_exec(sys.executable, "-c", SLOW_WRITER, str(items / "slow.csv"))
        expected["items"]["slow.csv"] = b"".join(b"part %d\n" % part * 1000 for part in range(3))
        for n in range(20):
            expected["items"][f"in-{n}.csv"] = os.urandom(2000 + n)
            rename_in(items, f"in-{n}.csv", expected["items"][f"in-{n}.csv"])
        await archived(daemon, 41)
        assert await slow.wait() == 0
        assert await daemon.end() == 0
    assert site.archived("orders") == expected["orders"]
    assert site.archived("items") == expected["items"]
    assert site.dropped("orders") == site.dropped("items") == set()
    stored = sorted(contents(sandbox.objects).values())
    assert stored == sorted((expected["orders"] | expected["items"]).values())


async def test_a_marker_feed_waits_for_its_marker_and_moves_it_along(site: Site, sandbox: RunningSandbox) -> None:
    """Without its marker a file is not whole, however long it lies."""
    orders = site.feed("orders", ready="marker")
    (orders / "a.csv").write_bytes(b"a")
    (orders / "b.csv").write_bytes(b"b")
    (orders / "b.csv.done").touch()
    async with running_daemon(site.config) as daemon:
        await archived(daemon, 1)
        (orders / "a.csv.done").touch()
        await archived(daemon, 2)
        assert await daemon.end() == 0
    assert set(site.archived("orders")) == {"a.csv", "a.csv.done", "b.csv", "b.csv.done"}
    assert site.dropped("orders") == set()


async def test_leave_and_delete_do_what_they_say(site: Site, sandbox: RunningSandbox) -> None:
    """A file that is left is sent once, also across restarts; a deleted one is gone after its delivery."""
    left = site.feed("left", archive="leave")
    deleted = site.feed("deleted", archive="delete")
    (left / "a.csv").write_bytes(b"left")
    (deleted / "b.csv").write_bytes(b"deleted")
    for _ in range(2):
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("ready")
            if not sandbox.objects.exists() or len(contents(sandbox.objects)) < 2:
                await archived(daemon, 2)
            rename_in(deleted, "next.csv", b"next")
            await daemon.until(lambda: any(event["path"] == "next.csv" for event in daemon.named("file_archived")))
            assert await daemon.end() == 0
    assert site.dropped("left") == {"a.csv"}
    assert site.dropped("deleted") == set()
    assert sorted(contents(sandbox.objects).values()) == [b"deleted", b"left", b"next", b"next"]


async def test_a_replaced_file_is_a_new_version_and_the_archive_keeps_both(site: Site, sandbox: RunningSandbox) -> None:
    """The same name dropped again is delivered again and archived beside the first."""
    orders = site.feed("orders")
    async with running_daemon(site.config) as daemon:
        for n in range(3):
            rename_in(orders, "a.csv", b"version %d" % n)
            await archived(daemon, n + 1)
        assert await daemon.end() == 0
    assert sorted(site.archived("orders").values()) == [b"version 0", b"version 1", b"version 2"]
    assert len(contents(sandbox.objects)) == 3


async def test_secrets_stay_in(site: Site, sandbox: RunningSandbox) -> None:
    """At debug level neither key nor signature is in the log, in `ps`, or readable for others."""
    orders = site.feed("orders")
    for n in range(10):
        (orders / f"{n}.csv").write_bytes(os.urandom(3 * 2**20 if n == 0 else 1000))
    async with running_daemon(site.config) as daemon:
        await archived(daemon, 10)
        arguments = Path(f"/proc/{daemon.process.pid}/cmdline").read_bytes()
        modes = [stat.S_IMODE(path.stat().st_mode) for path in site.root.glob("ledger.db*")]
        assert await daemon.end() == 0
    assert KEY.encode() not in arguments
    assert len(modes) >= 3
    assert set(modes) == {0o600}
    assert len(daemon.log) > 5000
    assert KEY not in daemon.log
    assert "X-Amz-Signature=" not in daemon.log.replace("X-Amz-Signature=[redacted]", "")
    assert "X-Amz-Credential=" not in daemon.log.replace("X-Amz-Credential=[redacted]", "")
    with sqlite3.connect(site.ledger) as ledger:
        assert ledger.execute("select count(*) from files where grant_url is not null").fetchone() == (0,)


async def test_sigterm_lets_uploads_finish_and_leaves_the_rest_queued(site: Site, sandbox: RunningSandbox) -> None:
    """A drain cuts nothing off within its grace, and the next start goes on with the queue."""
    orders = site.feed("orders")
    site.sections["upload"] = {"concurrency": 1}
    for n in range(30):
        (orders / f"{n:02}.csv").write_bytes(os.urandom(5 * 2**20))
    async with running_daemon(site.config) as daemon:
        await archived(daemon, 2)
        assert await daemon.end() == 0
        assert daemon.named("stopped")
    done = len(site.archived("orders"))
    assert 2 <= done < 30
    async with running_daemon(site.config) as daemon:
        await archived(daemon, 30 - done)
        assert await daemon.end() == 0
    assert len(site.archived("orders")) == 30
    assert len(contents(sandbox.objects)) == 30


async def test_kill_9_during_an_upload_makes_no_second_object(site: Site, sandbox: RunningSandbox) -> None:
    """The next daemon sends the same version to the same grant, so that the store holds one object for it."""
    orders = site.feed("orders")
    content = os.urandom(2**20) * 200
    (orders / "big.csv").write_bytes(content)
    parts = sandbox.objects.parent

    def half_sent() -> bool:
        return any(path.stat().st_size > 2**20 for path in parts.rglob("*") if path.is_file())

    async with running_daemon(site.config) as daemon:
        await daemon.until_event("upload_started")
        while not half_sent():
            await asyncio.sleep(0)
        daemon.process.kill()
        await daemon.process.wait()
    assert not daemon.named("file_delivered")
    async with running_daemon(site.config) as daemon:
        await archived(daemon, 1)
        assert daemon.named("ledger_recovered")
        assert await daemon.end() == 0
    assert list(site.archived("orders").values()) == [content]
    assert list(contents(sandbox.objects).values()) == [content]


async def test_a_killed_daemon_moves_what_it_had_delivered_and_does_not_send_it_again(
    site: Site, sandbox: RunningSandbox
) -> None:
    """`uploaded` is durable before the move: a restart repeats the move and not the upload."""
    orders = site.feed("orders")
    site.sections["upload"] = {"concurrency": 4}
    for n in range(400):
        (orders / f"{n:03}.csv").write_bytes(b"%d" % n)
    killed = 0
    while killed < 3:
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("file_delivered", 30)
            daemon.process.kill()
            await daemon.process.wait()
            killed += 1
    async with running_daemon(site.config) as daemon:
        await daemon.until(lambda: not site.dropped("orders"))
        assert await daemon.end() == 0
    assert sorted(site.archived("orders").values()) == sorted(b"%d" % n for n in range(400))
    assert sorted(contents(sandbox.objects).values()) == sorted(b"%d" % n for n in range(400))


async def test_a_grant_that_grew_old_in_the_queue_is_replaced_before_use(tmp_path: Path) -> None:
    """With URLs that live 2 s and one slow slot, no PUT is refused as expired."""
    async with running(SandboxSettings(tmp_path / "processmind", KEY, url_lifetime=2)) as sandbox:
        site = Site(tmp_path, sandbox.base_url)
        orders = site.feed("orders")
        site.sections["upload"] = {"concurrency": 1}
        for n in range(12):
            (orders / f"{n:02}.csv").write_bytes(os.urandom(2**20) * 60)
        async with running_daemon(site.config) as daemon:
            await archived(daemon, 12)
            assert await daemon.end() == 0
        assert daemon.named("grant_refreshed") == []
        assert len(contents(sandbox.objects)) == 12


@pytest.mark.timeout(600)
async def test_a_file_of_2_gib_needs_little_memory(site: Site, sandbox: RunningSandbox) -> None:
    """Memory does not grow with file size."""
    orders = site.feed("orders")
    with (orders / "huge.csv").open("wb") as file:
        file.truncate(2 * 2**30)
    async with running_daemon(site.config) as daemon:
        await archived(daemon, 1, patience=300)
        peak = daemon.peak_memory()
        assert await daemon.end() == 0
    print(f"peak memory with a file of 2 GiB: {peak / 2**20:.0f} MiB")
    assert peak < 120 * 2**20
    [stored] = [path for path in sandbox.objects.rglob("*") if path.is_file()]
    assert stored.stat().st_size == 2 * 2**30
    stored.unlink()


def test_the_environment_of_tests_holds_no_settings() -> None:
    """What the machine sets for another tablefeed does not reach the daemons of the tests."""
    os.environ["TABLEFEED_LOG__LEVEL"] = "error"
    try:
        assert "TABLEFEED_LOG__LEVEL" not in clean_environ()
    finally:
        del os.environ["TABLEFEED_LOG__LEVEL"]
