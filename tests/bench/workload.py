"""What the rows work on: many files, made quickly and used again where that is honest."""

import asyncio
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bench.model import Plan
from tablefeed.ledger import Ledger
from tablefeed.model import ApiAccess, Feed, FileVersion
from tablefeed.watch.scan import Selection, scan

ORDERS = "orders"
"""The name of the feed where there is only one."""
SIZE = 10 * 2**10
"""Bytes of a small file. Nothing is written: a hole reads as zeros, and the disk stays out of what is measured."""


def name_of(number: int) -> str:
    """What the file of this number is called."""
    return f"export-{number:07}.csv"


def make_files(directory: Path, count: int, size: int = SIZE, first: int = 0) -> None:
    """Make files of zeros, from number `first` on."""
    directory.mkdir(parents=True, exist_ok=True)
    where = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(first, first + count):
            fd = os.open(name_of(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=where)
            os.ftruncate(fd, size)
            os.close(fd)
    finally:
        os.close(where)


def crowd(plan: Plan) -> int:
    """How many files "1,000,000" are at this scale."""
    return plan.pick(1_000_000, 2_000)


def crowded(plan: Plan) -> Path:
    """A directory with so many files and nothing else, made once in a run of the benchmark; leave it as it is."""
    directory = plan.scratch / "crowded"
    if not directory.exists():
        making = plan.scratch / "crowded.making"
        make_files(making, crowd(plan))
        making.rename(directory)
    return directory


async def backlog(plan: Plan) -> Path:
    """A ledger that has all files of `crowded` in the queue of the feed `orders`, made once; copy it to use it."""
    kept = _backlog(plan)
    if not kept.exists():
        making = plan.scratch / "backlog.making" / "ledger.db"
        making.parent.mkdir()
        await queue(making, ORDERS, crowded(plan))
        making.rename(kept)
        discard(making.parent)
    return kept


async def keep_backlog(plan: Plan, ledger: Path) -> None:
    """Keep what a daemon has made of all files of `crowded` as the `backlog`; the daemon has ended, perhaps hard."""
    kept = Ledger(f"sqlite:///{ledger}", owner="bench", clock=time.time, sleep=asyncio.sleep)
    await kept.open()  # puts back what the daemon had begun
    await kept.close()
    ledger.rename(_backlog(plan))


def _backlog(plan: Plan) -> Path:
    return plan.scratch / "backlog.db"


@contextmanager
def lent(directory: Path, place: Path) -> Iterator[None]:
    """A directory is moved to another place while the block runs."""
    place.parent.mkdir(parents=True, exist_ok=True)
    directory.rename(place)
    try:
        yield
    finally:
        place.rename(directory)


def bring_back(archive: Path, drop: Path) -> int:
    """Move archived files to where they were dropped, so that they are the same versions again; returns how many."""
    names = os.listdir(archive) if archive.is_dir() else []
    for name in names:
        os.rename(archive / name, drop / name)
    return len(names)


def discard(directory: Path) -> None:
    """Remove a directory below the benchmark's scratch with all that is in it."""
    shutil.rmtree(directory, ignore_errors=True)


async def queue(ledger: Path, feed: str, directory: Path) -> int:
    """Put all files of a directory into a ledger's queue, as its daemon would; returns how many those are."""
    where = Feed(feed, directory, "table-456", ApiAccess("http://127.0.0.1:9", "tenant-123", "none"))
    root = directory.stat().st_ino
    kept = Ledger(f"sqlite:///{ledger}", owner="bench", clock=time.time, sleep=asyncio.sleep)
    await kept.open()
    await kept.know([feed])
    count = 0
    async for batch in scan(directory, Selection(where)):
        count += await kept.enqueue([FileVersion.of(feed, path, found, root) for path, found in batch.entries])
    await kept.close()
    return count


_DELIVERED = """
WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :count)
INSERT INTO files (feed, path, device, inode, size, mtime_ns, root_inode, dropped_at, state, queued_at, due_at,
                   closed_at, attempts, md5, verified, status, origin, started_at, finished_at, destination,
                   left_in_place, target)
SELECT :feed, printf('old-%07d.csv', n), 1, n, 10240, at * 1000000, 2, at, 'archived', at, at, at, 0,
       printf('%032x', n), 0, 200, 'http://127.0.0.1:9', at, at, :archive || printf('/old-%07d.csv', n), 0,
       'http://127.0.0.1:9/tenant/tenant-123/datatable/table-456'
FROM (SELECT n, :until - (:count - n) * :step AS at FROM numbers)
"""


def remember(ledger: Path, feed: str, archive: Path, count: int) -> None:
    """Write into a ledger that so many files were delivered in the last 80 days, as if a daemon had done it."""
    day = 86_400_000
    values = {"feed": feed, "archive": str(archive), "count": count, "step": 80 * day // count}
    with closing(sqlite3.connect(ledger)) as conn, conn:
        conn.execute(_DELIVERED, values | {"until": round(time.time() * 1000) - day})
