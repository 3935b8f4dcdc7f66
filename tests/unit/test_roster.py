"""Which feeds are served after a reload, and when."""

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tablefeed.dispatch import Dispatcher
from tablefeed.gates import Gates, Place
from tablefeed.model import ApiAccess, Entry, Feed
from tablefeed.roster import Changes, Roster, compare

A = Feed("a", Path("/a"), "t", ApiAccess("https://api.example", "t", "k"))
B, C = replace(A, name="b", directory=Path("/b")), replace(A, name="c", directory=Path("/c"))


def test_feeds_are_compared_by_name_and_by_all_that_they_are() -> None:
    """A feed that differs in anything has changed; a new name is a new feed."""
    then = [replace(B, settle=9.0), C, replace(A, name="d")]
    assert compare({"a": A, "b": B, "c": C}, then) == Changes(added=("d",), changed=("b",), removed=("a",))


class Intake:
    """Takes nothing in, and knows whether it runs."""

    def __init__(self, feed: Feed, running: Counter[str]) -> None:
        self.feed = feed
        self._running = running

    async def run(self) -> None:
        self._running[self.feed.name] += 1
        try:
            await asyncio.Event().wait()
        finally:
            self._running[self.feed.name] -= 1


class Bench:
    """A roster whose intakes do nothing."""

    def __init__(self, *feeds: Feed) -> None:
        self.feeds = {feed.name: feed for feed in feeds}
        self.running: Counter[str] = Counter()
        self.intakes = {feed.name: Intake(feed, self.running) for feed in feeds}
        self.gates = Gates(lambda: 0.0, lambda: 0.5)
        self.dispatcher = Dispatcher(
            NoQueue(), self.feeds, self.gates, nothing, slots=lambda: 1, wall=lambda: 0.0, steady=lambda: 0.0
        )
        self.changed = asyncio.Event()
        self.forgotten: list[str] = []
        self.roster = Roster(
            self.feeds,
            self.intakes,
            lambda feed: Intake(feed, self.running),
            self.dispatcher,
            self.gates,
            changed=self.changed,
            forget=self.forgotten.append,
        )


class NoQueue:
    """A queue that nobody asks."""

    async def claim(self, wants: object) -> list[Entry]:
        raise AssertionError

    async def feeds_due(self, after: int, until: int) -> list[str]:
        raise AssertionError

    async def next_due(self, after: int) -> int | None:
        raise AssertionError

    async def bring_forward(self, milliseconds: int) -> None:
        raise AssertionError


async def nothing(entry: Entry) -> None:
    """No work."""


async def test_a_change_starts_ends_and_exchanges_intakes() -> None:
    """What did not change runs on untouched."""
    bench = Bench(A, B, C)
    async with asyncio.TaskGroup() as group:
        bench.roster.start(group)
        await asyncio.sleep(0)
        untouched, exchanged = bench.intakes["c"], bench.intakes["b"]
        changed, added = replace(B, settle=9.0), replace(A, name="d", directory=Path("/d"))
        await bench.roster.change([changed, C, added])
        await asyncio.sleep(0)
        assert +bench.running == Counter("bcd")
        assert bench.feeds == {"b": changed, "c": C, "d": added}
        assert bench.intakes.keys() == {"b", "c", "d"}
        assert bench.intakes["c"] is untouched
        assert bench.intakes["b"] is not exchanged
        assert bench.forgotten == ["a", "b"]
        bench.roster.stop()
    assert +bench.running == Counter()


async def test_a_changed_feed_is_not_paused_any_more() -> None:
    """The change may be what mends it."""
    bench = Bench(A)
    bench.gates.feed_failed("a", Place.DELIVERY, "no such datatable", 0)
    async with asyncio.TaskGroup() as group:
        bench.roster.start(group)
        await bench.roster.change([replace(A, datatable_id="t-2")])
        assert bench.gates.allowance("a") is None
        bench.roster.stop()


async def test_a_renamed_feed_begins_when_the_files_in_flight_have_ended() -> None:
    """Else a file that is being sent under the old name would be found, and sent, under the new one."""
    bench = Bench(A)
    bench.dispatcher._in_flight["a"] = 1
    async with asyncio.TaskGroup() as group:
        bench.roster.start(group)
        await bench.roster.change([replace(A, name="renamed"), C])
        for _ in range(10):
            await asyncio.sleep(0)
        assert +bench.running == Counter(["c"])
        bench.dispatcher._in_flight["a"] = 0
        bench.changed.set()
        while not bench.running["renamed"]:
            await asyncio.sleep(0)
        bench.roster.stop()
