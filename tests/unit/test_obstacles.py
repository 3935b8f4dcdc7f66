"""What is in the way of feeds: as it is shown, and as other nodes are told."""

from support.ledgers import Clock
from tablefeed.clock import on_wall
from tablefeed.gates import HOST_THRESHOLD, Gates, Place
from tablefeed.links import Unusable
from tablefeed.nodes import NodeTrouble
from tablefeed.obstacles import Obstacles

API = "https://api.example"


def test_others_are_told_all_that_is_in_the_way_and_what_needs_somebody_first() -> None:
    """With its reason, its remedy and since when, as it is shown here; nothing of it once it is mended."""
    steady, wall = Clock(1_000.0), Clock()
    gates = Gates(steady, lambda: 0.5)
    unusable: dict[str, Unusable] = {}
    obstacles = Obstacles(unusable, gates, on_wall(wall, steady))
    feeds = ("a", "b", "z")
    for feed in feeds:
        gates.relate(feed, API)
    assert obstacles.for_others(feeds) == []
    began = wall.ms
    unusable["z"] = Unusable("it is away", "Mount it", 7)
    for number in range(HOST_THRESHOLD):
        gates.host_failed(API, "it does not answer", None, number)
    gates.feed_failed("b", Place.ARCHIVE, "the disk is full", 8, remedy="Make room")
    gates.feed_failed("b", Place.DELIVERY, "the key is refused", 9, remedy="Give it another")
    steady.now += 60
    wall.now += 60
    nothing = "Nothing: its files are sent when it works again"
    assert obstacles.for_others(feeds) == [
        NodeTrouble("z", "directory", "it is away", "Mount it", 7),
        NodeTrouble("b", "delivery", "the key is refused", "Give it another", began),
        NodeTrouble("b", "archive", "the disk is full", "Make room", began),
        *(NodeTrouble(feed, "server", "it does not answer", nothing, began) for feed in feeds),
    ]
    assert {(it.kind, it.reason, it.since) for it in obstacles.of("b", gates.closed())} == {
        (it.kind, it.reason, it.since) for it in obstacles.for_others(feeds) if it.feed == "b"
    }
    del unusable["z"]
    gates.host_succeeded(API)
    for place in Place:
        gates.feed_succeeded("b", place)
    assert obstacles.for_others(feeds) == []
