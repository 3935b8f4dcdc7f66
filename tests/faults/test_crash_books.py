"""The audit itself: whatever is taken away, cut, doubled or left is found and named."""

import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from faults.books import Books, Fate
from support.daemon import KEY, Site, running_daemon
from tablefeed.sandbox.server import SandboxSettings, running


@pytest.fixture
async def delivered(tmp_path: Path) -> AsyncIterator[tuple[Site, Books, Path]]:
    """A site whose files have been delivered, one refused; its books and its objects."""
    books = Books()
    async with running(SandboxSettings(tmp_path / "processmind", KEY)) as sandbox:
        site = Site(tmp_path, sandbox.base_url, sections={"upload": {"max_size": "100B"}})
        orders = site.feed("orders", ready="marker")
        for n in range(3):
            books.note("orders", f"{n}.csv", b"content %d" % n)
            (orders / f"{n}.csv").write_bytes(b"content %d" % n)
            (orders / f"{n}.csv.done").touch()
        books.note("orders", "large.csv", bytes(101), Fate.REFUSED)
        (orders / "large.csv").write_bytes(bytes(101))
        (orders / "large.csv.done").touch()
        async with running_daemon(site.config, "--once") as daemon:
            assert await daemon.death() == 1
        yield site, books, sandbox.objects


def sql(site: Site, statement: str) -> None:
    with closing(sqlite3.connect(site.ledger)) as ledger, ledger:
        ledger.execute(statement)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


Damage = Callable[[Site, Path, Path], object]
"""(site, the feed's directory, the object of the second file)"""

DAMAGE: dict[str, Damage] = {
    "lost: orders/1.csv": lambda _site, _orders, it: it.unlink(),
    "halved: the object": lambda _site, _orders, it: cut(it),
    "second object: orders/1.csv": lambda _site, _orders, it: shutil.copy(it, it.with_name("other")),
    "it is not there": lambda _site, orders, _it: (orders / "archive" / "1.csv").unlink(),
    "other content": lambda _site, orders, _it: cut(orders / "archive" / "1.csv"),
    "without its marker": lambda _site, orders, _it: (orders / "archive" / "1.csv.done").unlink(),
    "the ledger does not know": lambda _site, orders, _it: (orders / "archive" / "x.csv").touch(),
    "left behind": lambda _site, orders, _it: (orders / ".tablefeed-7-copy").touch(),
    "still in the drop directory": lambda _site, orders, _it: (orders / "9.csv").touch(),
    "is not done with": lambda site, _orders, _it: sql(site, "UPDATE files SET closed_at = NULL WHERE id = 1"),
    "0 rows say": lambda site, _orders, _it: sql(site, "DELETE FROM files WHERE path = '1.csv'"),
    "no version that was dropped": lambda site, _orders, _it: sql(
        site, "UPDATE files SET size = 1 WHERE path = '1.csv'"
    ),
    "set aside 0 times": lambda _site, orders, _it: (orders / "failed" / "large.csv").unlink(),
    "without a report": lambda _site, orders, _it: (orders / "failed" / "large.csv.error.json").unlink(),
    "though it can be": lambda _site, orders, it: shutil.copy(it, orders / "failed" / "1.csv"),
    "though it must be refused": lambda _site, _orders, it: it.with_name("l").write_bytes(bytes(101)),
}


async def test_what_is_wrong_is_named(delivered: tuple[Site, Books, Path], tmp_path: Path) -> None:
    """Clean books are clean; each damage to a copy of all is found."""
    site, books, objects = delivered
    assert str(books.audit(site, objects)) == "the books are clean"
    orders = Path(site.feeds["orders"]["directory"])
    saved = tmp_path.parent / f"{tmp_path.name}-saved"
    shutil.copytree(tmp_path, saved)
    for found, damage in DAMAGE.items():
        [second] = objects.rglob("*-1.csv")
        damage(site, orders, second)
        assert found in str(books.audit(site, objects))
        shutil.rmtree(tmp_path)
        shutil.copytree(saved, tmp_path)
