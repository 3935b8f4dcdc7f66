"""Leads file versions through a new ledger, in a process of its own, and prints what that took as JSON.

    python -m bench.ledger_work daemon|granted|bare LEDGER COUNT

`daemon` uses the ledger as the daemon does: found files come in batches of a scan's size, a dispatcher claims, and
each file in flight waits for its own transitions; `granted` keeps a grant for each file as well. `bare` makes the same
changes of the same tables by `sqlite3` alone, in commits of as many files: what SQLite gives where nobody waits.
"""

import asyncio
import json
import resource
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tablefeed.ledger import Closing, Ledger, Want
from tablefeed.model import Entry, FileVersion, Grant, Order, Receipt
from tablefeed.watch.scan import BATCH

IN_FLIGHT = 256
"""Files that are worked on at the same time."""
FEED = "orders"
MD5 = "0123456789abcdef0123456789abcdef"
GRANT = Grant(f"https://store.example/bucket/key?X-Amz-Signature={MD5 * 2}", 1_900_000_000_000, 3600.0)
RECEIPT = Receipt(
    10_240, MD5, f'"{MD5}"', True, 200, "r-1", "https://store.example", 1_700_000_000_000, 1_700_000_001_000
)
TARGET = "https://api.example/tenant/tenant-123/datatable/table-456"


def versions(count: int) -> Iterator[list[FileVersion]]:
    """So many versions of different files, in batches as a scan gives them."""
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        yield [
            FileVersion(FEED, f"export-{n:07}.csv", 1, n, 10_240, 1_700_000_000_000_000_000 + n, 2, n) for n in numbers
        ]


class Work:
    """One feed's files on their way through the ledger."""

    def __init__(self, ledger: Ledger, count: int, *, granted: bool) -> None:
        self._ledger = ledger
        self._count = count
        self._granted = granted
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Until all are archived."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._queue())
            left = self._count
            while left:
                room = await self._room()
                entries = await self._ledger.claim([Want(FEED, Order.OLDEST, room)])
                for _ in range(room - len(entries)):
                    self._slots.release()
                for entry in entries:
                    tasks.create_task(self._deliver(entry))
                left -= len(entries)
                if not entries:
                    await self._news.wait()
                    self._news.clear()

    async def _room(self) -> int:
        """Take at least a quarter of the slots, and as many as are free."""
        taken = 0
        while taken < IN_FLIGHT // 4 or not self._slots.locked():
            await self._slots.acquire()
            taken += 1
        return taken

    async def _queue(self) -> None:
        for batch in versions(self._count):
            await self._ledger.enqueue(batch)
            self._news.set()

    async def _deliver(self, entry: Entry) -> None:
        if self._granted:
            assert await self._ledger.granted(entry.id, GRANT)
        assert await self._ledger.uploaded(entry.id, RECEIPT, target=TARGET)
        assert await self._ledger.archived(Closing(entry.id, f"/srv/exports/orders/archive/{entry.version.path}"))
        self._slots.release()


async def as_the_daemon(path: Path, count: int, *, granted: bool) -> float:
    """The seconds that it takes, without opening and closing."""
    ledger = Ledger(f"sqlite:///{path}", owner="bench", clock=time.time, sleep=asyncio.sleep)
    await ledger.open()
    await ledger.know([FEED])
    began = time.perf_counter()
    await Work(ledger, count, granted=granted).run()
    took = time.perf_counter() - began
    await ledger.close()
    return took


def bare(path: Path, count: int) -> float:
    """The seconds that SQLite takes for the same changes: four of each file."""
    conn = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
        conn.execute(f"PRAGMA {pragma}")
    insert = (
        "INSERT INTO files (feed, path, device, inode, size, mtime_ns, root_inode, dropped_at, state, queued_at,"
        " due_at, attempts, left_in_place) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?, 0, 0)"
    )
    sent = (
        "UPDATE files SET state = 'uploaded', target = ?, md5 = ?, etag = ?, verified = 1, status = 200,"
        " request_id = 'r-1', origin = ?, started_at = ?, finished_at = ? WHERE id = ? AND state = 'uploading'"
    )
    began = time.perf_counter()
    first = 1
    for batch in versions(count):
        for start in range(0, len(batch), IN_FLIGHT):
            some = batch[start : start + IN_FLIGHT]
            now = round(time.time() * 1000)
            ids = range(first, first + len(some))
            first += len(some)
            rows = [
                (v.feed, v.path, v.device, v.inode, v.size, v.mtime_ns, v.root, v.dropped_at, now, now) for v in some
            ]
            _commit(conn, insert, rows)
            _commit(conn, "UPDATE files SET state = 'uploading', owner = 'bench' WHERE id = ?", [(i,) for i in ids])
            _commit(conn, sent, [(TARGET, MD5, RECEIPT.etag, RECEIPT.origin, now, now, i) for i in ids])
            moved = "UPDATE files SET state = 'archived', closed_at = ?, owner = NULL, destination = ? WHERE id = ?"
            _commit(
                conn, moved, [(now, f"/srv/exports/orders/archive/{v.path}", i) for v, i in zip(some, ids, strict=True)]
            )
    took = time.perf_counter() - began
    conn.close()
    return took


def _commit(conn: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    conn.execute("BEGIN IMMEDIATE")
    conn.executemany(statement, rows)
    conn.execute("COMMIT")


async def _made(path: Path) -> None:
    """A ledger with nothing in it."""
    ledger = Ledger(f"sqlite:///{path}", owner="bench", clock=time.time, sleep=asyncio.sleep)
    await ledger.open()
    await ledger.close()


def main() -> None:
    """Measure what the arguments name."""
    what, path, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    asyncio.run(_made(path))
    before = resource.getrusage(resource.RUSAGE_SELF)
    wall = bare(path, count) if what == "bare" else asyncio.run(as_the_daemon(path, count, granted=what == "granted"))
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    with sqlite3.connect(path) as conn:
        done = conn.execute("SELECT count(*) FROM files WHERE state = 'archived'").fetchone()[0]
    assert done == count, f"{done} of {count} files were archived"
    print(json.dumps({"files": count, "wall": wall, "cpu": cpu}))


if __name__ == "__main__":
    main()
