"""How the picture of the daemon is put together: how often the ledger is asked, and how fast uploads are."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from support.ledgers import Clock
from tablefeed.assembly import Parts
from tablefeed.errors import LedgerUnusable
from tablefeed.gates import Gates
from tablefeed.ledger.census import Census, Delivered
from tablefeed.ledger.feeds import FeedRecord
from tablefeed.ledger.muster import Muster, Standing
from tablefeed.ledger.nodes import Node
from tablefeed.ledger.reports import Report
from tablefeed.nodes import NodeTrouble
from tablefeed.overview import LEAST_AGE, PATIENCE, RATE_WINDOW, SHARE, Overview, Rates
from tablefeed.slots import FairSlots, Share
from tablefeed.status import FeedState, Kind
from tablefeed.telling import headline


class Reader:
    """A ledger that takes as long for a census as the test says."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.takes = 0.0
        self.asked = 0
        self.error: LedgerUnusable | None = None
        self.hangs = False
        self.fleet = Muster()
        self.delivered: list[Delivered] = []
        self.feeds: dict[tuple[str, str], FeedRecord] = {}

    async def census(self, _now: int) -> Census:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        self.clock.now += self.takes
        if self.error:
            raise self.error
        return Census(refused={"orders": self.asked}, feeds=self.feeds)

    async def troubled(self, _limit: int) -> list[object]:
        return []

    async def muster(self, _most: int, _besides: str) -> Muster:
        return self.fleet

    async def delivered_between(self, since: int, until: int) -> list[Delivered]:
        return [one for one in self.delivered if since <= one.minute * 60_000 < until]


def overview_of(reader: Reader, node: str = "", trouble: str = "") -> Overview:
    parts = SimpleNamespace(
        gates=Gates(reader.clock, lambda: 0.5),
        feeds={},
        reader=reader,
        tally=SimpleNamespace(hour=list, today=lambda _feed: (0, 0)),
        ledger=SimpleNamespace(node=node, trouble=trouble, remedy="start PostgreSQL, or mend the way to it"),
        pipeline=SimpleNamespace(in_flight={}),
        throttle=SimpleNamespace(limit=5, source="configuration"),
        slots=FairSlots(None, lambda _: Share(0, 0), clock=reader.clock),
    )
    return Overview(cast("Parts", cast("Any", parts)), wall=reader.clock, steady=reader.clock)


async def test_many_who_look_at_once_cost_one_question() -> None:
    """And who looks again at once is told the same."""
    reader = Reader(Clock())
    overview = overview_of(reader)
    await asyncio.gather(*(overview.snapshot() for _ in range(50)))
    assert reader.asked == 1
    reader.clock.now += LEAST_AGE + 0.01
    await overview.snapshot()
    assert reader.asked == 2


async def test_a_large_ledger_is_asked_the_more_rarely() -> None:
    """It is busy with such questions for a twentieth of the time at most; what was changed by hand is seen at once."""
    reader = Reader(Clock())
    reader.takes = 2.0
    overview = overview_of(reader)
    await overview.snapshot()
    reader.clock.now += SHARE * 2.0 - 1
    await overview.snapshot()
    assert reader.asked == 1
    overview.expire()
    await overview.snapshot()
    assert reader.asked == 2
    reader.clock.now += SHARE * 2.0 + 1
    await overview.snapshot()
    assert reader.asked == 3


async def test_a_ledger_that_does_not_answer_is_told_and_what_it_said_last_is_kept() -> None:
    """And it is told no more once it answers again."""
    reader = Reader(Clock())
    overview = overview_of(reader)
    assert (await overview.snapshot()).ledger_problem == ""
    reader.clock.now += 60
    reader.error = LedgerUnusable("the ledger is damaged", "Move it aside")
    shown = await overview.snapshot()
    assert (shown.ledger_problem, shown.ok) == ("the ledger is damaged. Move it aside", False)
    reader.clock.now += 60
    reader.error = None
    assert (await overview.snapshot()).ledger_problem == ""


async def test_a_ledger_that_hangs_keeps_nobody_waiting_for_ever(monkeypatch: Any) -> None:
    """Nobody who looks waits longer than a moment."""
    monkeypatch.setattr("tablefeed.overview.PATIENCE", 0.01)
    reader = Reader(Clock())
    reader.hangs = True
    async with asyncio.timeout(PATIENCE):
        assert "did not answer" in (await overview_of(reader).snapshot()).ledger_problem


def test_a_rate_is_that_of_the_last_seconds() -> None:
    """An upload that stands still shows 0 after the window, and one that begins anew does not show less than 0."""
    clock = Clock(1000.0)
    rates = Rates(clock)
    clock.now += 1
    assert rates.rate(1, 1000.0, 500) == 500
    for sent in range(1000, 10_001, 500):
        clock.now += 1
        assert rates.rate(1, 1000.0, sent) == 500
    for _ in range(round(RATE_WINDOW) + 1):
        clock.now += 1
        slow = rates.rate(1, 1000.0, 10_000)
    assert slow == 0
    clock.now += 1
    assert rates.rate(1, clock.now - 1, 100) == 100
    rates.keep([2])
    assert rates.rate(1, clock.now, 0) == 0


