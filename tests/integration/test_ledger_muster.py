"""Who is in a fleet, and what each node works on, as the ledger tells whoever looks."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.ledgers import Clock, joined, opened, version
from support.postgres import Postgres
from tablefeed.ledger import Ledger, Want
from tablefeed.ledger.messages import LONGEST, Look, Message, PausesChanged, Queued, understood, written
from tablefeed.ledger.muster import REMEMBERED, Muster
from tablefeed.ledger.reader import Reader
from tablefeed.ledger.reports import written as written_troubles
from tablefeed.model import Order
from tablefeed.nodes import NodeTrouble

MOST = 50


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.database()


@pytest.fixture
async def reader(url: str) -> AsyncIterator[Reader]:
    reader = Reader(url)
    yield reader
    await reader.close()


async def claimed(ledger: Ledger, feed: str, count: int) -> None:
    assert len(await ledger.claim([Want(feed, Order.OLDEST, count)])) == count


async def test_all_nodes_are_told_with_their_feeds_and_their_work(url: str, reader: Reader) -> None:
    """What one holds is told to the others, what lies in its own directories is counted, whoever asks."""
    async with joined(url, "one") as one, joined(url, "one.two") as two:
        await one.know(["common", "first"], ["common"])
        await two.know(["common", "second"], ["common"])
        await one.enqueue([version(f"{n}.csv", feed="first", mtime_ns=n) for n in range(3)])
        await two.enqueue([version(f"{n}.csv", feed="common", mtime_ns=n, size=n) for n in range(4)])
        await claimed(one, "first", 2)
        await claimed(two, "common", 3)
        seen = await reader.muster(MOST, "one")
        assert [(it.node.name, it.living, it.feeds) for it in seen.nodes] == [
            ("one", True, ("common", "first")),
            ("one.two", True, ("common", "second")),
        ]
        assert [(it.uploading, it.archiving, it.waiting) for it in seen.nodes] == [(2, 0, 3), (3, 0, 0)]
        assert (seen.living, seen.over) == (2, 0)
        assert all(it.node.started_at <= it.node.seen_at <= seen.now < it.node.lease_until for it in seen.nodes)
        assert [(it.node, it.feed, it.path, it.size, it.state) for it in seen.held] == [
            ("one.two", "common", f"{n}.csv", n, "uploading") for n in range(3)
        ]
        theirs = await reader.muster(MOST, "one.two")
        assert {it.node for it in theirs.held} == {"one"}
        assert [it.node.name for it in theirs.nodes] == ["one.two", "one"], "who asks comes first"
        few = await reader.muster(1, "one")
        assert (len(few.nodes), len(few.held), few.living) == (1, 1, 2)


async def test_files_are_missed_that_no_living_node_serves(url: str) -> None:
    """Those of a shared feed are another's to send while one lives; those in a node's own directory never are."""
    async with joined(url, "one") as one:
        async with joined(url, "two") as two:
            await one.know(["plant"])
            await two.know(["common", "plant"], ["common"])
            await one.enqueue([version("a.csv", feed="plant")])
            await two.enqueue([version("a.csv", feed="common"), version("b.csv", feed="common", inode=2)])
            assert await one.orphans(["plant"]) == {}
            assert await one.orphans([]) == {"plant": 1}
            assert await two.orphans(["plant"]) == {}, "it serves it itself, as far as the ledger knows"
        assert await one.orphans(["plant"]) == {"common": 2}


async def test_a_daemon_alone_misses_the_files_of_every_feed_it_does_not_serve(tmp_path: Path) -> None:
    """There is nobody else."""
    async with opened(tmp_path / "ledger.db") as ledger:
        await ledger.enqueue([version(feed="orders"), version(feed="gone")])
        assert await ledger.orphans(["orders"]) == {"gone": 1}


async def test_a_node_that_is_over_is_told_for_a_day_and_longer_while_its_files_wait(
    url: str, postgres: Postgres, reader: Reader
) -> None:
    """Pods come and go under new names; what waits in the directory of one that is gone is never forgotten."""
    for name, feed in (("idle", "first"), ("missed", "second")):
        async with joined(url, name) as ledger:
            await ledger.know([feed])
            if name == "missed":
                await ledger.enqueue([version("a.csv", feed=feed)])
    seen = await reader.muster(MOST, "")
    assert [(it.node.name, it.living, it.waiting) for it in seen.nodes] == [("missed", False, 1), ("idle", False, 0)]
    assert (seen.living, seen.over) == (0, 2)
    assert REMEMBERED == 86_400_000
    postgres.execute(url.rpartition("/")[2], "UPDATE nodes SET seen_at = seen_at - 86400000")
    seen = await reader.muster(MOST, "")
    assert ([it.node.name for it in seen.nodes], seen.over) == (["missed"], 1)


async def test_troubles_are_kept_with_the_sign_of_life_and_only_when_they_are_others(
    url: str, postgres: Postgres, reader: Reader
) -> None:
    """And told of nodes that live alone, of which those in trouble come before the others."""
    trouble = NodeTrouble("orders", "delivery", "the key is refused", "Give it another key", 5)
    text = written_troubles([trouble])
    database = url.rpartition("/")[2]

    async def told() -> list[tuple[str, tuple[NodeTrouble, ...]]]:
        return [(it.node.name, it.report.troubles) for it in (await reader.muster(MOST, "asks")).nodes]

    now = Clock()
    async with joined(url, "one") as one, joined(url, "two", now=now) as two:
        await two.know(["orders"])
        await two.enqueue([version()])
        [held] = await two.claim([Want("orders", Order.OLDEST, 1)])
        await two.beat(text)
        await one.beat()
        assert await told() == [("two", (trouble,)), ("one", ())]
        postgres.execute(database, "UPDATE nodes SET troubles = 'left as it is' WHERE name = 'two'")
        await two.beat(text)
        now.now += 61
        assert await two.confirm(held.id), "a sign of life in between, which tells nothing"
        assert postgres.execute(database, "SELECT troubles FROM nodes WHERE name = 'two'") == "left as it is"
        await two.beat(written_troubles([replace(trouble, reason="another")]))
        assert [it.reason for it in (await told())[0][1]] == ["another"]
        await two.beat(text)
        ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        postgres.execute(database, "UPDATE nodes SET troubles = 'another server has less' WHERE name = 'two'")
        postgres.execute(database, ended)
        await two.beat(text)
        assert await told() == [("two", (trouble,)), ("one", ())], "a new connection may be to another server"
        await two.beat("")
        assert await told() == [("one", ()), ("two", ())]
        assert postgres.execute(database, "SELECT count(*) FROM nodes WHERE troubles IS NOT NULL") == "0"
        await two.beat(text)
    assert dict(await told()) == {"one": (), "two": ()}, "nobody knows how one is that is over"
    async with joined(url, "two"):
        assert dict(await told()) == {"one": (), "two": ()}, "it begins anew"


async def test_a_ledger_of_one_daemon_has_no_fleet(tmp_path: Path) -> None:
    """Nothing is asked of it."""
    async with opened(tmp_path / "ledger.db"):
        reader = Reader(f"sqlite:///{tmp_path / 'ledger.db'}")
        assert await reader.muster(MOST, "") == Muster()
        await reader.close()


async def test_what_is_paused_is_asked_of_the_ledger(url: str) -> None:
    """By any node, whoever has paused it."""
    async with joined(url, "one") as one, joined(url, "two") as two:
        await one.know(["orders", "items"])
        await one.set_paused("orders", 77)
        assert await two.paused() == {"orders": 77}
        await two.set_paused("orders", None)
        assert await one.paused() == {}


@pytest.mark.parametrize(
    "message", [Queued("orders"), Look("orders"), Look("orders", ("a.csv", "b\udcff\n€.csv")), PausesChanged()]
)
def test_what_nodes_tell_each_other_is_understood_as_it_was_meant(message: Message) -> None:
    """And what another version says that this one does not know is nothing to it."""
    assert understood(written(message)) == message
    for strange in ('{"changed": "weather"}', "[]", "no JSON", "7"):
        assert understood(strange) is None


@pytest.mark.parametrize("strange", ["[" * LONGEST, '["orders", ["a\\u0000.csv"]]', '["orders", ["\\ud800.csv"]]'])
def test_what_somebody_else_tells_is_nothing(strange: str) -> None:
    """NOTIFY needs no right: what has no end, or names what no file is called, ends no daemon."""
    assert understood(strange) is None
