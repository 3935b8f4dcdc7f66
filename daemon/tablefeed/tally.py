"""What was delivered today and over the last hour, by feed, counted in memory.

The ledger gives what an earlier life of the daemon delivered; from the start on, the news count.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from tablefeed.ledger.census import Delivered as Earlier
from tablefeed.news import Delivered, Item

_UNSETTLED = 10
"""Minutes for which a fleet's deliveries may still come into the ledger."""
MINUTES = 60
"""Minutes that are kept one by one."""


@dataclass(frozen=True, slots=True)
class Minute:
    """What was delivered of all feeds in one minute."""

    at: int
    """Its begin, in Unix milliseconds."""
    files: int
    bytes: int


def midnight(now: float) -> int:
    """When the day began in local time, in Unix milliseconds; `now` in Unix seconds."""
    today = datetime.fromtimestamp(now).astimezone()
    # The offset from UTC may have been another one at midnight, so it is worked out for that moment.
    return round(today.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None).timestamp() * 1000)


class Tally:
    """Counts deliveries. Listens to the news; `clock` gives Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """What `clock` says now is when the daemon began."""
        self._clock = clock
        self.began_at = round(clock() * 1000)
        """Unix milliseconds. What was finished before that is for `remember`."""
        self._minutes: dict[int, Counter[str]] = {}
        self._day = midnight(clock())
        self._files: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._looked_at = 0
        """The Unix minute in which the date was compared last."""

    @property
    def since(self) -> int:
        """From when on earlier deliveries are wanted, in Unix milliseconds: today's, and those of the last hour."""
        return min(midnight(self._clock()), round(self._clock() * 1000) - MINUTES * 60_000)

    def remember(self, earlier: Iterable[Earlier]) -> None:
        """Add what was delivered before this daemon began."""
        for one in earlier:
            self._add(one.feed, one.minute * 60_000, one.files, one.bytes)

    def note(self, item: Item) -> None:
        """Count an item of the news."""
        match item:
            case Delivered(feed, _, receipt):
                self._add(feed, receipt.finished_at, 1, receipt.size)
            case _:
                pass

    def today(self, feed: str) -> tuple[int, int]:
        """Files and bytes of a feed that were delivered today."""
        self._turn_page()
        return self._files[feed], self._bytes[feed]

    def hour(self) -> list[Minute]:
        """The last 60 minutes of all feeds, the oldest first, the current one last."""
        last = int(self._clock()) // 60
        self._drop_before(last - MINUTES + 1)
        empty: Counter[str] = Counter()
        return [
            Minute(minute * 60_000, counts["files"], counts["bytes"])
            for minute in range(last - MINUTES + 1, last + 1)
            for counts in [self._minutes.get(minute, empty)]
        ]

    def _add(self, feed: str, at: int, files: int, size: int) -> None:
        self._turn_page()
        if at >= self._day:
            self._files[feed] += files
            self._bytes[feed] += size
        last = int(self._clock()) // 60
        if at // 60_000 > last - MINUTES:
            counts = self._minutes.setdefault(at // 60_000, Counter())
            counts["files"] += files
            counts["bytes"] += size
        if len(self._minutes) > 2 * MINUTES:
            self._drop_before(last - MINUTES + 1)

    def _drop_before(self, first: int) -> None:
        self._minutes = {minute: counts for minute, counts in self._minutes.items() if minute >= first}

    def _turn_page(self) -> None:
        now = self._clock()
        if int(now) // 60 == self._looked_at:
            return
        self._looked_at = int(now) // 60
        day = midnight(now)
        if day != self._day:
            self._day = day
            self._files.clear()
            self._bytes.clear()


class Common:
    """Counts what all nodes of a fleet deliver, as their ledger tells: `learn` is to be called now and then."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Nothing is known yet. `clock` gives Unix seconds."""
        self._clock = clock
        self._doubted = True
        self._settled = Tally(clock)
        self._recent: list[Earlier] = []
        self._from = 0
        """The Unix minute from which on the ledger is asked for anew."""

    @property
    def since(self) -> int:
        """From when on deliveries are wanted, in Unix milliseconds: a whole minute."""
        return (self._settled.since // 60_000 if self._doubted else self._from) * 60_000

    def doubt(self) -> None:
        """Nodes may have been kept from telling the ledger for long: all is asked for anew."""
        self._doubted = True

    def learn(self, since: int, found: Iterable[Earlier]) -> None:
        """These are all deliveries from `since` on, which was asked for."""
        if self._doubted:
            self._settled, self._doubted, self._from = Tally(self._clock), False, since // 60_000
        self._recent = [*found]
        settled = int(self._clock()) // 60 - _UNSETTLED
        if settled > self._from:
            self._settled.remember(one for one in self._recent if one.minute < settled)
            self._recent = [one for one in self._recent if one.minute >= settled]
            self._from = settled

    def today(self, feed: str) -> tuple[int, int]:
        """Files and bytes of a feed that were delivered today."""
        count, size = self._settled.today(feed)
        day = midnight(self._clock())
        mine = [one for one in self._recent if one.feed == feed and one.minute * 60_000 >= day]
        return count + sum(one.files for one in mine), size + sum(one.bytes for one in mine)

    def hour(self) -> list[Minute]:
        """The last 60 minutes of all feeds, the oldest first, the current one last."""
        files, sizes = Counter[int](), Counter[int]()
        for one in self._recent:
            files[one.minute * 60_000] += one.files
            sizes[one.minute * 60_000] += one.bytes
        return [
            Minute(minute.at, minute.files + files[minute.at], minute.bytes + sizes[minute.at])
            for minute in self._settled.hour()
        ]
