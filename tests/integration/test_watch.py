import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import watchfiles
from structlog.testing import capture_logs

from support.intake import public_directory, unprivileged
from support.patience import until
from tablefeed import mounts
from tablefeed.watch.watcher import FLOOD, Watcher


class Seen:
    def __init__(self) -> None:
        self.paths: set[str] = set()
        self.gaps = 0
        self.threads: set[int] = set()

    def changes(self, paths: list[str]) -> None:
        self.paths.update(paths)
        self.threads.add(threading.get_ident())

    def gap(self) -> None:
        self.gaps += 1
        self.threads.add(threading.get_ident())


@contextmanager
def shut_root() -> Iterator[Path]:
    """A directory of the block's user, which that user may not read."""
    with public_directory() as parent:
        parent.chmod(0o777)
        with unprivileged():
            root = parent / "orders"
            root.mkdir(0)
            try:
                yield root
            finally:
                root.chmod(0o755)


@asynccontextmanager
async def watching(root: Path, *, recursive: bool = False, tick: float = 0.1) -> AsyncIterator[Seen]:
    seen = Seen()
    watcher = Watcher(
        root,
        feed="orders",
        recursive=recursive,
        step=0.02,
        tick=tick,
        on_changes=seen.changes,
        on_gap=seen.gap,
    )
    task = asyncio.create_task(watcher.run())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def test_a_change_is_told_by_its_relative_path_in_the_loop(tmp_path: Path) -> None:
    """New, renamed and changed files are told; names that watchfiles would hide too, since the selection decides."""
    async with watching(tmp_path) as seen:
        await until(lambda: seen.gaps)
        (tmp_path / "a.csv").write_text("1")
        (tmp_path / ".DS_Store").touch()
        (tmp_path / ".DS_Store").rename(tmp_path / "c.csv")
        await until(lambda: seen.paths >= {"a.csv", ".DS_Store", "c.csv"})
        assert seen.threads == {threading.get_ident()}


async def test_the_start_of_a_watch_is_a_gap(tmp_path: Path) -> None:
    """What happened before the kernel listened was not told, and must be scanned for."""
    async with watching(tmp_path) as seen:
        await until(lambda: seen.gaps == 1)


async def test_the_start_is_a_gap_though_events_come_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy directory gives no quiet moment in which the gap could be told."""

    def busy(*_: object, stop_event: threading.Event, **__: object) -> Iterator[set[tuple[watchfiles.Change, str]]]:
        while not stop_event.wait(0.01):
            yield {(watchfiles.Change.added, f"{tmp_path}/a.csv")}

    monkeypatch.setattr(watchfiles, "watch", busy)
    async with watching(tmp_path) as seen:
        await until(lambda: seen.paths)
        assert seen.gaps == 1


async def test_subdirectories_are_watched_where_the_feed_is_recursive(tmp_path: Path) -> None:
    """A new directory is told, and files that come into an old one."""
    (tmp_path / "old").mkdir()
    async with watching(tmp_path, recursive=True) as seen:
        await until(lambda: seen.gaps)
        (tmp_path / "new").mkdir()
        (tmp_path / "old/a.csv").touch()
        await until(lambda: seen.paths >= {"new", "old/a.csv"})


async def test_a_flood_is_a_gap_and_another_when_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's queue may have run over: what was told last is no sign that all was told."""
    flood = {(watchfiles.Change.added, f"{tmp_path}/{number}") for number in range(FLOOD)}
    one = {(watchfiles.Change.added, f"{tmp_path}/last.csv")}
    told: list[set[tuple[watchfiles.Change, str]]] = [set(), flood, one, set(), set()]

    def burst(*_: object, stop_event: threading.Event, **__: object) -> Iterator[set[tuple[watchfiles.Change, str]]]:
        yield from told
        stop_event.wait()

    monkeypatch.setattr(watchfiles, "watch", burst)
    async with watching(tmp_path, tick=60) as seen:
        await until(lambda: seen.gaps == 3)
        assert seen.paths == {"last.csv"}


