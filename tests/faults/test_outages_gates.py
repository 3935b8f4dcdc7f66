"""While a server fails, one file at a time tries it, of whatever feed: counted over generated histories."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from tablefeed.gates import HOST_THRESHOLD, Gates
from tablefeed.retry import LONGEST_DELAY

HOST = "https://s.example"
FEEDS = ("a", "b", "c")


@dataclass
class Bench:
    """Feeds with files without end, and a server that fails all of them; the gates are asked as a dispatcher does."""

    now: float = 1000.0
    under_way: dict[int, tuple[str, bool]] = field(default_factory=dict)
    """File: (feed, whether it started when the server was closed off)."""
    started: int = 0
    probes: int = 0

    def __post_init__(self) -> None:
        self.gates = Gates(lambda: self.now, lambda: 0.5)
        for feed in FEEDS:
            self.gates.relate(feed, HOST)

    @property
    def closed(self) -> bool:
        return any(gate.name == HOST for gate in self.gates.closed())

    def claim(self, feeds: tuple[str, ...] = FEEDS, most: int = 4) -> None:
        """One turn of a dispatcher: the allowances of all feeds first, then their files."""
        allowances = {feed: self.gates.allowance(feed) for feed in feeds}
        for feed, allowance in allowances.items():
            count = most if allowance is None else allowance
            if not count or not self.gates.probe(feed):
                continue
            for _ in range(count):
                self.started += 1
                self.probes += self.closed
                self.gates.started(feed, self.started)
                self.under_way[self.started] = (feed, self.closed)

    def end(self, index: int, *, verdict: bool = True) -> None:
        """A file fails at the server, or ends without having asked it."""
        if not self.under_way:
            return
        file = sorted(self.under_way)[index % len(self.under_way)]
        feed, _ = self.under_way.pop(file)
        if verdict:
            self.gates.host_failed(HOST, "down", None, file)
        self.gates.ended(feed, file)

    @property
    def trying(self) -> int:
        """Files that started as probes and have not ended."""
        return sum(as_probe for _, as_probe in self.under_way.values())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.permutations(FEEDS)),
        st.tuples(st.just("fail"), st.integers(0, 20)),
        st.tuples(st.just("vanish"), st.integers(0, 20)),
        st.tuples(st.just("wait"), st.floats(0.1, 400)),
    ),
    max_size=80,
)


@given(STEPS)
@settings(max_examples=300)
def test_a_failing_server_is_tried_by_one_file_at_a_time(steps: list[tuple[str, object]]) -> None:
    """Whatever ends in whatever order, and however many feeds wait: there are never two probes."""
    bench = Bench()
    for step, value in steps:
        match step, value:
            case "claim", list() | tuple() as feeds:
                bench.claim(tuple(feeds))
            case "fail", int() as index:
                bench.end(index)
            case "vanish", int() as index:
                bench.end(index, verdict=False)
            case "wait", float() as seconds:
                bench.now += seconds
        assert bench.trying <= 1


def test_what_had_passed_before_makes_nobody_wait_longer() -> None:
    """Twelve uploads that fail one after the other, beside the probes, are one outage and not twelve in a row."""
    bench = Bench()
    bench.claim()
    assert len(bench.under_way) == 12
    for _ in range(HOST_THRESHOLD):
        bench.end(0)
    bench.now += 1
    bench.claim()
    assert bench.trying == 1
    for _ in range(9):
        bench.now += LONGEST_DELAY
        bench.end(0)
    [(_, as_probe)] = bench.under_way.values()
    assert as_probe
    bench.end(0)
    assert bench.gates.next_probe(FEEDS) == bench.now + 1.0


def test_a_long_outage_costs_few_requests_and_then_at_least_one_in_five_minutes() -> None:
    """The probes get rarer up to the longest wait, whatever waits behind them."""
    bench = Bench()
    bench.claim()
    while bench.under_way:
        bench.end(0)
    for _ in range(24 * 3600):
        bench.now += 1
        bench.claim()
        bench.end(0)
    assert 24 * 3600 / LONGEST_DELAY <= bench.probes <= 2 * 24 * 3600 / LONGEST_DELAY + 20


def test_a_probe_of_a_feed_that_is_taken_away_does_not_block_the_others() -> None:
    """A reload forgets the feed while its file tries the server: when that ends, the next feed's may."""
    bench = Bench()
    bench.claim()
    while bench.under_way:
        bench.end(0)
    bench.now += 10
    bench.claim(("a",))
    bench.gates.forget("a")
    bench.end(0, verdict=False)
    assert bench.gates.allowance("b") == 1


def test_a_claim_that_found_nothing_makes_room_for_the_next_probe() -> None:
    """The gate was taken for a feed that had no due file after all."""
    bench = Bench()
    bench.claim()
    while bench.under_way:
        bench.end(0)
    bench.now += 10
    assert bench.gates.probe("a")
    assert not bench.gates.probe("b")
    bench.gates.ended("a", None)
    assert bench.gates.probe("b")


def test_a_feed_that_delivers_elsewhere_waits_no_longer_for_the_host_that_failed() -> None:
    """Its grants name another store by now, so that nothing would ever open the gate of the old one."""
    bench = Bench()
    bench.claim()
    while bench.under_way:
        bench.end(0)
    bench.gates.depend("a", "https://api.example", "https://other.example")
    assert bench.gates.allowance("a") is None
    assert bench.gates.allowance("b") == 0
