"""The way back of refused files, on real directories."""

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from support.archive import MortalDisk, PowerCut, archiving, drop, feed_at, old_kernel, seen, write
from tablefeed.archive.moves import Disk, StrPath
from tablefeed.archive.restore import restore
from tablefeed.errors import FileRefused, NotRestored
from tablefeed.model import Feed, FileVersion, Ready

REFUSED = FileRefused("a.csv", "too large", "Split it")


def names(directory: Path) -> set[str]:
    """All files below a directory."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


async def refused(feed: Feed, path: str = "a.csv") -> tuple[FileVersion, Path]:
    """A file that has been set aside, and where it lies."""
    version = drop(feed, path, b"content")
    async with archiving() as archiver:
        moved = await archiver.set_aside(feed, 7, version, REFUSED, 0)
    assert moved.destination is not None
    return version, Path(moved.destination)


async def test_a_refused_file_returns_to_where_it_was_dropped(tmp_path: Path) -> None:
    """It is the very version that was refused, and its report is gone."""
    feed = feed_at(tmp_path)
    version, destination = await refused(feed)
    assert names(tmp_path) == {"failed/a.csv", "failed/a.csv.error.json"}
    restore(feed, 7, version, destination, Disk())
    assert names(tmp_path) == {"a.csv"}
    assert seen(feed, "a.csv") == version


async def test_a_refused_file_returns_whatever_time_it_has(tmp_path: Path) -> None:
    """A broken clock of the export, or a share's end of time, lies beyond what the ledger keeps of nanoseconds."""
    feed = feed_at(tmp_path)
    drop(feed, "a.csv", b"content", mtime_ns=10**19)  # in the year 2286
    if (tmp_path / "a.csv").stat().st_mtime_ns != 10**19:
        pytest.skip("the file system knows no such time")
    version = seen(feed, "a.csv")
    async with archiving() as archiver:
        moved = await archiver.set_aside(feed, 7, version, REFUSED, 0)
    restore(feed, 7, version, Path(str(moved.destination)), Disk())
    assert seen(feed, "a.csv") == version


async def test_its_directory_and_its_marker_return_too(tmp_path: Path) -> None:
    """A recursive feed's directory may have been removed meanwhile; a marker makes the file whole again."""
    feed = feed_at(tmp_path, recursive=True, ready=Ready.MARKER)
    write(tmp_path / "sub/a.csv.done", b"")
    version, destination = await refused(feed, "sub/a.csv")
    (tmp_path / "sub").rmdir()
    restore(feed, 7, version, destination, Disk())
    assert names(tmp_path) == {"sub/a.csv", "sub/a.csv.done"}


async def test_a_new_file_of_that_name_is_not_overwritten(tmp_path: Path) -> None:
    """The refused one stays where it is, with its report."""
    feed = feed_at(tmp_path)
    version, destination = await refused(feed)
    write(tmp_path / "a.csv", b"newer")
    with pytest.raises(NotRestored, match=r"a\.csv is there again"):
        restore(feed, 7, version, destination, Disk())
    assert (tmp_path / "a.csv").read_bytes() == b"newer"
    assert names(tmp_path) == {"a.csv", "failed/a.csv", "failed/a.csv.error.json"}


async def test_another_file_at_its_place_is_left_alone(tmp_path: Path) -> None:
    """Somebody has mended it there, or dropped another: that is not what was refused."""
    feed = feed_at(tmp_path)
    version, destination = await refused(feed)
    write(destination, b"other content")
    with pytest.raises(NotRestored, match="is not there any more, or is another file by now"):
        restore(feed, 7, version, destination, Disk())
    assert destination.read_bytes() == b"other content"


async def test_a_file_that_was_left_in_place_is_only_looked_at(tmp_path: Path) -> None:
    """There is nothing to move; that it has vanished is told."""
    feed = feed_at(tmp_path)
    version = drop(feed, "a.csv", b"content")
    restore(feed, 7, version, None, Disk())
    assert seen(feed, "a.csv") == version
    (tmp_path / "a.csv").unlink()
    with pytest.raises(NotRestored, match="is not there any more"):
        restore(feed, 7, version, None, Disk())


class FarDisk(Disk):
    """A disk on which `failed` lies on another file system."""

    def rename(self, source: StrPath, target: StrPath) -> None:
        if Path(source).parent.name == "failed":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        super().rename(source, target)


async def test_it_returns_from_another_file_system_whole(tmp_path: Path) -> None:
    """By a copy under a hidden name, so that nobody sees half of it; mtime and permissions stay."""
    feed = feed_at(tmp_path)
    version, destination = await refused(feed)
    restore(feed, 7, version, destination, FarDisk())
    found = (tmp_path / "a.csv").stat()
    assert (tmp_path / "a.csv").read_bytes() == b"content"
    assert (found.st_mtime_ns, found.st_mode & 0o777) == (version.mtime_ns, 0o640)
    assert names(tmp_path) == {"a.csv"}


async def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """With what to do, and nothing is lost."""
    feed = feed_at(tmp_path)
    version, destination = await refused(feed)

    class FullDisk(Disk):
        def rename(self, source: StrPath, target: StrPath) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(NotRestored, match=r"cannot be moved back .*No space left"):
        restore(feed, 7, version, destination, FullDisk())
    assert destination.exists()


async def test_a_return_that_was_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    """On an old kernel, where it takes two steps: the file lies at its path alone, and is not told to be in the way."""
    step, died = 0, True
    while died:
        step += 1
        feed = feed_at(tmp_path / str(step))
        version, destination = await refused(feed)
        mortal = MortalDisk(step, old_kernel())
        with suppress(PowerCut):
            restore(feed, 7, version, destination, mortal)
        died = mortal.died
        if destination.exists():
            restore(feed, 7, version, destination, old_kernel())
        assert names(feed.directory) <= {"a.csv", "failed/a.csv.error.json"}
        assert seen(feed, "a.csv") == version