async def test_a_root_made_anew_is_watched_again(tmp_path: Path) -> None:
    """The kernel's watch stays with the old inode, and would be silent for ever."""
    root = tmp_path / "orders"
    root.mkdir()
    async with watching(root) as seen:
        await until(lambda: seen.gaps)
        shutil.rmtree(root)
        root.mkdir()
        gaps = seen.gaps
        await until(lambda: seen.gaps >= gaps + 2)
        (root / "a.csv").touch()
        await until(lambda: "a.csv" in seen.paths)


async def test_a_root_that_is_replaced_without_an_event_is_noticed(tmp_path: Path) -> None:
    """A link that is set to another directory, or a mount over the root, makes no event."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "root").symlink_to("one")
    async with watching(tmp_path / "root") as seen:
        await until(lambda: seen.gaps)
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").rename(tmp_path / "root")
        gaps = seen.gaps
        await until(lambda: seen.gaps >= gaps + 2)
        (tmp_path / "two/a.csv").touch()
        await until(lambda: "a.csv" in seen.paths)


async def test_a_root_that_is_not_there_yet_is_watched_when_it_comes(tmp_path: Path) -> None:
    """A share that is mounted late, or a producer that makes its directory itself."""
    root = tmp_path / "orders"
    async with watching(root) as seen:
        await until(lambda: seen.gaps >= 2)
        root.mkdir()
        (root / "first.csv").touch()

        def told() -> bool:
            (root / "a.csv").touch()
            return "a.csv" in seen.paths

        await until(told)


async def test_a_root_that_may_not_be_read_is_watched_once_it_may() -> None:
    """The kernel refuses the watch without a word; a change of the permissions must make it anew."""
    with shut_root() as root:
        async with watching(root) as seen:
            await until(lambda: seen.gaps >= 2)
            root.chmod(0o755)

            def told() -> bool:
                (root / "a.csv").touch()
                return "a.csv" in seen.paths

            await until(told)


async def test_a_name_that_is_not_utf8_ends_the_watch_and_not_the_watcher(tmp_path: Path) -> None:
    """It is told as a gap and logged once with the remedy, and later files are told again."""
    with capture_logs() as logs:
        async with watching(tmp_path) as seen:
            await until(lambda: seen.gaps)
            Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv")).touch()
            await until(lambda: seen.gaps >= 3)
            (tmp_path / "a.csv").touch()
            await until(lambda: "a.csv" in seen.paths)
    assert [entry["event"] for entry in logs] == ["watch_failed"]
    assert "watch.rescan" in logs[0]["remedy"]


async def test_a_limit_of_the_kernel_is_logged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scans go on alone; the watch is tried again, and its failing again says nothing new."""
    tries = 0

    def full(*_: object, **__: object) -> Iterator[set[tuple[watchfiles.Change, str]]]:
        nonlocal tries
        tries += 1
        raise OSError("OS file watch limit reached.")
        yield set()

    monkeypatch.setattr(watchfiles, "watch", full)
    with capture_logs() as logs:
        async with watching(tmp_path, tick=0.01) as seen:
            await until(lambda: tries >= 4)
            assert seen.gaps >= 3
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("watch_failed", "OS file watch limit reached.")]


async def test_a_network_share_is_not_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its other writers make no events here: that is logged with the remedy, and no watch is begun."""
    table = tmp_path / "mountinfo"
    table.write_text("1 0 0:99 / / rw - nfs4 host:/x rw\n")
    monkeypatch.setattr(mounts, "MOUNTINFO", table)
    monkeypatch.setattr(watchfiles, "watch", None)
    with capture_logs() as logs:
        async with watching(tmp_path) as seen:
            await until(lambda: seen.gaps)
            await until(lambda: logs)
    assert [(entry["event"], entry["file_system"]) for entry in logs] == [("no_events_on_network_share", "nfs4")]
    assert "watch.rescan" in logs[0]["remedy"]


async def test_a_watcher_that_is_stopped_leaves_no_thread(tmp_path: Path) -> None:
    """The thread ends soon after the task was cancelled."""
    async with watching(tmp_path) as seen:
        await until(lambda: seen.gaps)
        assert watch_threads()
    await until(lambda: not watch_threads())


def watch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("tablefeed-watch")]
