"""Archives that cannot be moved to: what was delivered is never sent again, and is moved as soon as it can be."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from support.archive import HookedDisk, PowerCut, feed_at
from support.bench import Bench, bench
from support.daemon import Daemon, as_a_user, bound_by_permissions, contents, rename_in, running_daemon
from support.mounts import tmpfs
from tablefeed.archive.archiver import delivered, refused
from tablefeed.archive.moves import Disk
from tablefeed.archive.relocate import Move
from tablefeed.errors import FileRefused
from tablefeed.model import FileVersion

pytestmark = as_a_user

FILES = {f"{n}.csv": b"content %d " % n * 1000 for n in range(5)}


def drop_all(directory: Path) -> None:
    for name, content in FILES.items():
        (directory / name).write_bytes(content)


def a_file(archive: Path) -> Callable[[], object]:
    archive.write_text("in the way")
    return archive.unlink


def a_dangling_link(archive: Path) -> Callable[[], object]:
    away = archive.with_name("away")
    archive.symlink_to(away)
    return away.mkdir


def no_permission(archive: Path) -> Callable[[], object]:
    archive.mkdir(0o555)
    return lambda: archive.chmod(0o755)


def no_permission_above(archive: Path) -> Callable[[], object]:
    archive.parent.chmod(0o555)
    return lambda: archive.parent.chmod(0o755)


@pytest.mark.parametrize("killed", [False, True], ids=["running", "killed"])
@pytest.mark.parametrize("block", [a_file, a_dangling_link, no_permission, no_permission_above])
async def test_what_cannot_be_moved_is_moved_later_and_not_sent_again(
    tmp_path: Path, block: Callable[[Path], Callable[[], object]], killed: bool
) -> None:
    """The feed says once what is wrong; mended, all files are moved, by the next start too."""
    (tmp_path / "kept").mkdir()
    archive = tmp_path / "kept" / "archive"
    async with bench(tmp_path) as it:
        drop_all(it.feed(archive=str(archive)))
        mend = block(archive)
        async with running_daemon(it.site.config, prefix=bound_by_permissions()) as daemon:
            await daemon.until_event("file_delivered", len(FILES))
            await daemon.until_event("feed_paused", 3)
            if not killed:
                mend()
                await daemon.until_event("file_archived", len(FILES))
                assert daemon.named("feed_resumed")
                assert await daemon.end() == 0
        [loud] = [event for event in daemon.named("feed_paused") if event["level"] == "error"]
        assert str(archive.parent) in loud["reason"] + loud["remedy"]
        if killed:
            mend()
            await finish(it)
        assert_moved_once(it, archive)


async def finish(it: Bench) -> Daemon:
    """Another daemon, until all is archived."""
    async with running_daemon(it.site.config, prefix=bound_by_permissions()) as daemon:
        await daemon.until_event("file_archived", len(FILES))
        assert await daemon.end() == 0
    return daemon


def assert_moved_once(it: Bench, archive: Path) -> None:
    """Each file lies in the archive, and was sent once."""
    assert {path.name: path.read_bytes() for path in archive.iterdir()} == FILES
    assert it.site.dropped("orders") == set()
    assert it.sent() == sorted(FILES.items())
    assert len(it.store.puts) == len(FILES)
    assert {state for _, state in it.ledger()} == {"archived"}


async def test_a_full_archive_on_another_file_system_is_waited_for(tmp_path: Path) -> None:
    """It leaves no half copy; with room again all is copied, and a file that may not be read by then waits alone."""
    archive = tmp_path / "kept"
    with tmpfs(archive, size="128k"):
        async with bench(tmp_path) as it:
            orders = it.feed(archive=str(archive))
            drop_all(orders)
            fill(archive / "ballast")
            async with running_daemon(it.site.config, prefix=bound_by_permissions()) as daemon:
                await daemon.until_event("file_delivered", len(FILES))
                await daemon.until_event("file_delayed", len(FILES) + 1)
                assert all("No space left" in event["reason"] for event in daemon.named("file_delayed"))
                assert [path.name for path in archive.iterdir()] == ["ballast"]
                (orders / "3.csv").chmod(0)
                (archive / "ballast").unlink()
                await daemon.until_event("file_archived", len(FILES) - 1)
                await daemon.until(lambda: "may not be read" in daemon.named("file_delayed")[-1]["reason"])
                (orders / "3.csv").chmod(0o600)
                await daemon.until_event("file_archived", len(FILES))
                assert await daemon.end() == 0
            assert daemon.named("feed_paused") == []
            assert_moved_once(it, archive)


def fill(path: Path) -> None:
    """A file that takes all the room there is."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    assert os.statvfs(path).f_bavail == 0


