"""Gates close off what fails as a whole: a feed that is misconfigured, or a server that is down.

A closed gate lets one probe through at a time, after a growing wait, and opens when a probe succeeds. So an outage
costs one request a wait instead of a whole queue of them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from tablefeed.retry import LONGEST_ASKED, backoff


@dataclass(frozen=True, slots=True)
class Probe:
    """The one file that may try what is closed off; `file` None: it is still being claimed."""

    feed: str
    file: int | None = None


@dataclass(slots=True)
class Gate:
    """One gate. It closes after `threshold` failures without a success between them."""

    threshold: int
    failures: int = 0
    refusals: int = 0
    """How often it closed again after a probe, in a row."""
    opens_at: float = 0.0
    """When the next probe may go, on the caller's clock."""
    probe: Probe | None = None
    """Who tries it now."""
    reason: str = ""
    remedy: str = ""
    closed_at: float = 0.0
    """Since when it is closed, on the caller's clock."""

    @property
    def closed(self) -> bool:
        """Whether only probes may pass."""
        return self.failures >= self.threshold

    def allowance(self, now: float) -> int | None:
        """How many may pass now; None: any number."""
        if not self.closed:
            return None
        return 0 if self.probe or now < self.opens_at else 1

    def failed(self, now: float, reason: str, wait: Callable[[int], float], file: int) -> bool:
        """Record the failure of a file; returns whether this closed the gate.

        `wait` gives the seconds until the next probe after the nth refusal in a row. What fails while the gate is
        closed and is not its probe had passed before it closed, and makes nobody wait longer.
        """
        was_closed = self.closed
        self.reason = reason
        if was_closed and (self.probe is None or self.probe.file != file):
            return False
        self.failures += 1
        if self.closed and not was_closed:
            self.closed_at = now
        if self.closed:
            self.refusals += 1
            self.opens_at = now + wait(self.refusals)
        return self.closed and not was_closed

    def succeeded(self) -> bool:
        """Record a success; returns whether this opened a closed gate."""
        was_closed = self.closed
        self.failures = self.refusals = 0
        self.opens_at = 0.0
        self.probe = None
        self.reason = ""
        return was_closed


class Place(Enum):
    """Where a feed can be blocked."""

    DELIVERY = "delivery"
    ARCHIVE = "archive"


@dataclass(frozen=True, slots=True)
class Closed:
    """A gate that is closed, as it may be told. Times are on the clock of the gates."""

    name: str
    """The feed, or the server's origin."""
    place: Place | None
    """None: a server."""
    reason: str
    remedy: str
    since: float
    next_probe: float | None
    """None: it is being tried now."""
    feeds: frozenset[str]
    """Whose files wait for it."""


FEED_THRESHOLD = 1
HOST_THRESHOLD = 3


