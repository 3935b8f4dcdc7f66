"""What the ledger keeps of feeds, and what it tells of them as a whole, beside the daemon that writes it."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from support.ledgers import RECEIPT, Clock, opened, version
from tablefeed.errors import FileRefused, LedgerUnusable, Unreachable
from tablefeed.ledger import Closing, Failure, Ledger, Want
from tablefeed.ledger.census import Backlog, Delivered
from tablefeed.ledger.reader import Reader
from tablefeed.ledger.records import Search
from tablefeed.model import Entry, Order, State

REFUSED = FileRefused("a.csv", "it is too large", "Split it")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def ledger(tmp_path: Path, clock: Clock) -> AsyncIterator[Ledger]:
    async with opened(tmp_path / "ledger.db", clock) as ledger:
        await ledger.know(["orders", "invoices"])
        yield ledger


@pytest.fixture
async def reader(tmp_path: Path, ledger: Ledger) -> AsyncIterator[Reader]:
    reader = Reader(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield reader
    await reader.close()


async def claimed(ledger: Ledger, feed: str = "orders", count: int = 1) -> list[Entry]:
    return await ledger.claim([Want(feed, Order.OLDEST, count)])


async def test_a_census_counts_open_and_refused_files_by_feed_and_state(
    ledger: Ledger, reader: Reader, clock: Clock
) -> None:
    """With their bytes, the oldest, how many have failed, and when the next of those that wait is tried."""
    await ledger.enqueue([version(f"{n}.csv", mtime_ns=n) for n in range(4)])
    await ledger.enqueue([version("x.csv", feed="invoices", size=7)])
    first, second = await claimed(ledger, count=2)
    due = clock.ms + 9_000
    await ledger.failed(Failure(first.id, Unreachable("https://s", "reset"), due, keep_grant=True))
    refused = await ledger.refuse(version("bad.csv"), REFUSED)
    clock.now += 5

    census = await reader.census(clock.ms)

    began = clock.ms - 5_000
    assert census.open == {
        ("orders", State.QUEUED): Backlog(3, 30, 1, began, due),
        ("orders", State.UPLOADING): Backlog(1, 10, 0, began, None),
        ("invoices", State.QUEUED): Backlog(1, 7, 0, began, None),
    }
    assert census.refused == {"orders": 1}
    await ledger.set_aside(Closing(refused))
    assert (await reader.census(clock.ms)).refused == {}, "it was put back"
    assert second.version.path == "1.csv"


async def test_the_ledger_keeps_when_files_came_and_were_delivered_last(ledger: Ledger, clock: Clock) -> None:
    """A refused file has come too; a skipped one was not delivered; a version that is known already has not come."""

    async def times(feed: str) -> tuple[int | None, int | None]:
        record = next(record for record in await ledger.feed_records() if record.name == feed)
        return record.arrived_at, record.delivered_at

    assert await times("orders") == (None, None)
    await ledger.enqueue([version()])
    queued = clock.ms
    assert await times("orders") == (queued, None)
    clock.now += 1
    await ledger.enqueue([version()])
    assert await times("orders") == (queued, None)
    [entry] = await claimed(ledger)
    await ledger.uploaded(entry.id, RECEIPT)
    delivered = clock.ms
    assert await times("orders") == (queued, delivered)
    clock.now += 1
    await ledger.refuse(version("bad.csv"), REFUSED)
    await ledger.enqueue([version("again.csv")])
    [again] = await claimed(ledger)
    await ledger.uploaded(again.id, RECEIPT, duplicate_of=entry.id)
    assert await times("orders") == (clock.ms, delivered)
    assert await times("invoices") == (None, None)


async def test_a_feed_is_known_since_it_was_served_first(ledger: Ledger, clock: Clock) -> None:
    """The next start changes nothing of that, nor of a pause."""
    since = clock.ms
    await ledger.set_paused("orders", since + 1)
    await ledger.set_stale("orders", since + 2)
    clock.now += 60
    await ledger.know(["orders", "new"])
    records = {record.name: record for record in await ledger.feed_records()}
    assert {name: record.known_at for name, record in records.items()} == {
        "orders": since,
        "invoices": since,
        "new": since + 60_000,
    }
    assert (records["orders"].paused_at, records["orders"].stale_at) == (since + 1, since + 2)
    await ledger.set_paused("orders", None)
    await ledger.set_stale("orders", None)
    records = {record.name: record for record in await ledger.feed_records()}
    assert (records["orders"].paused_at, records["orders"].stale_at) == (None, None)


async def test_deliveries_are_counted_by_feed_and_minute(ledger: Ledger, reader: Reader, clock: Clock) -> None:
    """Archived or not yet; what was skipped was not sent; what lies outside the time asked for does not count."""
    await ledger.enqueue([version(f"{n}.csv", mtime_ns=n) for n in range(5)])
    minute = clock.ms // 60_000
    for n, entry in enumerate(await claimed(ledger, count=5)):
        receipt = replace(RECEIPT, finished_at=(minute + n // 2) * 60_000 + 10)
        await ledger.uploaded(entry.id, receipt, duplicate_of=1 if n == 3 else None)
        if n != 1:
            clock.now = receipt.finished_at / 1000 + 1
            await ledger.archived(Closing(entry.id, "/archive/x.csv"))
    found = await reader.delivered_between(minute * 60_000, (minute + 2) * 60_000)
    counted = {(it.feed, it.minute): 0 for it in found}
    for it in found:
        counted[it.feed, it.minute] += it.files
    assert counted == {("orders", minute): 2, ("orders", minute + 1): 1}
    assert sum(it.bytes for it in found) == 30
    assert isinstance(found[0], Delivered)


async def test_the_reader_sees_what_was_just_committed_the_latest_first(ledger: Ledger, reader: Reader) -> None:
    """Its connection holds no old view of the ledger."""
    for n in range(3):
        await ledger.enqueue([version(f"{n}.csv")])
        found = await reader.find(Search(feed="orders"), limit=2)
        assert [record.path for record in found] == [f"{k}.csv" for k in range(n, max(-1, n - 2), -1)]


async def test_a_ledger_that_cannot_be_read_is_told_and_asked_again(
    tmp_path: Path, ledger: Ledger, reader: Reader, clock: Clock
) -> None:
    """Whoever looks gets the reason, and all of it again when it can be read."""
    await ledger.enqueue([version()])
    whole = await reader.census(clock.ms)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as other, other:
        other.execute("ALTER TABLE feeds RENAME TO elsewhere")
    with pytest.raises(LedgerUnusable, match="no such table: feeds"):
        await reader.census(clock.ms)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as other, other:
        other.execute("ALTER TABLE elsewhere RENAME TO feeds")
    assert await reader.census(clock.ms) == whole
