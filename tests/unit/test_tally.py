"""What was delivered today and over the last hour."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from support.ledgers import RECEIPT, Clock, version
from tablefeed.ledger.census import Delivered as Earlier
from tablefeed.model import Entry, State
from tablefeed.news import Delivered, Failed, News
from tablefeed.tally import MINUTES, Common, Tally, midnight

NOON = 1_795_608_000.0
"""2026-11-25, 12:00 UTC."""


@pytest.fixture
def zone() -> Iterator[None]:
    """Berlin, whatever the machine has."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def delivered(clock: Clock, feed: str = "orders", size: int = 10) -> Delivered:
    entry = Entry(1, version(feed=feed, size=size), State.UPLOADED, queued_at=0)
    return Delivered(feed, entry, replace(RECEIPT, size=size, finished_at=clock.ms))


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize(
    ("now", "begin"),
    [
        (NOON, NOON - 13 * 3600),  # 13:00 in Berlin
        (NOON + 11 * 3600, NOON + 11 * 3600),  # midnight itself
        (NOON + 11 * 3600 - 1, NOON - 13 * 3600),
        (1_774_746_000.0, 1_774_738_800.0),  # 2026-03-29, 03:00 in summer time, two hours after midnight in winter time
        (1_792_893_600.0, 1_792_879_200.0),  # 2026-10-25, 03:00 in winter time, four hours after midnight
    ],
)
def test_a_day_begins_at_midnight_in_local_time(now: float, begin: float) -> None:
    """Also on the days on which the clocks are changed."""
    assert midnight(now) == begin * 1000


def test_each_delivery_counts_for_its_feed_today_and_for_its_minute() -> None:
    """Other news do not count."""
    clock = Clock(NOON)
    news, tally = News(), Tally(clock)
    news.listen(tally.note)
    news.tell(delivered(clock))
    news.tell(delivered(clock, size=5))
    news.tell(Failed("orders", "Stalled"))
    clock.now += 60
    news.tell(delivered(clock, feed="invoices"))
    assert tally.today("orders") == (2, 15)
    assert tally.today("invoices") == (1, 10)
    assert tally.today("unknown") == (0, 0)
    hour = tally.hour()
    assert len(hour) == MINUTES
    assert [(minute.files, minute.bytes) for minute in hour[-3:]] == [(0, 0), (2, 15), (1, 10)]
    assert hour[-1].at == clock.ms // 60_000 * 60_000


@pytest.mark.usefixtures("zone")
def test_a_new_day_begins_with_nothing() -> None:
    """What was delivered before midnight is still in the hour's chart."""
    clock = Clock(NOON + 11 * 3600 - 30)
    tally = Tally(clock)
    tally.note(delivered(clock))
    assert tally.today("orders") == (1, 10)
    clock.now += 60
    assert tally.today("orders") == (0, 0)
    assert sum(minute.files for minute in tally.hour()) == 1


def test_minutes_older_than_an_hour_are_forgotten() -> None:
    """Whether anybody looks or not: they do not pile up."""
    clock = Clock(NOON)
    tally = Tally(clock)
    for _ in range(300):
        tally.note(delivered(clock))
        clock.now += 60
    assert len(tally._minutes) <= 2 * MINUTES + 1
    assert sum(minute.files for minute in tally.hour()) == MINUTES - 1
    clock.now += 7200
    assert sum(minute.files for minute in tally.hour()) == 0


@pytest.mark.usefixtures("zone")
def test_what_an_earlier_life_delivered_is_added() -> None:
    """Yesterday's counts for the chart alone; nothing that this life counts itself is asked for."""
    clock = Clock(NOON - 13 * 3600 + 600)  # ten minutes after midnight
    tally = Tally(clock)
    assert tally.began_at == clock.ms
    assert tally.since == clock.ms - 3_600_000, "the hour reaches back further than the day"
    minute = clock.ms // 60_000
    tally.remember([Earlier("orders", minute - 20, 3, 30), Earlier("orders", minute - 2, 2, 20)])
    tally.note(delivered(clock))
    assert tally.today("orders") == (3, 30)
    assert sum(it.files for it in tally.hour()) == 6


@pytest.mark.usefixtures("zone")
def test_what_all_nodes_delivered_is_asked_for_from_its_last_minutes_on() -> None:
    """What may still come into the ledger is counted anew each time, what is older for good; and nothing twice."""
    clock = Clock(NOON)
    common, ledger = Common(clock), [Earlier("orders", round(NOON) // 60 - ago, 1, 10) for ago in (300, 30, 2)]

    def look() -> tuple[tuple[int, int], int, int]:
        since = common.since
        common.learn(since, [one for one in ledger if one.minute * 60_000 >= since])
        return common.today("orders"), sum(minute.files for minute in common.hour()), since

    assert look()[:2] == ((3, 30), 2)
    ledger.append(Earlier("orders", round(NOON) // 60 - 1, 2, 20))
    counts, hour, since = look()
    assert (counts, hour) == ((5, 50), 4)
    assert since >= clock.ms - 11 * 60_000, "not all of the day again"
    clock.now += 40 * 60
    assert look()[:2] == ((5, 50), 3)
    late = Earlier("orders", round(NOON) // 60, 1, 10)
    ledger.append(late)
    assert look()[:2] == ((5, 50), 3), "too late to be asked for"
    common.doubt()
    assert look()[:2] == ((6, 60), 4)
    clock.now += 13 * 3600
    assert look()[:2] == ((0, 0), 0), "another day"
