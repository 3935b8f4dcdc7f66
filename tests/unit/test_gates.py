from tablefeed.gates import Closed, Gates, Place


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def gates() -> tuple[Gates, Clock]:
    clock = Clock()
    return Gates(clock, lambda: 0.5), clock


def test_a_blocked_feed_lets_one_probe_through_after_its_wait() -> None:
    """A paused feed costs one file a wait, not its whole queue."""
    g, clock = gates()
    assert g.allowance("a") is None
    assert g.feed_failed("a", Place.DELIVERY, "key refused", 1)
    assert g.allowance("a") == 0
    clock.now += 1
    assert g.allowance("a") == 1
    g.probe("a")
    assert g.allowance("a") == 0


def test_a_paused_feed_is_loud_once_and_waits_longer_each_time() -> None:
    """Only the first failure closes the gate, and the wait grows with every failed probe."""
    g, clock = gates()
    waits = []
    for n in range(5):
        assert g.feed_failed("a", Place.DELIVERY, "key refused", 1) == (n == 0)
        g.ended("a", 1)
        wait = 0.0
        while g.allowance("a") == 0:
            clock.now += 0.25
            wait += 0.25
        waits.append(wait)
        g.probe("a")
        g.started("a", 1)
    assert waits == sorted(waits)
    assert waits[-1] > 4 * waits[0]


def test_a_success_opens_the_gate() -> None:
    """A feed that works again is not held back."""
    g, _ = gates()
    g.feed_failed("a", Place.DELIVERY, "key refused", 1)
    assert g.feed_succeeded("a", Place.DELIVERY)
    assert g.allowance("a") is None
    assert not g.feed_succeeded("a", Place.DELIVERY)


def test_a_server_is_closed_off_after_three_failures_in_a_row_for_every_feed_that_uses_it() -> None:
    """Single failures are chance; a server that keeps failing is probed by one file at a time, of one feed."""
    g, clock = gates()
    g.relate("a", "https://s")
    g.relate("b", "https://s")
    assert not g.host_failed("https://s", "down", None, 1)
    assert not g.host_failed("https://s", "down", None, 1)
    assert g.allowance("a") is None
    assert g.host_failed("https://s", "down", None, 1)
    assert g.allowance("a") == 0
    clock.now += 60
    assert g.allowance("a") == 1
    g.probe("a")
    assert g.allowance("b") == 0
    assert g.allowance("c") is None


def test_what_was_under_way_when_the_gate_closed_makes_nobody_wait_longer() -> None:
    """Sixteen uploads that fail together are one outage, not sixteen in a row."""
    g, clock = gates()
    g.relate("a", "https://s")
    closings = [g.host_failed("https://s", "down", None, 1) for _ in range(16)]
    assert closings.count(True) == 1
    clock.now += 0.5
    assert g.allowance("a") == 1


def test_a_success_between_failures_keeps_the_server_open() -> None:
    """A server that answers now and then with 503 is not closed off."""
    g, _ = gates()
    g.relate("a", "https://s")
    for _ in range(10):
        g.host_failed("https://s", "503", None, 1)
        g.host_failed("https://s", "503", None, 1)
        g.host_succeeded("https://s")
    assert g.allowance("a") is None


def test_retry_after_holds_the_next_probe_back() -> None:
    """What the server asked for is the least that is waited."""
    g, clock = gates()
    g.relate("a", "https://s")
    for _ in range(3):
        g.host_failed("https://s", "429", 120.0, 1)
    clock.now += 119
    assert g.allowance("a") == 0
    clock.now += 2
    assert g.allowance("a") == 1


def test_a_probe_that_ends_without_a_verdict_makes_room_for_the_next() -> None:
    """A probing file that vanished must not keep the gate closed for ever."""
    g, clock = gates()
    g.feed_failed("a", Place.DELIVERY, "key refused", 1)
    clock.now += 10
    g.probe("a")
    g.started("a", 2)
    g.ended("a", 1)
    assert g.allowance("a") == 0
    g.ended("a", 2)
    assert g.allowance("a") == 1


def test_the_next_probe_time_is_known() -> None:
    """The dispatcher can sleep until then."""
    g, clock = gates()
    assert g.next_probe(["a"]) is None
    g.feed_failed("a", Place.DELIVERY, "x", 1)
    assert g.next_probe(["a"]) == clock.now + 0.5
    assert g.next_probe(["b"]) is None


def test_a_feed_waits_for_the_last_of_its_gates() -> None:
    """A gate that could let a probe through does not keep the dispatcher awake while another one is shut."""
    g, clock = gates()
    g.feed_failed("a", Place.DELIVERY, "x", 1)
    clock.now += 10
    g.relate("a", "https://s")
    for _ in range(3):
        g.host_failed("https://s", "429", 60.0, 1)
    assert g.next_probe(["a"]) == clock.now + 60
    clock.now += 60
    g.probe("a")
    assert g.next_probe(["a"]) is None


def test_delivery_and_archive_are_blocked_apart() -> None:
    """An archive that cannot be written is not opened by a delivery, nor the other way round."""
    g, _ = gates()
    g.feed_failed("a", Place.ARCHIVE, "no permission", 1)
    assert not g.feed_succeeded("a", Place.DELIVERY)
    assert g.allowance("a") == 0
    assert g.feed_succeeded("a", Place.ARCHIVE)
    assert g.allowance("a") is None


def test_what_is_closed_can_be_told_with_since_when_and_what_is_next() -> None:
    """Since the moment at which it closed, whatever failed after that; a probe under way is what is next."""
    g, clock = gates()
    g.relate("a", "https://s")
    g.relate("b", "https://s")
    assert g.closed() == []
    g.feed_failed("a", Place.DELIVERY, "key refused", 1, remedy="give it another")
    began = clock.now
    clock.now += 5
    g.probe("a")
    g.started("a", 2)
    g.feed_failed("a", Place.DELIVERY, "key refused still", 2, remedy="give it another")
    assert g.closed() == [
        Closed(
            "a", Place.DELIVERY, "key refused still", "give it another", began, None, frozenset({"a"}),
        )
    ]  # fmt: skip
    g.ended("a", 2)
    [told] = g.closed()
    assert told.next_probe is not None
    assert told.next_probe > clock.now
    assert g.feed_succeeded("a", Place.DELIVERY)
    for _ in range(2):
        g.host_failed("https://s", "503", None, 1)
    assert g.closed() == []
    clock.now += 1
    g.host_failed("https://s", "503", None, 1)
    [server] = g.closed()
    assert (server.name, server.place, server.since) == ("https://s", None, clock.now)
    assert server.feeds == {"a", "b"}
