"""The story of one file, where the whole daemon would have to be too lucky to meet it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from support.archive import feed_at
from support.ledgers import GRANT, RECEIPT, Clock, opened, states, version
from tablefeed.archive import Moved
from tablefeed.duplicates import Contents
from tablefeed.errors import DeliveryError, DiskTrouble, FeedBlocked, KeyRefused, SourceChanged, Unreachable
from tablefeed.gates import Gates, Place
from tablefeed.ledger import Ledger, Want
from tablefeed.model import Entry, Feed, FileVersion, Grant, Order, Receipt
from tablefeed.news import News
from tablefeed.notices import Notices
from tablefeed.outcomes import Outcomes
from tablefeed.pipeline import Pipeline, Ports
from tablefeed.refusals import Refusals
from tablefeed.slots import FairSlots, Share

UNUSED = cast("Any", None)
WANT = [Want("orders", Order.OLDEST, 1)]
KEY_REFUSED = FeedBlocked("the API refused the key", "Check it")
REFUSED = FeedBlocked("the store refused the file", "Ask", maybe_file=True)


async def test_a_file_whose_feed_was_removed_after_its_claim_goes_back_as_it_was(tmp_path: Path) -> None:
    """No attempt is counted and its grant stays, for the day on which the feed is there again."""
    async with opened(tmp_path / "ledger.db") as ledger:
        pipeline = Pipeline(
            {}, ledger, UNUSED, UNUSED, UNUSED, UNUSED, UNUSED, UNUSED, UNUSED, UNUSED, UNUSED,
            wall=Clock(), random=lambda: 0.5, steady=Clock(),
        )  # fmt: skip
        await ledger.enqueue([version()])
        [entry] = await ledger.claim(WANT)
        await ledger.granted(entry.id, GRANT)
        await pipeline.deliver(entry)
        [again] = await ledger.claim(WANT)
    assert (again.id, again.attempts, again.grant) == (entry.id, 0, GRANT)


class Bench:
    """A pipeline over a real ledger; what the store says is scripted, by the file's name."""

    def __init__(self, ledger: Ledger, feed: Feed, clock: Clock) -> None:
        self.says: dict[str, list[DeliveryError]] = {}
        self.clock = clock
        self.gates = Gates(self.clock, lambda: 0.0)
        self._ledger = ledger
        feeds, ports = {"orders": feed}, Ports(lambda _feed, _path: None, lambda _: None, self.still_there)
        outcomes, notices = Outcomes(self.gates, News()), Notices("here", lambda _: None, clock=self.clock)
        archivers = cast("Any", lambda _: self)
        self._pipeline = Pipeline(
            feeds, ledger, cast("Any", self), cast("Any", self), Contents(ledger, UNUSED),
            archivers, FairSlots(1, lambda _: Share(0, 0), clock=self.clock), outcomes, ports, notices,
            Refusals(feeds, ledger, archivers, outcomes, notices, ports.look, wall=self.clock),
            wall=self.clock, random=lambda: 0.0, steady=self.clock,
        )  # fmt: skip

    async def with_grant(self, feed: Feed, entry: Entry) -> Entry:
        return replace(entry, grant=GRANT)

    async def upload(self, directory: Path, file: FileVersion, grant: Grant, *_: object) -> Receipt:
        if self.says.get(file.path):
            raise self.says[file.path].pop(0)
        return RECEIPT

    async def still_there(self, feed: Feed, _: FileVersion) -> bool:
        raise DiskTrouble(str(feed.directory), "it is not mounted")

    async def move_delivered(self, *_: object) -> Moved:
        return Moved("/archive")

    async def set_aside(self, *_: object) -> Moved:
        return Moved("/failed")

    async def try_all(self) -> None:
        """Each file that is due, once."""
        for entry in await self._ledger.claim([Want("orders", Order.OLDEST, 10)]):
            await self._pipeline.deliver(entry)
        self.clock.now += 1


@asynccontextmanager
async def benched(root: Path, **feed: Any) -> AsyncIterator[tuple[Bench, Ledger]]:
    """A bench and its ledger."""
    clock = Clock()
    async with opened(root / "ledger.db", clock) as ledger:
        bench = Bench(ledger, feed_at(root, **feed), clock)
        yield bench, ledger


async def tried(root: Path, *errors: DeliveryError) -> str:
    """The state of a file that met these errors, while another of its feed was delivered after each."""
    async with benched(root) as (bench, ledger):
        bench.says["a.csv"] = [*errors]
        await ledger.enqueue([version("a.csv")])
        for n in range(len(errors)):
            await bench.try_all()
            await ledger.enqueue([version(f"other-{n}.csv", inode=n + 2, mtime_ns=99)])
        await bench.try_all()
    return states(root / "ledger.db", "orders")["a.csv"]


async def test_a_file_that_is_refused_again_and_again_while_others_arrive_is_set_aside(tmp_path: Path) -> None:
    """The blame is the file's then."""
    assert await tried(tmp_path, REFUSED, REFUSED, REFUSED, REFUSED) == "rejected"


async def test_a_key_that_was_refused_is_not_held_against_a_file(tmp_path: Path) -> None:
    """Only refusals that may be its own fault count towards setting it aside."""
    assert await tried(tmp_path, KEY_REFUSED, KEY_REFUSED, REFUSED) == "archived"


async def test_a_server_that_refuses_a_feed_works_again(tmp_path: Path) -> None:
    """Who looks is told of the refusal, and no longer of an outage that is over."""
    async with benched(tmp_path) as (bench, ledger):
        bench.says["a.csv"] = [Unreachable("https://api", "refused")] * 3
        bench.says["a.csv"].append(KeyRefused("the API refused the key", "Check it", origin="https://api"))
        await ledger.enqueue([version("a.csv")])
        for _ in range(3):
            await bench.try_all()
            bench.clock.now += 3600
        assert [gate.name for gate in bench.gates.closed()] == ["https://api"]
        await bench.try_all()
        assert [(gate.name, gate.place) for gate in bench.gates.closed()] == [("orders", Place.DELIVERY)]


@pytest.mark.parametrize("shared", [True, False])
async def test_files_of_a_share_that_is_away_here_are_left_to_nodes_that_have_it(tmp_path: Path, shared: bool) -> None:
    """This node tries one now and then, where it would else hold all of them again and again."""
    async with benched(tmp_path, shared=shared) as (bench, ledger):
        bench.says["a.csv"] = [SourceChanged("a.csv", "vanished")]
        await ledger.enqueue([version("a.csv")])
        await bench.try_all()
        assert bench.gates.allowance("orders") == (1 if shared else None)
        [(again, reason)] = await ledger.open_entries(["orders"], 10)
        assert (again.attempts, "it is not mounted" in (reason or "")) == (1, True)
        await bench.try_all()
        assert bench.gates.allowance("orders") is None
    assert states(tmp_path / "ledger.db", "orders") == {"a.csv": "archived"}
