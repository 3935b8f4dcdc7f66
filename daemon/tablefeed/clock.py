"""Clocks: one that nobody can set, one that knows when it was, those of servers, learnt from their `Date` headers."""

import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache

_STEP = 0.2
"""Seconds by which a wall clock has moved at least when it was set."""


def steady() -> float:
    """Seconds that no clock change moves and that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def on_wall(wall: Callable[[], float], steady: Callable[[], float]) -> Callable[[float], int]:
    """What gives moments of the clock `steady` in Unix milliseconds, of which `wall` gives the seconds."""
    return lambda moment: round((wall() - steady() + moment) * 1000)


@lru_cache(maxsize=64)
def http_date(text: str | None) -> float | None:
    """The Unix seconds of a date in a header, in any form of RFC 9110; None: it is none.

    All of them are in GMT, also where that is not said: the time zone of this machine has no part in it. Remembered,
    because all answers of one second have the same.
    """
    try:
        moment = parsedate_to_datetime(text or "")
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, IndexError):
        return None


class WatchedClock:
    """The local wall clock, and when it was set ahead last. For one thread."""

    def __init__(self, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        """`wall` gives Unix seconds; both clocks run alike, so that they move apart only where one of them is set."""
        self._wall = wall
        self._steady = steady
        self._lead = wall() - steady()
        self.set_at = 0.0
        """When it was noticed last that the clock had been set ahead, in Unix seconds; 0: never."""

    def __call__(self) -> float:
        """Unix seconds."""
        now = self._wall()
        before, self._lead = self._lead, now - self._steady()
        if self._lead - before > _STEP:
            self.set_at = now
        return now


class ServerClocks:
    """The clock of each server that has answered, told from the local steady clock.

    A `Date` header has whole seconds; the later end of its second is taken, so that a grant is thought to expire up
    to a second too early and never too late.
    """

    def __init__(self, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        """`wall` gives Unix seconds, and serves until a server has answered."""
        self._wall = wall
        self._steady = steady
        self._offsets: dict[str, float] = {}
        self._latest: float | None = None
        """The offset learnt last, of whatever server: better than a local clock that may be wrong."""

    def observe(self, origin: str, date: str | None) -> None:
        """Learn from an answer that has just arrived. An unreadable header teaches nothing."""
        seconds = http_date(date)
        if seconds is not None:
            self._offsets[origin] = self._latest = seconds + 1.0 - self._steady()

    def knows(self, origin: str) -> bool:
        """Whether the server has told its time."""
        return origin in self._offsets

    def forget(self, origin: str) -> None:
        """Believe no more what the server told."""
        self._offsets.pop(origin, None)

    def now(self, *origins: str) -> int:
        """Unix milliseconds on the clock of the first of these servers that is known, else of any, else our own."""
        known = (self._offsets[origin] for origin in origins if origin in self._offsets)
        offset = next(known, self._latest)
        seconds = self._wall() if offset is None else self._steady() + offset
        return round(seconds * 1000)
