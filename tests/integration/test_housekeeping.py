"""What grows is cut back, over real directories and a real ledger, and nothing else is touched."""

import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support.archive import archiving, drop, feed_at, write
from support.ledgers import GRANT, RECEIPT, Clock, joined, opened
from support.postgres import Postgres
from tablefeed.housekeeping import Housekeeper
from tablefeed.ledger import Closing, Ledger, Want
from tablefeed.model import Feed, FileVersion, Order, Ready

DAY = 86_400.0


class Bench:
    """A feed, its ledger and the housekeeper, with a clock of their own."""

    def __init__(self, feed: Feed, ledger: Ledger, housekeeper: Housekeeper, clock: Clock) -> None:
        self.feed = feed
        self.ledger = ledger
        self.housekeeper = housekeeper
        self.clock = clock

    async def deliver(self, path: str) -> Path | None:
        """Archive a new file; where it lies now."""
        version = drop(self.feed, path, b"content of " + path.encode())
        await self.ledger.enqueue([version])
        [entry] = await self.ledger.claim([Want("orders", Order.OLDEST, 1)])
        await self.ledger.uploaded(entry.id, RECEIPT)
        async with archiving() as archiver:
            moved = await archiver.move_delivered(self.feed, entry.id, version, self.clock.ms)
        await self.ledger.archived(Closing(entry.id, moved.destination, moved.left_in_place))
        return Path(moved.destination) if moved.destination else None


@asynccontextmanager
async def keeping(root: Path, *, history_keep: float = 0.0, **settings: Any) -> AsyncIterator[Bench]:
    """A bench on a directory."""
    feed = feed_at(root / "drop", **settings)
    feed.directory.mkdir(exist_ok=True)
    clock = Clock()
    with ThreadPoolExecutor(1) as executor:
        async with opened(root / "ledger.db", clock) as ledger:
            housekeeper = Housekeeper(
                {"orders": feed}, ledger, no_leftovers, executor, wall=clock, history_keep=history_keep
            )
            yield Bench(feed, ledger, housekeeper, clock)


async def no_leftovers() -> None:
    """No refused file waits."""


def rows(root: Path) -> dict[str, int | None]:
    """When the file of each row was removed, by path."""
    with sqlite3.connect(root / "ledger.db") as raw:
        return dict(raw.execute("SELECT path, removed_at FROM files"))


async def test_archived_files_are_deleted_when_their_time_is_over(tmp_path: Path) -> None:
    """Not earlier; their markers and the directories that end up empty go with them, the archive itself stays."""
    async with keeping(
        tmp_path, archive="archive/%Y-%m-%d", archive_keep=7 * DAY, ready=Ready.MARKER, settle=0
    ) as bench:
        write(bench.feed.directory / "old.csv.done", b"")
        old = await bench.deliver("old.csv")
        bench.clock.now += 4 * DAY
        young = await bench.deliver("young.csv")
        assert old is not None
        assert young is not None
        assert old.with_name("old.csv.done").exists()
        await bench.housekeeper.tidy()
        assert old.exists()
        bench.clock.now += 4 * DAY
        await bench.housekeeper.tidy()
        assert not old.parent.exists()
        assert young.exists()
        bench.clock.now += 4 * DAY
        await bench.housekeeper.tidy()
        assert [*(bench.feed.directory / "archive").iterdir()] == []
        assert rows(tmp_path) == {
            "old.csv": bench.clock.ms - round(4 * DAY * 1000),
            "young.csv": bench.clock.ms,
        }


async def test_one_node_at_a_time_cleans_what_all_share(tmp_path: Path, postgres: Postgres) -> None:
    """The one that scans: another might remove what has got the name of an old file in that moment."""
    feed = feed_at(tmp_path, archive_keep=DAY, shared=True)
    url, clock = postgres.database(), Clock()
    with ThreadPoolExecutor(1) as executor:
        async with joined(url, "one", clock) as one, joined(url, "two", clock) as two:
            keepers = []
            for ledger in (one, two):
                await ledger.know(["orders"], ["orders"])
                keeper = Housekeeper({"orders": feed}, ledger, no_leftovers, executor, wall=clock, history_keep=0.0)
                keepers.append(keeper)
            path = await Bench(feed, one, keepers[0], clock).deliver("a.csv")
            assert path is not None
            clock.now += 2 * DAY
            assert await two.may_scan("orders")
            await keepers[0].tidy()
            assert path.exists()
            await keepers[1].tidy()
            assert not path.exists()


async def test_what_cleans_takes_no_scans(tmp_path: Path, postgres: Postgres) -> None:
    """Who has them is told of all files that others hear of, and the intake of this node would tell that back."""
    feed = feed_at(tmp_path, archive_keep=DAY, shared=True)
    with ThreadPoolExecutor(1) as executor:
        async with joined(postgres.database(), "one") as one:
            await one.know(["orders"], ["orders"])
            await Housekeeper({"orders": feed}, one, no_leftovers, executor, wall=Clock(), history_keep=DAY).tidy()
            assert not one.scans("orders")


