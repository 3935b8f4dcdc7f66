"""Feeds that somebody has paused."""

from structlog.testing import capture_logs

from support.ledgers import Clock
from tablefeed.pauses import Pauses


class Store:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, int | None]] = []

    async def set_paused(self, feed: str, since: int | None) -> None:
        self.kept.append((feed, since))


async def test_a_pause_is_kept_and_told_once_and_its_end_wakes_the_dispatcher() -> None:
    """Pausing what is paused and resuming what is not change nothing."""
    store, clock = Store(), Clock()
    woken: list[str] = []
    pauses = Pauses(store, woken.append, clock=clock)
    assert not await pauses.resume("orders")
    with capture_logs() as logs:
        assert await pauses.pause("orders")
        assert not await pauses.pause("orders")
        assert "orders" in pauses
        assert ([*pauses], pauses.since("orders"), pauses.since("other")) == (["orders"], clock.ms, None)
        assert woken == []
        assert await pauses.resume("orders")
        assert not await pauses.resume("orders")
    assert "orders" not in pauses
    assert woken == ["orders"]
    assert store.kept == [("orders", clock.ms), ("orders", None)]
    assert [log["event"] for log in logs] == ["feed_paused_by_hand", "feed_resumed_by_hand"]


async def test_a_pause_of_an_earlier_life_holds_and_is_told() -> None:
    """Nobody wonders at three in the morning why nothing is sent."""
    pauses = Pauses(Store(), lambda _: None, clock=Clock())
    with capture_logs() as logs:
        pauses.restore("orders", 77)
    assert pauses.since("orders") == 77
    assert [(log["event"], log["log_level"]) for log in logs] == [("feed_still_paused", "warning")]
