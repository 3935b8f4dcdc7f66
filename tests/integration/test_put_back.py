"""Many refused files go back in requests of a bounded size each."""

import sqlite3
import time
from pathlib import Path

import pytest

from support.archive import feed_at
from support.ledgers import opened
from tablefeed.errors import FileRefused
from tablefeed.model import FileVersion
from tablefeed.recovery import Choice, Recovery


@pytest.fixture
async def url(tmp_path: Path) -> str:
    """A ledger with five files that were refused and left in place, of which the third has gone."""
    drop = tmp_path / "drop"
    drop.mkdir()
    async with opened(tmp_path / "ledger.db") as ledger:
        for number in range(5):
            (drop / f"{number}.csv").write_text("content")
            version = FileVersion.of("orders", f"{number}.csv", (drop / f"{number}.csv").stat())
            await ledger.refuse(version, FileRefused(f"{number}.csv", "too large", "split it"))
    (drop / "2.csv").unlink()
    return f"sqlite:///{tmp_path}/ledger.db"


async def test_all_go_back_over_several_requests_and_what_cannot_is_told_once(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each goes on behind the last, also behind a file that stays; in the end none is left but that."""
    monkeypatch.setattr("tablefeed.recovery.MOST", 2)
    recovery = Recovery(url, {"orders": feed_at(tmp_path / "drop")}, time.monotonic)
    told, after = [], 0
    for _ in range(4):
        outcome = await recovery.retry(Choice(after=after))
        told += [(returned.path, bool(returned.problem)) for returned in outcome.files]
        if outcome.next is None:
            break
        assert len(outcome.files) == 2
        after = outcome.next
    assert told == [(f"{number}.csv", number == 2) for number in range(5)]
    left = await recovery.retry(Choice())
    assert [(it.path, bool(it.problem)) for it in left.files] == [("2.csv", True)]


async def test_a_slow_disk_ends_a_request_early_and_nothing_is_passed_over(url: str, tmp_path: Path) -> None:
    """When the time is up the rest is left to the next request, unless there is none."""
    times = iter(range(0, 1_000, 10))
    recovery = Recovery(url, {"orders": feed_at(tmp_path / "drop")}, lambda: next(times))
    told, after, requests = [], 0, 0
    while requests < 10:
        outcome = await recovery.retry(Choice(feed="orders", after=after))
        told += [returned.path for returned in outcome.files]
        requests += 1
        if outcome.next is None:
            break
        after = outcome.next
    assert (told, requests) == ([f"{number}.csv" for number in range(5)], 5)


async def test_files_of_a_feed_that_is_not_served_stay(url: str, tmp_path: Path) -> None:
    """With what to do about them."""
    recovery = Recovery(url, {}, time.monotonic)
    outcome = await recovery.retry(Choice(ids=[1, 99]))
    assert {it.id: it.problem.partition(":")[0] for it in outcome.files} == {
        1: "its feed orders is not configured any more",
        99: "there is no such file in the ledger",
    }


async def test_a_file_on_another_node_is_left_to_that_one_and_holds_up_no_other(url: str, tmp_path: Path) -> None:
    """With its name; what lies in a directory that all have is put back here."""
    with sqlite3.connect(url.removeprefix("sqlite:///")) as raw:
        raw.execute("UPDATE files SET node = 'south' WHERE id = 1")
        raw.execute("UPDATE files SET node = 'north' WHERE id = 2")
    outcome = await Recovery(url, {"orders": feed_at(tmp_path / "drop")}, time.monotonic, "north").retry(Choice())
    told = {it.id: it.problem for it in outcome.files if it.id != 3}
    assert told.pop(1) == "orders/0.csv lies on node south: run `tablefeed retry 1` there, or use that node's page"
    assert told == {2: "", 4: "", 5: ""}
    outcome = await Recovery(url, {}, time.monotonic, "north").retry(Choice(ids=[3]))
    assert "run `tablefeed retry 3` on a node that does" in outcome.files[0].problem
