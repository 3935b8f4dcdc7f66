"""Feeds that somebody has paused."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from structlog.testing import capture_logs

from support.ledgers import Clock
from support.patience import PATIENCE
from tablefeed.pauses import Pauses


class Store:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, int | None]] = []

    async def set_paused(self, feed: str, since: int | None) -> None:
        self.kept.append((feed, since))


async def test_a_pause_is_kept_and_told_once_and_its_end_wakes_the_dispatcher() -> None:
    """Pausing what is paused and resuming what is not change nothing."""
    store, clock = Store(), Clock()
    woken: list[str] = []
    pauses = Pauses(store, woken.append, clock=clock)
    assert not await pauses.resume("orders")
    with capture_logs() as logs:
        assert await pauses.pause("orders")
        assert not await pauses.pause("orders")
        assert "orders" in pauses
        assert ([*pauses], pauses.since("orders"), pauses.since("other")) == (["orders"], clock.ms, None)
        assert woken == []
        assert await pauses.resume("orders")
        assert not await pauses.resume("orders")
    assert "orders" not in pauses
    assert woken == ["orders"]
    assert store.kept == [("orders", clock.ms), ("orders", None)]
    assert [log["event"] for log in logs] == ["feed_paused_by_hand", "feed_resumed_by_hand"]


async def test_a_pause_of_an_earlier_life_holds_and_is_told() -> None:
    """Nobody wonders at three in the morning why nothing is sent."""
    pauses = Pauses(Store(), lambda _: None, clock=Clock())
    with capture_logs() as logs:
        pauses.restore("orders", 77)
    assert pauses.since("orders") == 77
    assert [(log["event"], log["log_level"]) for log in logs] == [("feed_still_paused", "warning")]


class Fleet:
    """What is paused on any node, for those who look, each of whom the test lets go on."""

    def __init__(self) -> None:
        self.paused: dict[str, int] = {}
        self.looks = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def look(self) -> Mapping[str, int]:
        seen = dict(self.paused)
        self.looks += 1
        await self.may_answer.wait()
        return seen


@asynccontextmanager
async def following(pauses: Pauses, fleet: Fleet) -> AsyncIterator[None]:
    task = asyncio.create_task(pauses.run(fleet.look))
    yield
    task.cancel()


async def hinted(pauses: Pauses, fleet: Fleet) -> None:
    """Wait until a hint has been followed up to the look."""
    looks = fleet.looks
    pauses.hint()
    async with asyncio.timeout(PATIENCE):
        while fleet.looks == looks:
            await asyncio.sleep(0)


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_another_node_pauses_is_paused_here_and_what_it_resumes_goes_on() -> None:
    """And nothing is written for it: the ledger has it."""
    store, fleet = Store(), Fleet()
    woken: list[str] = []
    pauses = Pauses(store, woken.append, clock=Clock())
    with capture_logs() as logs:
        async with following(pauses, fleet):
            fleet.paused = {"orders": 77}
            await hinted(pauses, fleet)
            await settled()
            assert (pauses.since("orders"), woken) == (77, [])
            fleet.paused = {}
            await hinted(pauses, fleet)
            await settled()
    assert ("orders" in pauses, woken, store.kept) == (False, ["orders"], [])
    assert [log["event"] for log in logs] == ["feed_paused_elsewhere", "feed_resumed_elsewhere"]


async def test_what_was_looked_up_before_a_pause_by_hand_does_not_undo_it() -> None:
    """The look is older than the pause; the next one knows it."""
    store, fleet = Store(), Fleet()
    pauses = Pauses(store, lambda _: None, clock=Clock())
    async with following(pauses, fleet):
        fleet.may_answer.clear()
        await hinted(pauses, fleet)
        await pauses.pause("orders")
        fleet.may_answer.set()
        await settled()
        assert "orders" in pauses