async def test_what_was_changed_in_the_archive_stays(tmp_path: Path) -> None:
    """Another file under that name is not ours to delete; it is passed by for good."""
    async with keeping(tmp_path, archive_keep=DAY) as bench:
        path = await bench.deliver("a.csv")
        assert path is not None
        write(path, b"notes of somebody")
        bench.clock.now += 2 * DAY
        await bench.housekeeper.tidy()
        assert path.read_bytes() == b"notes of somebody"
        assert rows(tmp_path)["a.csv"] is not None


async def test_an_archive_that_is_away_forgets_nothing(tmp_path: Path) -> None:
    """An empty directory may be the place of a file system that is not mounted; when it is back the files go."""
    async with keeping(tmp_path, archive_keep=DAY) as bench:
        path = await bench.deliver("a.csv")
        assert path is not None
        away = path.parent.rename(tmp_path / "away")
        path.parent.mkdir()
        bench.clock.now += 2 * DAY
        await bench.housekeeper.tidy()
        path.parent.rmdir()
        await bench.housekeeper.tidy()
        assert rows(tmp_path) == {"a.csv": None}
        away.rename(path.parent)
        await bench.housekeeper.tidy()
        assert not path.exists()


async def test_an_archive_without_a_time_is_kept_for_ever(tmp_path: Path) -> None:
    """0 means that nothing is ever deleted, however old."""
    async with keeping(tmp_path, archive_keep=0.0) as bench:
        path = await bench.deliver("a.csv")
        bench.clock.now += 10_000 * DAY
        await bench.housekeeper.tidy()
        assert path is not None
        assert path.exists()


async def test_the_history_is_cut_after_the_archive(tmp_path: Path) -> None:
    """A row is kept until its file has been deleted, even when the history is shorter than the archive."""
    async with keeping(tmp_path, history_keep=DAY, archive_keep=7 * DAY) as bench:
        path = await bench.deliver("a.csv")
        assert path is not None
        bench.clock.now += 2 * DAY
        await bench.housekeeper.tidy()
        assert rows(tmp_path) == {"a.csv": None}
        bench.clock.now += 6 * DAY
        await bench.housekeeper.tidy()
        assert not path.exists()
        assert rows(tmp_path) == {}


async def test_rows_of_files_left_in_place_go_when_the_files_are_gone(tmp_path: Path) -> None:
    """While such a file lies there its row keeps it from being sent again."""
    async with keeping(tmp_path, history_keep=DAY, archive="leave") as bench:
        await bench.deliver("stays.csv")
        await bench.deliver("goes.csv")
        bench.clock.now += 2 * DAY
        (bench.feed.directory / "goes.csv").unlink()
        await bench.housekeeper.tidy()
        assert rows(tmp_path) == {"stays.csv": None}


async def test_rows_are_kept_while_a_drop_directory_is_away(tmp_path: Path) -> None:
    """The files are not gone, they are out of reach."""
    async with keeping(tmp_path, history_keep=DAY, archive="leave") as bench:
        await bench.deliver("a.csv")
        bench.feed.directory.rename(tmp_path / "away")
        bench.clock.now += 2 * DAY
        await bench.housekeeper.tidy()
        assert rows(tmp_path) == {"a.csv": None}


async def test_a_history_without_a_time_is_kept_for_ever(tmp_path: Path) -> None:
    """0 means that nothing is ever forgotten."""
    async with keeping(tmp_path, history_keep=0.0) as bench:
        await bench.deliver("a.csv")
        bench.clock.now += 10_000 * DAY
        await bench.housekeeper.tidy()
        assert rows(tmp_path) == {"a.csv": None}


async def test_many_rows_are_cut_back_in_one_pass(tmp_path: Path) -> None:
    """Whatever the size of a batch."""
    async with keeping(tmp_path, history_keep=DAY) as bench:
        versions = [FileVersion("orders", f"{n}.csv", 1, n, 1, 1) for n in range(2_500)]
        await bench.ledger.enqueue(versions)
        for entry in await bench.ledger.claim([Want("orders", Order.OLDEST, 2_500)]):
            await bench.ledger.gone(entry.id)
        bench.clock.now += 2 * DAY
        await bench.housekeeper.tidy()
        assert rows(tmp_path) == {}


async def test_no_grant_stays_in_the_journal_of_a_daemon_that_runs_on(tmp_path: Path) -> None:
    """What was cleared from the ledger is not left in what SQLite has written on the way."""
    async with keeping(tmp_path) as bench:
        version = drop(bench.feed, "a.csv", b"content")
        await bench.ledger.enqueue([version])
        [entry] = await bench.ledger.claim([Want("orders", Order.OLDEST, 1)])
        await bench.ledger.granted(entry.id, GRANT)
        await bench.ledger.uploaded(entry.id, RECEIPT)
        secret = GRANT.url.encode()
        assert secret in (tmp_path / "ledger.db-wal").read_bytes()
        await bench.housekeeper.tidy()
        assert not any(secret in path.read_bytes() for path in tmp_path.glob("ledger.db*"))
