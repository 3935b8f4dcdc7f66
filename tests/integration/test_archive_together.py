"""Moves that are made together: what they share, and what each is told."""

import asyncio
import errno
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from support.archive import UPLOADED_AT, HookedDisk, Once, archiving, books, drop, failing, feed_at, write
from tablefeed.archive import Moved
from tablefeed.errors import DiskTrouble, FeedBlocked

CONTENT = b"id;name\n1;one\n"
OTHER = b"something else entirely\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "drop").mkdir()
    return tmp_path / "drop"


async def test_moves_made_together_look_at_their_directories_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred moves ask once or twice what their directories are, though for each file before and after it moves."""
    feed = feed_at(root, archive="archive/%Y")
    versions = [drop(feed, f"{number}.csv", CONTENT) for number in range(100)]
    asked: Counter[str] = Counter()
    stat, lstat = os.stat, os.lstat

    def counted_stat(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        asked[str(path)] += 1
        return stat(path, *arguments, **options)

    def counted_lstat(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(str(root)):  # other threads of this process look at other files
            asked["files"] += 1
        return lstat(path, *arguments, **options)

    async with archiving() as archiver:
        monkeypatch.setattr(os, "stat", counted_stat)
        monkeypatch.setattr(os, "lstat", counted_lstat)
        await asyncio.gather(
            *(archiver.move_delivered(feed, number, version, UPLOADED_AT) for number, version in enumerate(versions))
        )
        monkeypatch.undo()
    assert 0 < asked[str(root)] + asked[str(root / "archive/2023")] <= 8
    assert 300 < asked["files"] <= 600


async def test_moves_made_together_are_each_told_of_a_directory_that_cannot_be_used(root: Path) -> None:
    """None of them is moved, each says why, and a neighbour with another archive is not held up."""
    here, there = feed_at(root / "here"), feed_at(root / "there")
    versions = [drop(here, f"{number}.csv", CONTENT) for number in range(3)]
    other = drop(there, "b.csv", CONTENT)
    write(root / "here/archive", OTHER)
    async with archiving() as archiver:
        *bad, good = await asyncio.gather(
            *(archiver.move_delivered(here, number, version, UPLOADED_AT) for number, version in enumerate(versions)),
            archiver.move_delivered(there, 9, other, UPLOADED_AT),
            return_exceptions=True,
        )
    assert [type(error) for error in bad] == [FeedBlocked] * 3
    assert good == Moved(str(root / "there/archive/b.csv"))
    assert {path.name for path in (root / "here").iterdir()} == {"archive", "0.csv", "1.csv", "2.csv"}


async def test_a_failure_to_make_the_archive_is_told_to_the_move_that_met_it(root: Path) -> None:
    """The next one of its batch tries again."""
    feed = feed_at(root)
    versions = [drop(feed, f"{number}.csv", CONTENT) for number in range(2)]

    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with archiving(HookedDisk(mkdir=Once(fail))) as archiver:
        moves = [archiver.move_delivered(feed, number, version, UPLOADED_AT) for number, version in enumerate(versions)]
        bad, good = await asyncio.gather(*moves, return_exceptions=True)
    assert isinstance(bad, DiskTrouble)
    assert good == Moved(str(root / "archive/1.csv"))


async def test_an_archive_that_goes_away_between_two_moves_loses_nothing(root: Path) -> None:
    """The move that meets it fails, and can be repeated; those before it are whole, and the next one makes it anew."""
    feed = feed_at(root)
    versions = [drop(feed, f"{number}.csv", CONTENT) for number in range(3)]

    def go_away() -> None:
        (root / "archive").rename(root / "away")

    disk = HookedDisk(take=Once(go_away, when=lambda source, _: source.name == "1.csv"))
    async with archiving(disk) as archiver:
        moves = [archiver.move_delivered(feed, number, version, UPLOADED_AT) for number, version in enumerate(versions)]
        first, bad, last = await asyncio.gather(*moves, return_exceptions=True)
        assert isinstance(bad, DiskTrouble)
        assert (first, last) == (Moved(str(root / "archive/0.csv")), Moved(str(root / "archive/2.csv")))
        assert sorted(books(root)) == [str(root / name) for name in ("1.csv", "archive/2.csv", "away/0.csv")]
        moved = await archiver.move_delivered(feed, 1, versions[1], UPLOADED_AT)
    assert moved == Moved(str(root / "archive/1.csv"))


async def test_new_directories_that_cannot_be_made_durable_fail_all_that_lie_in_them(root: Path) -> None:
    """Also the moves that found them made by the first of their batch."""
    feed = feed_at(root, archive="archive/%Y")
    versions = [drop(feed, f"{number}.csv", CONTENT) for number in range(3)]
    broken = HookedDisk(sync=failing(errno.EIO, when=lambda directory: directory == root / "archive"))
    async with archiving(broken) as archiver:
        moves = [archiver.move_delivered(feed, number, version, UPLOADED_AT) for number, version in enumerate(versions)]
        ends = await asyncio.gather(*moves, return_exceptions=True)
    assert [type(end) for end in ends] == [DiskTrouble] * 3