class Gates:
    """The gates of all feeds and servers. `clock` gives seconds that only grow."""

    def __init__(self, clock: Callable[[], float], random: Callable[[], float]) -> None:
        """`random` gives [0, 1), for the jitter of the probes."""
        self._clock = clock
        self._random = random
        self._feeds: dict[tuple[str, Place], Gate] = {}
        self._hosts: dict[str, Gate] = {}
        self._hosts_of: dict[str, set[str]] = {}

    def relate(self, feed: str, origin: str) -> None:
        """Let the feed wait while this server fails."""
        self._hosts_of.setdefault(feed, set()).add(origin)

    def depend(self, feed: str, *origins: str) -> None:
        """Let the feed wait while one of these servers fails, and for no other: its files go there now."""
        self._hosts_of[feed] = set(origins)

    def forget(self, feed: str) -> None:
        """Begin with the feed as if nothing had failed: it is not served any more, or not as before."""
        self._hosts_of.pop(feed, None)
        for place in Place:
            self._feeds.pop((feed, place), None)

    def allowance(self, feed: str) -> int | None:
        """How many files of the feed may start now; None: any number."""
        now = self._clock()
        limits = [limit for gate in self._of(feed) if (limit := gate.allowance(now)) is not None]
        return min(limits, default=None)

    def probe(self, feed: str) -> bool:
        """Take the feed's closed gates for the next file that is claimed of it; False: another file tries one of them.

        They let no other through until `ended`. The feed's allowance has been asked just before.
        """
        closed = [gate for gate in self._of(feed) if gate.closed]
        if any(gate.probe for gate in closed):
            return False
        for gate in closed:
            gate.probe = Probe(feed)
        return True

    def started(self, feed: str, file: int) -> None:
        """Take note of a file that was claimed: it is the probe of the gates that were taken for its feed."""
        self._pass_on(Probe(feed), Probe(feed, file))

    def ended(self, feed: str, file: int | None = None) -> None:
        """A file ended, or none was claimed (None); if it was a probe, the next one may go."""
        self._pass_on(Probe(feed, file), None)

    def _pass_on(self, holder: Probe, heir: Probe | None) -> None:
        for gate in (*self._hosts.values(), *self._feeds.values()):
            if gate.probe == holder:
                gate.probe = heir

    def feed_failed(self, feed: str, place: Place, reason: str, file: int, *, remedy: str = "") -> bool:
        """Close the feed's gate at a place; returns whether it was open."""
        gate = self._feeds.setdefault((feed, place), Gate(FEED_THRESHOLD))
        gate.remedy = remedy
        return gate.failed(self._clock(), reason, self._wait, file)

    def host_failed(self, origin: str, reason: str, asked: float | None, file: int) -> bool:
        """Count a server's failure; returns whether its gate closed."""
        gate = self._hosts.setdefault(origin, Gate(HOST_THRESHOLD))
        now = self._clock()
        closed = gate.failed(now, reason, self._wait, file)
        if asked is not None and gate.closed:
            gate.opens_at = max(gate.opens_at, now + min(asked, LONGEST_ASKED))
        return closed

    def host_succeeded(self, origin: str) -> bool:
        """Open a server's gate; returns whether it was closed."""
        gate = self._hosts.pop(origin, None)
        return gate is not None and gate.closed

    def feed_succeeded(self, feed: str, place: Place) -> bool:
        """Open a feed's gate at a place; returns whether it was closed."""
        gate = self._feeds.get((feed, place))
        return gate is not None and gate.succeeded()

    def next_probe(self, feeds: Iterable[str]) -> float | None:
        """When the first of these feeds may send a probe, on this object's clock; None: no wait helps.

        A feed waits for the last of its closed gates, and for a probe that is under way.
        """
        moments = []
        for feed in feeds:
            closed = [gate for gate in self._of(feed) if gate.closed]
            if closed and not any(gate.probe for gate in closed):
                moments.append(max(gate.opens_at for gate in closed))
        return min(moments, default=None)

    def paused(self) -> dict[str, str]:
        """The closed gates of feeds, with the reason of each."""
        return {feed: gate.reason for (feed, _), gate in self._feeds.items() if gate.closed}

    def closed(self) -> list[Closed]:
        """All gates that are closed now."""
        of_feeds = [
            _told(gate, feed, place, frozenset({feed})) for (feed, place), gate in self._feeds.items() if gate.closed
        ]
        of_hosts = [
            _told(gate, origin, None, frozenset(feed for feed, hosts in self._hosts_of.items() if origin in hosts))
            for origin, gate in self._hosts.items()
            if gate.closed
        ]
        return of_feeds + of_hosts

    def _wait(self, refusals: int) -> float:
        return backoff(refusals, self._random)

    def _of(self, feed: str) -> list[Gate]:
        hosts = [self._hosts[origin] for origin in self._hosts_of.get(feed, ()) if origin in self._hosts]
        own = [self._feeds[feed, place] for place in Place if (feed, place) in self._feeds]
        return hosts + own


def _told(gate: Gate, name: str, place: Place | None, feeds: frozenset[str]) -> Closed:
    return Closed(name, place, gate.reason, gate.remedy, gate.closed_at, None if gate.probe else gate.opens_at, feeds)
