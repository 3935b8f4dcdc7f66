"""Which feeds are served after a reload, and when."""

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tablefeed.dispatch import Dispatcher
from tablefeed.gates import Gates, Place
from tablefeed.model import ApiAccess, Entry, Feed, FileVersion
from tablefeed.roster import Changes, Roster, compare
from tablefeed.watch.scan import Selection

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
        self.takes = Selection(feed).takes
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


@pytest.mark.parametrize(
    ("then", "waits"),
    [
        ([replace(A, name="renamed")], {"renamed"}),
        ([replace(A, name="wider", directory=Path("/"), recursive=True)], {"wider"}),
        ([replace(A, name="wider", directory=Path("/"))], set()),
        ([replace(A, directory=Path("/b")), replace(B, directory=Path("/a"))], {"b"}),
        ([replace(A, directory=Path("/"), recursive=True)], {"a"}),
        ([replace(A, settle=9.0)], set()),
        ([A, replace(B, directory=Path("/a"), include=("*.xlsx",))], set()),
        ([A, replace(B, settle=9.0)], set()),
    ],
)
async def test_a_feed_takes_nothing_in_before_what_is_sent_from_there_has_ended(
    then: list[Feed], waits: set[str]
) -> None:
    """What is under way by another name or directory would be found, and sent, a second time; nobody else waits.

    Nor is what the feed itself has queued of it in an earlier life claimed.
    """
    bench = Bench(A, B)
    version = FileVersion("a", "sub/x.csv" if then[0].recursive else "x.csv", 1, 2, 3, 4)
    bench.dispatcher._workers[7] = ((version, A.directory), None)
    async with asyncio.TaskGroup() as group:
        bench.roster.start(group)
        await bench.roster.change(then)
        for _ in range(10):
            await asyncio.sleep(0)
        assert {feed.name for feed in then} - {*+bench.running} == waits
        assert bench.dispatcher.held_back == waits
        del bench.dispatcher._workers[7]
        bench.changed.set()
        while {*+bench.running} != {feed.name for feed in then}:
            await asyncio.sleep(0)
        assert not bench.dispatcher.held_back
        bench.roster.stop()


async def test_a_feed_that_is_renamed_twice_waits_all_the_same() -> None:
    """What is sent for the first name is neither name's of the second reload."""
    bench = Bench(A)
    bench.dispatcher._workers[7] = ((FileVersion("a", "x.csv", 1, 2, 3, 4), A.directory), None)
    async with asyncio.TaskGroup() as group:
        bench.roster.start(group)
        await bench.roster.change([replace(A, name="second")])
        await bench.roster.change([replace(A, name="third")])
        for _ in range(10):
            await asyncio.sleep(0)
        assert not +bench.running
        bench.roster.stop()