async def test_feeds_of_others_are_shown_and_files_that_wait_for_a_node_that_is_away_are_trouble() -> None:
    """What all have delivered counts; what is known of the fleet outlasts a ledger that does not answer."""
    reader = Reader(Clock())
    away = Standing(Node("away", 1, 5, 6, 0, "1.0"), False, ("theirs",), waiting=2)
    living = Standing(Node("south", 1, 5, 6, 99, "1.0"), True, ("common",))
    gone = Standing(Node("gone", 1, 5, 6, 0, "1.0"), False, ("old",))
    reader.fleet = Muster(now=9, nodes=(away, living, gone), living=1, over=2)
    reader.delivered = [Delivered("common", reader.clock.ms // 60_000, 3, 30)]
    overview = overview_of(reader, "north")
    shown = await overview.snapshot()
    assert [(feed.name, feed.here, feed.nodes, feed.delivered_today) for feed in shown.feeds] == [
        ("common", False, ("south",), 3),
        ("theirs", False, ("away",), 0),
    ]
    assert ([node.name for node in shown.fleet.missed], shown.ok, shown.node) == (["away"], False, "north")
    assert (overview.knows("common"), overview.knows("orders")) == (True, False)
    reader.clock.now += 60
    reader.error = LedgerUnusable("it is away", "Start PostgreSQL")
    shown = await overview.snapshot()
    assert (len(shown.fleet.nodes), [feed.delivered_today for feed in shown.feeds]) == (3, [3, 0])


async def test_what_is_in_the_way_on_another_node_is_in_the_way_of_the_feed() -> None:
    """Of those that live: what a node that is over has told last, or was silent of, is nobody's trouble now."""
    reader = Reader(Clock())
    blocked = NodeTrouble("common", "delivery", "the key is refused", "Give it another", 70)
    odd = NodeTrouble("theirs", "of another version", "it is odd", "")
    south = Standing(
        Node("south", 1, 5, 6, 99, "1.0"), True, ("common", "theirs", "late"), report=Report((blocked, odd), 3)
    )
    gone = Standing(Node("gone", 1, 5, 6, 0, "1.0"), False, ("late", "old"), waiting=1)
    reader.fleet = Muster(now=9, nodes=(gone, south), living=1, over=1)
    late, silent = (FeedRecord("late", node, 1, 2, 3, None, 60) for node in ("south", "gone"))
    reader.feeds = {("south", "late"): late, ("gone", "late"): silent}
    shown = await overview_of(reader, "north").snapshot()
    feeds = {feed.name: (feed.state, [(it.node, it.kind, it.since) for it in feed.troubles]) for feed in shown.feeds}
    assert feeds == {
        "common": (FeedState.BLOCKED, [("south", Kind.DELIVERY, 70)]),
        "theirs": (FeedState.BLOCKED, [("south", Kind.DELIVERY, None)]),
        "late": (FeedState.STALE, [("south", Kind.STALE, 60)]),
        "old": (FeedState.OK, []),
    }
    assert "blocked: common on south, theirs on south; no file for too long: late on south" in headline(shown)
    assert [(node.troubles, node.more_troubles) for node in shown.fleet.nodes] == [((), 0), ((blocked, odd), 3)]
    reader.fleet = Muster(now=9, nodes=(replace(south, report=Report((), 1)),), living=1)
    reader.feeds = {}
    reader.clock.now += 60
    shown = await overview_of(reader, "north").snapshot()
    assert ({feed.state for feed in shown.feeds}, shown.ok) == ({FeedState.OK}, False), "more than is told one by one"


async def test_a_feed_that_delivered_today_is_shown_though_its_node_is_over() -> None:
    """So that what was delivered today is no less than what was in the last hour; then it is forgotten."""
    reader = Reader(Clock())
    living = Standing(Node("south", 1, 5, 6, 99, "1.0"), True, ("common",))
    gone = Standing(Node("gone", 1, 5, 6, 0, "1.0"), False, ("common", "today", "old"))
    reader.fleet = Muster(now=9, nodes=(living, gone), living=1, over=1)
    minute = reader.clock.ms // 60_000
    reader.delivered = [Delivered("common", minute, 3, 30), Delivered("today", minute, 7, 70)]
    shown = await overview_of(reader, "north").snapshot()
    assert [(feed.name, feed.nodes, feed.delivered_today) for feed in shown.feeds] == [
        ("common", ("south",), 3),
        ("today", ("gone",), 7),
    ]
    assert sum(feed.delivered_today for feed in shown.feeds) == sum(minute.files for minute in shown.hour)


async def test_a_ledger_that_cannot_be_written_is_trouble_with_what_to_do() -> None:
    """In words that fit its database."""
    shown = await overview_of(Reader(Clock()), "north", "it is away").snapshot()
    assert (shown.ledger_held_up, shown.ok) == ("it is away; start PostgreSQL, or mend the way to it", False)
    assert headline(shown).startswith("the ledger cannot be written: it is away")
