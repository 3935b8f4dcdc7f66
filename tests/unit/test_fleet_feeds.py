"""What a node shows of feeds that only others serve."""

from collections.abc import ItemsView

from tablefeed.fleetstatus import feeds_of_all
from tablefeed.ledger.census import Census
from tablefeed.ledger.feeds import FeedRecord
from tablefeed.ledger.schema import FeedKey
from tablefeed.nodes import FleetStatus, NodeStatus


class Counted(dict[FeedKey, FeedRecord]):
    """Counts how often all of it is gone through."""

    searches = 0

    def items(self) -> ItemsView[FeedKey, FeedRecord]:  # type: ignore[override]
        self.searches += 1
        return super().items()


def test_what_is_known_of_feeds_elsewhere_is_gone_through_once() -> None:
    """However many those are: a fleet has thousands, and each look at the whole does this on the event loop."""
    names = ("items", "orders", "stocks")
    nodes = tuple(NodeStatus(node, node == "here", True, 0, 0, "1", names) for node in ("here", "one", "two"))
    known = Counted(
        ((node, name), FeedRecord(name, node, 1, moment, None, None, None))
        for name in names
        for node, moment in (("", 5), ("one", 7), ("gone", 9))
    )
    feeds = feeds_of_all((), FleetStatus(1, 3, 0, nodes), Census(feeds=known), lambda _: (0, 0))
    assert [(feed.name, feed.last_arrival_at) for feed in feeds] == [(name, 7) for name in names]
    assert known.searches <= 1
