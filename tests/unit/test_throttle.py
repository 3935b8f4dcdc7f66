"""The limit in force, and how it is shared."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from support.patience import PATIENCE
from tablefeed.throttle import BURST, TURN, Rate, Schedule, Throttle, Timetable

DAY = 24 * 60
RATES = st.none() | st.integers(2**10, 2**40)
ENTRIES = st.dictionaries(st.integers(0, DAY - 1), RATES, min_size=1, max_size=12).map(
    lambda it: tuple(sorted(it.items()))
)
OFFICE = Timetable(((8 * 60, 5 * 2**20), (19 * 60, None)))


class Wall:
    """A clock that is set by hand; it shows local time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def shows(self, text: str) -> None:
        """Let it be this time of some day."""
        self.now = datetime.fromisoformat(f"2026-03-02T{text}").timestamp()


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def amsterdam(monkeypatch: pytest.MonkeyPatch) -> Iterator[ZoneInfo]:
    """The time zone of this process for a while."""
    monkeypatch.setenv("TZ", "Europe/Amsterdam")
    time.tzset()
    yield ZoneInfo("Europe/Amsterdam")
    monkeypatch.undo()
    time.tzset()


@given(ENTRIES)
def test_at_each_minute_of_the_day_exactly_one_entry_is_in_force(entries: tuple[tuple[int, Rate], ...]) -> None:
    """Each holds from its minute to the next one's, the last past midnight to the first one's, and none but these."""
    table = Timetable(entries)
    expected = entries[-1][1]
    begins = dict(entries)
    for minute in range(DAY):
        expected = begins.get(minute, expected)
        rate, until = table.at(minute)
        assert rate == expected
        assert until in begins
        ahead = [(other - minute - 1) % DAY for other in begins]
        assert (until - minute - 1) % DAY == min(ahead)


@pytest.mark.parametrize(
    ("clock", "limit", "source"),
    [
        ("00:00", None, "timetable until 08:00"),
        ("07:59:59", None, "timetable until 08:00"),
        ("08:00", 5 * 2**20, "timetable until 19:00"),
        ("18:59:59.9", 5 * 2**20, "timetable until 19:00"),
        ("19:00", None, "timetable until 08:00"),
        ("23:59:59", None, "timetable until 08:00"),
    ],
)
def test_the_clock_on_the_wall_decides(wall: Wall, clock: str, limit: Rate, source: str) -> None:
    """To the minute, and told with the time at which the next entry begins."""
    wall.shows(clock)
    throttle = Throttle(OFFICE, wall)
    assert (throttle.limit, throttle.source) == (limit, source)


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-06-01"])
def test_daylight_saving_changes_nothing_but_the_clock(wall: Wall, amsterdam: ZoneInfo, day: str) -> None:
    """At each minute of the days on which clocks are changed, the time that they show decides."""
    table = Timetable(((90, 2**10), (150, 2**11), (180, 2**12), (1380, None)))
    throttle = Throttle(table, wall)
    begin = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(hours=3)
    for minute in range(30 * 60):
        moment = begin + timedelta(minutes=minute)
        wall.now = moment.timestamp()
        local = moment.astimezone(amsterdam)
        assert throttle.limit == table.at(local.hour * 60 + local.minute)[0]


def test_what_is_set_by_hand_holds_until_a_reload(wall: Wall) -> None:
    """Whatever the timetable says meanwhile; `release` goes back to it too."""
    wall.shows("09:00")
    throttle = Throttle(OFFICE, wall)

    def said() -> tuple[Rate, str]:
        return throttle.limit, throttle.source

    throttle.override(2**20)
    wall.shows("20:00")
    assert said() == (2**20, "set by hand")
    throttle.override(None)
    wall.shows("10:00")
    assert said() == (None, "set by hand")
    throttle.release()
    assert said() == (5 * 2**20, "timetable until 19:00")
    throttle.override(2**20)
    throttle.follow(2**21)
    assert said() == (2**21, "configuration")
    throttle.follow(None)
    assert said() == (None, "configuration")
    throttle.follow(Timetable(((480, 2**20),)))
    assert said() == (2**20, "timetable")


@pytest.mark.parametrize("rate", [0, -1.0, 1023, float("nan")])
def test_a_limit_of_next_to_nothing_is_refused(wall: Wall, rate: float) -> None:
    """Also by hand; what was in force stays."""
    throttle = Throttle(2**20, wall)
    with pytest.raises(ValueError, match='is too slow; the slowest is "1KiB/s"'):
        throttle.override(rate)
    assert throttle.source == "configuration"


async def test_a_change_is_logged_once(wall: Wall) -> None:
    """By hand, by reload and by time of day, with where it comes from; what stays as it is, is not."""
    wall.shows("18:00")
    with capture_logs() as logs:
        throttle = Throttle(OFFICE, wall)
        await throttle.admit(1)
        await throttle.admit(1)
        wall.shows("19:00")
        await throttle.admit(1)
        throttle.override(None)
        throttle.override(2**20)
        throttle.follow(2**20)
    assert [(entry["event"], entry["limit"], entry["source"]) for entry in logs] == [
        ("bandwidth_limit", "5MiB/s", "timetable until 19:00"),
        ("bandwidth_limit", "none", "timetable until 08:00"),
        ("bandwidth_limit", "1MiB/s", "set by hand"),
    ]


@given(st.integers(1, 2**50))
async def test_without_a_limit_all_goes_at_once(wanted: int) -> None:
    """The whole chunk, and no turn of the loop."""
    with pytest.raises(StopIteration) as returned:
        Throttle(None, float).admit(wanted).send(None)
    assert returned.value.value == wanted


@given(st.integers(2**10, 2**40), st.integers(1, 2**20))
async def test_a_piece_is_some_of_what_is_wanted(rate: int, wanted: int) -> None:
    """At least a byte, at most all, and never more than a fraction of a second carries."""
    piece = await Throttle(rate, float).admit(wanted)
    assert 1 <= piece <= wanted
    assert piece <= max(1, rate / 10)


async def test_uploads_take_turns_however_much_each_asks_for(wall: Wall) -> None:
    """Those that came first, or that ask for little, do not overtake the others; only a pause's burst has no queue."""
    throttle = Throttle(10 * 2**20, wall)
    turns: Counter[int] = Counter()

    async def ask(number: int, wanted: int) -> None:
        while True:
            await throttle.admit(wanted)
            turns[number] += 1

    tasks = [asyncio.create_task(ask(*it)) for it in enumerate([2**20] * 10 + [2**16] * 3)]
    await asyncio.wait(tasks, timeout=1.5)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert len(turns) == len(tasks)
    later = [turns[number] for number in range(1, len(tasks))]
    assert max(later) - min(later) <= 1
    assert turns[0] <= min(later) + BURST / TURN + 1


@pytest.mark.parametrize("schedule", [2**20, Timetable(((0, 2**20), (DAY // 2, 2**20)))])
async def test_a_cancelled_turn_is_given_on(wall: Wall, schedule: Schedule) -> None:
    """Whoever is cut off, the first in the row or one behind it, the rest goes on."""
    throttle = Throttle(schedule, wall)
    for _ in range(8):
        await throttle.admit(2**20)
    throttle._bucket._level += 1.0  # nobody's turn comes for a second, however slow the machine is
    waiting = [asyncio.create_task(throttle.admit(2**20)) for _ in range(6)]
    await asyncio.sleep(0)
    for number in (0, 1, 3):
        waiting[number].cancel()
    async with asyncio.timeout(PATIENCE):
        done = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(it, asyncio.CancelledError) for it in done] == [True, True, False, True, False, False]
