"""How fast all uploads together may go: the limit in force, by configuration, time of day or hand, and its keeping.

aiolimiter's bucket does the counting. By itself (1.2.1) it would serve smaller requests before larger ones that have
waited longer, let a second's worth through at once after a pause of a second, and keep its rate for ever. Hence:

- uploads ask one at a time, in turn, and each for as little as the others, so that all get the same
- the bucket counts seconds of sending and not bytes, so that another limit is in force with the next piece
- it holds a fraction of a second, so that any ten seconds carry what they should
"""

import asyncio
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from aiolimiter import AsyncLimiter

from tablefeed.units import SLOWEST, format_rate

log = structlog.get_logger("throttle")

TURN = 0.05
"""Seconds of sending that an upload gets at a time; so long it takes at most until a new limit is noticed."""
BURST = 0.25
"""Seconds of sending that may be made up for after a pause: of the loop, or between files."""

Rate = int | None
"""Bytes a second; None: no limit."""


@dataclass(frozen=True, slots=True)
class Timetable:
    """Limits by local time of day."""

    entries: tuple[tuple[int, Rate], ...]
    """(minute of the day, limit from then on), at least one, by rising minutes. The last holds past midnight."""

    def at(self, minute: int) -> tuple[Rate, int]:
        """The limit in force at a minute of the day, and the minute at which the next entry begins."""
        next_one = bisect_right(self.entries, minute, key=lambda entry: entry[0])
        return self.entries[next_one - 1][1], self.entries[next_one % len(self.entries)][0]


Schedule = Rate | Timetable
"""What a configuration says of the limit."""


def clock_time(minute: int) -> str:
    """A minute of the day as `08:00`."""
    return f"{minute // 60:02}:{minute % 60:02}"


@dataclass(frozen=True, slots=True)
class _Limit:
    rate: Rate
    source: str


class Throttle:
    """The limit of all uploads together. Any number of them may wait in `admit`; no thread and no descriptor does.

    The time of day is looked at whenever a piece is to be sent: nothing is planned ahead, and a clock that is set, or
    that daylight saving moves, is simply read.
    """

    def __init__(self, schedule: Schedule, wall: Callable[[], float]) -> None:
        """`wall` gives Unix seconds."""
        self._schedule = schedule
        self._wall = wall
        self._by_hand: _Limit | None = None
        self._told: Rate = None
        self._turn = asyncio.Lock()
        self._bucket = AsyncLimiter(BURST, BURST)

    @property
    def limit(self) -> Rate:
        """Bytes a second that all uploads may send together; None: no limit."""
        return self._in_force().rate

    @property
    def source(self) -> str:
        """Where the limit comes from: `configuration`, `timetable until 19:00` or `set by hand`."""
        return self._in_force().source

    def override(self, rate: float | None) -> None:
        """Keep to this limit from now on, None: to none, until `follow` or `release`.

        Raises ValueError for a rate below `units.SLOWEST`.
        """
        if rate is not None and not rate >= SLOWEST:
            raise ValueError(f'is too slow; the slowest is "{format_rate(SLOWEST)}"')
        self._by_hand = _Limit(None if rate is None else round(rate), "set by hand")
        self._tell()

    def release(self) -> None:
        """Forget what was set by hand, and follow the schedule again."""
        self._by_hand = None
        self._tell()

    def follow(self, schedule: Schedule) -> None:
        """Follow this schedule from now on, and forget what was set by hand."""
        self._schedule = schedule
        self.release()

    async def admit(self, wanted: int) -> int:
        """Wait until the next bytes of an upload may be sent; returns how many, at least 1 and at most `wanted`."""
        if self._tell() is None:
            return wanted
        async with self._turn:
            rate = self.limit
            if rate is None:
                return wanted
            piece = min(wanted, int(rate * TURN))
            await self._bucket.acquire(piece / rate)
            return piece

    def _in_force(self) -> _Limit:
        if self._by_hand is not None:
            return self._by_hand
        if not isinstance(self._schedule, Timetable):
            return _Limit(self._schedule, "configuration")
        now = time.localtime(self._wall())
        rate, until = self._schedule.at(now.tm_hour * 60 + now.tm_min)
        return _Limit(rate, f"timetable until {clock_time(until)}" if len(self._schedule.entries) > 1 else "timetable")

    def _tell(self) -> Rate:
        """The limit in force, said once in the log when it is another than before."""
        limit = self._in_force()
        if limit.rate != self._told:
            self._told = limit.rate
            text = "none" if limit.rate is None else format_rate(limit.rate)
            log.info("bandwidth_limit", limit=text, source=limit.source)
        return limit.rate
