from support.ledgers import Clock
from tablefeed.clock import ServerClocks, WatchedClock, steady

DATE, SECONDS = "Tue, 14 Nov 2023 22:13:20 GMT", 1_700_000_000


def test_a_server_that_has_answered_tells_its_time_whatever_our_clock_says() -> None:
    """Its `Date` counts from the moment that it came, on a clock that no change of the local one moves."""
    wall, ticks = Clock(0.0), Clock(5.0)
    clocks = ServerClocks(wall, ticks)
    clocks.observe("https://api", DATE)
    ticks.now += 10
    wall.now += 99_999
    assert clocks.now("https://api") == (SECONDS + 1 + 10) * 1000


def test_the_first_known_server_counts_then_any_then_our_own_clock() -> None:
    """A store that has not answered yet is thought to agree with the API rather than with us."""
    wall = Clock(42.0)
    clocks = ServerClocks(wall, Clock(0.0))
    assert clocks.now("https://store") == 42_000
    clocks.observe("https://api", DATE)
    assert clocks.now("https://store") == (SECONDS + 1) * 1000
    clocks.observe("https://store", "Tue, 14 Nov 2023 22:13:50 GMT")
    assert clocks.now("https://store", "https://api") == (SECONDS + 31) * 1000
    assert clocks.now("https://api", "https://store") == (SECONDS + 1) * 1000


def test_a_date_that_cannot_be_read_teaches_nothing() -> None:
    """Servers send what they like."""
    clocks = ServerClocks(Clock(42.0), Clock(0.0))
    for text in (None, "", "soon", "Tue, 99 Nov 2023 22:13:20 GMT", "\x00"):
        clocks.observe("https://api", text)
    assert clocks.now("https://api") == 42_000


def test_the_steady_clock_only_grows() -> None:
    """And it counts seconds."""
    first = steady()
    assert 0 <= steady() - first < 60


def test_a_clock_that_is_set_ahead_is_noticed() -> None:
    """Time that passes is no step, nor is a step back; the moment is told on the clock as it is then."""
    now, boot = 1000.0, 10.0
    clock = WatchedClock(lambda: now, lambda: boot)
    now, boot = now + 3600, boot + 3600
    assert (clock(), clock.set_at) == (4600.0, 0.0)
    now, boot = now - 100, boot + 1
    assert (clock(), clock.set_at) == (4500.0, 0.0)
    now, boot = now + 101, boot + 1
    assert (clock(), clock.set_at) == (4601.0, 4601.0)
    now, boot = now + 50, boot + 50
    assert (clock(), clock.set_at) == (4651.0, 4601.0)