async def test_an_archive_that_is_removed_is_made_anew(tmp_path: Path) -> None:
    """Whoever clears it away, even its directory, stops nothing."""
    async with bench(tmp_path) as it:
        orders = it.feed()
        async with running_daemon(it.site.config) as daemon:
            for n, (name, content) in enumerate(FILES.items()):
                rename_in(orders, name, content)
                await daemon.until_event("file_archived", n + 1)
                assert it.archived() == {name: content}
                shutil.rmtree(orders / "archive")
            assert await daemon.end() == 0
        assert it.sent() == sorted(FILES.items())
        assert daemon.named("feed_paused") == []


def die(*_: object) -> None:
    raise PowerCut


def row(it: Bench) -> tuple[int, FileVersion]:
    """The only row: its id, and its version."""
    [found] = it.site.rows("SELECT id, feed, path, device, inode, size, mtime_ns FROM files")
    entry_id, *fields = found.values()
    return entry_id, FileVersion(*fields)


async def test_a_kill_while_a_file_is_set_aside_hides_it_only_until_the_next_start(tmp_path: Path) -> None:
    """Taken to its hidden name and not yet in `failed/`, it is found there, with its report, and is never sent."""
    async with bench(tmp_path) as it:
        orders = it.feed()
        it.site.sections["upload"] = {"max_size": "10B"}
        (orders / "large.csv").write_bytes(b"much too large")
        (orders / "failed").write_text("in the way")
        async with running_daemon(it.site.config) as daemon:
            await daemon.until_event("file_rejected")
        (orders / "failed").unlink()
        entry_id, version = row(it)
        job = refused(feed_at(orders), entry_id, version, FileRefused("large.csv", "too large", "Split it"), 0)
        with pytest.raises(PowerCut):
            Move(job, HookedDisk(rename=die), lambda: True).quick()
        [hidden] = it.site.dropped("orders")
        assert hidden.startswith(".tablefeed-")
        async with running_daemon(it.site.config) as daemon:
            await daemon.until_event("file_rejected")
            assert await daemon.end() == 0
        assert it.site.dropped("orders") == set()
        failed = contents(orders / "failed")
        assert failed["large.csv"] == b"much too large"
        assert set(failed) == {"large.csv", "large.csv.error.json"}
        assert it.store.puts == []


@pytest.mark.parametrize("where", ["same file system", "other file system"])
async def test_a_move_whose_archive_was_changed_before_the_restart_sends_nothing_again(
    tmp_path: Path, where: str
) -> None:
    """Killed after the move and before its commit, then told another archive: the file lies in the old one still."""
    if where == "same file system":
        await _restart_with_another_archive(tmp_path, tmp_path / "old", HookedDisk(sync=die))
        assert not (tmp_path / "new").exists()
        return
    with tmpfs(tmp_path / "old"):
        # The copy is whole and its source not taken yet: it is copied to the new archive as well.
        await _restart_with_another_archive(tmp_path, tmp_path / "old", HookedDisk(take=die))
        assert contents(tmp_path / "new") == {"a.csv": b"content"}


async def _restart_with_another_archive(root: Path, old: Path, disk: Disk) -> None:
    async with bench(root) as it:
        (root / "blocked").write_text("in the way")
        orders = it.feed(archive=str(root / "blocked"))
        (orders / "a.csv").write_bytes(b"content")
        async with running_daemon(it.site.config) as daemon:
            await daemon.until_event("feed_paused")
        entry_id, version = row(it)
        job = delivered(feed_at(orders, archive=str(old)), entry_id, version, 0, None)
        with pytest.raises(PowerCut):
            _move(Move(job, disk, lambda: True))
        it.site.feeds["orders"]["archive"] = str(root / "new")
        async with running_daemon(it.site.config) as daemon:
            await daemon.until_event("file_archived")
            assert await daemon.end() == 0
        assert contents(old) == {"a.csv": b"content"}
        assert it.site.dropped("orders") == set()
        assert it.sent() == [("a.csv", b"content")]
        assert len(it.store.puts) == 1


def _move(move: Move) -> None:
    """As the archiver does it, but for the threads."""
    if move.quick() is None:
        move.slow()
    move.sync()
