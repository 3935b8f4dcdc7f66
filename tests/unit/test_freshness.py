"""When a feed is stale: the decision, the ages behind it, and what is told once."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from support.archive import feed_at
from support.ledgers import Clock
from tablefeed.freshness import LONGEST_LOOK, Ages, Freshness, Verdict, judge
from tablefeed.ledger.feeds import FeedRecord
from tablefeed.model import Notice
from tablefeed.news import Queued
from tablefeed.notices import Notices

DAY = 86_400.0
START = 1_700_000_000_000


def record(arrived_at: int | None = START, stale_at: int | None = None) -> FeedRecord:
    return FeedRecord("orders", "", START, arrived_at, None, None, stale_at)


@pytest.mark.parametrize(
    ("expect_every", "age", "stale_at", "verdict"),
    [
        (0.0, 9 * DAY, None, Verdict()),
        (DAY, 10.0, None, Verdict()),
        (DAY, DAY - 10, None, Verdict(next_look=10.001)),
        (DAY, DAY, None, Verdict(next_look=0.01)),
        (DAY, DAY + 1, None, Verdict(stale_since=START + 86_400_000)),
        (DAY, DAY + 1, START, Verdict()),
        (DAY, 10.0, START, Verdict(is_over=True)),
        (0.0, 9 * DAY, START, Verdict(is_over=True)),
        (DAY, DAY + 1, START - 1, Verdict(is_over=True, next_look=0.01)),
    ],
)
def test_a_feed_is_stale_when_its_last_file_or_itself_is_too_old(
    expect_every: float, age: float, stale_at: int | None, verdict: Verdict
) -> None:
    """Once until it is over, and looked at again when it could become so."""
    found = judge(expect_every, record(stale_at=stale_at), age)
    assert found.next_look == pytest.approx(verdict.next_look)
    assert replace(found, next_look=verdict.next_look) == verdict
    never = judge(expect_every, record(None, stale_at), age)
    assert never.stale_since == found.stale_since, "one that never had a file counts from when it was known"


@given(st.lists(st.tuples(st.floats(0.1, 60), st.floats(-3 * DAY, 3 * DAY), st.booleans()), max_size=20))
def test_what_arrived_while_we_ran_is_as_old_as_it_is_however_the_clock_is_set(
    steps: Sequence[tuple[float, float, bool]],
) -> None:
    """To the time between two looks."""
    wall, steady = Clock(), Clock(1000.0)
    ages = Ages(wall, steady)
    moment, arrived, longest = wall.ms, None, 0.0
    ages.look({"orders": moment})
    for passed, jump, arrives in steps:
        for clock in (wall, steady):
            clock.now += passed / 2
        if arrives and wall.ms != moment:
            moment, arrived, longest = wall.ms, steady.now, passed
        wall.now += jump
        for clock in (wall, steady):
            clock.now += passed / 2
        age = ages.look({"orders": moment})["orders"]
        if arrived is not None:
            assert abs(age - (steady.now - arrived)) <= longest + 0.01


def test_what_arrived_before_we_ran_is_as_old_as_the_wall_clock_says() -> None:
    """Or as long as we have run, where that clock was ahead when it arrived."""
    wall, steady = Clock(), Clock(1000.0)
    past, future = wall.ms - 5_000, wall.ms + 90_000
    ages = Ages(wall, steady)
    for clock in (wall, steady):
        clock.now += 10
    assert ages.look({"past": past, "future": future}) == {"past": 15.0, "future": 10.0}
    wall.now += 3600
    assert ages.look({"past": past})["past"] == pytest.approx(3615)


class Store:
    """What is kept of one feed."""

    def __init__(self) -> None:
        self.record = record()
        self.notices: list[Notice] = []

    async def feed_records(self) -> list[FeedRecord]:
        return [self.record]

    async def set_stale(self, feed: str, since: int | None, notice: Notice | None = None) -> None:
        self.record = replace(self.record, stale_at=since)
        self.notices += [notice] if notice else []


class Stage:
    """The alarm of one feed, with clocks that the test sets."""

    def __init__(self, root: Path, expect_every: float = DAY) -> None:
        self.wall, self.steady = Clock(START / 1000), Clock(1000.0)
        self.store = Store()
        self.feeds = {"orders": replace(feed_at(root), expect_every=expect_every, notify_url="https://hooks.example")}
        self.scanned = True
        self.told: list[str] = []
        self.begin()

    def begin(self) -> None:
        """A new life."""
        self.alarm = Freshness(
            self.feeds,
            self.store,
            Notices("here", lambda _: None, clock=self.wall),
            scanned=lambda _: self.scanned,
            told=self.told.append,
            wall=self.wall,
            steady=self.steady,
        )

    def arrive(self) -> None:
        """A file is queued."""
        self.store.record = replace(self.store.record, arrived_at=self.wall.ms)
        self.alarm.note(Queued("orders", 1))

    async def later(self, seconds: float) -> list[str]:
        """The events of the log when so much time has passed."""
        self.wall.now += seconds
        self.steady.now += seconds
        with capture_logs() as logs:
            await self.alarm.judge_all()
        return [log["event"] for log in logs]


async def test_staleness_is_told_once_also_over_a_restart_and_again_after_a_file(tmp_path: Path) -> None:
    """In the log, to the webhook, and in the log when a file comes."""
    stage = Stage(tmp_path)
    assert await stage.later(DAY - 1) == []
    assert await stage.later(2) == ["feed_stale"]
    assert await stage.later(DAY) == []
    stage.begin()
    assert await stage.later(DAY) == []
    stage.arrive()
    assert await stage.later(1) == ["feed_fresh_again"]
    assert await stage.later(DAY) == ["feed_stale"]
    assert [notice.event for notice in stage.store.notices] == ["feed.stale", "feed.stale"]
    assert stage.told == ["orders", "orders"]


async def test_another_expect_every_takes_effect(tmp_path: Path) -> None:
    """A longer one, or none, ends the alarm without a file."""
    stage = Stage(tmp_path)
    assert await stage.later(DAY + 1) == ["feed_stale"]
    stage.feeds["orders"] = replace(stage.feeds["orders"], expect_every=3 * DAY)
    assert await stage.later(1) == ["feed_not_overdue"]
    assert await stage.later(3 * DAY) == ["feed_stale"]
    stage.feeds["orders"] = replace(stage.feeds["orders"], expect_every=0.0)
    assert await stage.later(1) == ["feed_not_overdue"]


@pytest.mark.parametrize("jump", [DAY + 100, -DAY - 100])
async def test_a_clock_that_is_set_makes_no_feed_stale_that_got_a_file_meanwhile(tmp_path: Path, jump: float) -> None:
    """While we ran, that is. Nor does it hide one that is stale."""
    stage = Stage(tmp_path)
    await stage.later(10)
    stage.arrive()
    await stage.later(10)
    stage.wall.now += jump
    assert await stage.later(10) == []
    assert await stage.later(DAY - 100) == []
    assert await stage.later(200) == ["feed_stale"]


async def test_nothing_is_judged_before_the_directory_has_been_read(tmp_path: Path) -> None:
    """What was dropped while no daemon ran is found first."""
    stage = Stage(tmp_path)
    stage.scanned = False
    stage.wall.now += 2 * DAY
    with capture_logs() as logs:
        assert await stage.alarm._judge_those_read() == 1.0
        stage.scanned = True
        assert await stage.alarm._judge_those_read() == 1.0
        stage.steady.now += 60
        stage.arrive()
        assert await stage.alarm._judge_those_read() == LONGEST_LOOK
    assert logs == []


async def test_without_expect_every_there_is_nothing_to_wake_for(tmp_path: Path) -> None:
    """It costs nothing."""
    assert await Stage(tmp_path, expect_every=0.0).alarm._judge_those_read() is None
