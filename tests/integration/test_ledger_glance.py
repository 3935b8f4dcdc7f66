"""Searching the history, on a real ledger."""

import sqlite3
import time
from pathlib import Path

import pytest

from support.ledgers import opened, version
from tablefeed.ledger.glance import BATCH, Wanted
from tablefeed.ledger.reader import Reader
from tablefeed.ledger.records import PATIENCE, Page
from tablefeed.model import State

NAMES = ["Orders_1.csv", "orders%2.csv", "ordersX3.csv", "ÄRGER.csv", "caf\udce9.csv", "back\\slash.csv", "'; --.csv"]


async def searched(ledger: Path, wanted: Wanted, limit: int = 50) -> Page:
    """One page."""
    reader = Reader(f"sqlite:///{ledger}")
    try:
        return await reader.page(wanted, limit)
    finally:
        await reader.close()


@pytest.fixture
async def ledger(tmp_path: Path) -> Path:
    """One with a few files of two feeds."""
    async with opened(tmp_path / "ledger.db") as ledger:
        await ledger.enqueue([version(name, inode=number) for number, name in enumerate(NAMES, 1)])
        await ledger.enqueue([version("other.csv", feed="other", inode=99)])
    return tmp_path / "ledger.db"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ORDERS", ["ordersX3.csv", "orders%2.csv", "Orders_1.csv"]),
        ("s_1", ["Orders_1.csv"]),
        ("%", ["orders%2.csv"]),
        ("_", ["Orders_1.csv"]),
        ("ärger", ["ÄRGER.csv"]),
        ("f\\xe9", ["caf\udce9.csv"]),
        ("k\\s", ["back\\slash.csv"]),
        ("'; --", ["'; --.csv"]),
        ("1", ["Orders_1.csv"]),
        ("3", ["ordersX3.csv"]),
        ("5", ["caf\udce9.csv"]),
        ("nonesuch", []),
    ],
)
async def test_text_is_found_in_names_as_they_are_shown_without_regard_to_case(
    ledger: Path, text: str, found: list[str]
) -> None:
    """Or it is a number; no sign in it means more than itself. The latest comes first."""
    page = await searched(ledger, Wanted(text=text))
    assert ([record.path for record in page.records], page.next, page.complete) == (found, None, True)


async def test_pages_follow_each_other_without_a_gap(ledger: Path) -> None:
    """Until there is nothing older."""
    found: list[str] = []
    before = None
    for _ in range(5):
        page = await searched(ledger, Wanted(before=before), 3)
        found += [record.path for record in page.records]
        before = page.next
        if before is None:
            break
    assert found == ["other.csv", *reversed(NAMES)]


async def test_feed_and_state_narrow_it_down(ledger: Path) -> None:
    """By themselves and together."""
    assert [it.path for it in (await searched(ledger, Wanted(feed="other"))).records] == ["other.csv"]
    assert len((await searched(ledger, Wanted(state=State.QUEUED))).records) == len(NAMES) + 1
    assert len((await searched(ledger, Wanted(feed="orders", state=State.QUEUED, before=3))).records) == 2
    assert (await searched(ledger, Wanted(state=State.REJECTED))).records == []


def fill(ledger: Path, count: int) -> None:
    """Many delivered files, of which the very first is refused."""
    with sqlite3.connect(ledger) as raw:
        raw.execute(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?) "
            "INSERT INTO files (feed, path, device, inode, size, mtime_ns, state, queued_at, due_at, closed_at, "
            "attempts, left_in_place) SELECT 'orders', 'orders-' || x || '.csv', 1, x, 10, x, "
            "CASE x WHEN 1 THEN 'rejected' ELSE 'archived' END, x, x, x, 0, 0 FROM n",
            (count,),
        )


async def test_a_large_history_is_searched_in_pieces_that_take_no_longer_than_they_may(tmp_path: Path) -> None:
    """What was not searched is said and can be asked for; in the end the oldest file is found, and nothing twice."""
    async with opened(tmp_path / "ledger.db"):
        pass
    fill(tmp_path / "ledger.db", 150_000)
    reader = Reader(f"sqlite:///{tmp_path}/ledger.db")
    try:
        found, before, questions = [], None, 0
        while questions == 0 or (before is not None and questions < 400):
            began = time.monotonic()
            page = await reader.page(Wanted(text="ORDERS-1.CSV", before=before), 50)
            assert time.monotonic() - began < PATIENCE + 2.0
            assert page.complete == (page.next is None)
            found += [record.id for record in page.records]
            before, questions = page.next, questions + 1
        assert found == [1]
        began = time.monotonic()
        page = await reader.page(Wanted(state=State.REJECTED), 50)
        assert [record.id for record in page.records] == [1]
        assert time.monotonic() - began < PATIENCE + 2.0
    finally:
        await reader.close()


async def test_the_time_is_kept_whatever_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no time at all, one batch is looked at, and the next page begins behind it."""
    async with opened(tmp_path / "ledger.db"):
        pass
    fill(tmp_path / "ledger.db", 3 * BATCH)
    monkeypatch.setattr("tablefeed.ledger.records.PATIENCE", 0.0)
    page = await searched(tmp_path / "ledger.db", Wanted(text="nonesuch"))
    assert (page.records, page.next, page.complete) == ([], 2 * BATCH + 1, False)


async def test_an_empty_ledger_has_an_empty_history(tmp_path: Path) -> None:
    """And nothing is older."""
    async with opened(tmp_path / "ledger.db"):
        pass
    for state in (None, State.QUEUED, State.REJECTED, State.ARCHIVED):
        page = await searched(tmp_path / "ledger.db", Wanted(state=state))
        assert (page.records, page.next, page.complete) == ([], None, True)
