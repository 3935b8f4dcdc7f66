"""What the rooms that are tied together say of it."""

import pytest
from structlog.testing import capture_logs

from support.ledgers import version
from tablefeed.dispatch import Front
from tablefeed.errors import DiskTrouble, FeedBlocked
from tablefeed.links import Links


@pytest.mark.parametrize(
    ("error", "remedy"),
    [(FeedBlocked("it is gone", "Create it"), "Create it"), (DiskTrouble("/srv", "it is stale"), "Bring its disk")],
)
def test_a_directory_that_cannot_be_read_is_told_with_what_to_do(error: FeedBlocked | DiskTrouble, remedy: str) -> None:
    """In the log, and where it is shown."""
    links = Links(lambda: 0.0)
    with capture_logs() as logs:
        links.trouble("orders")(error)
    assert logs[0]["remedy"].startswith(remedy)
    assert links.troubles["orders"].remedy.startswith(remedy)


def test_what_holds_a_strict_feed_is_told_once_for_each_reason() -> None:
    """The last line of the log names what it still waits for, however often somebody looks meanwhile."""
    links = Links(lambda: 0.0)
    moving, empty = Front(version("a.csv"), "it changed a moment ago"), Front(version("a.csv"), "it is empty")
    with capture_logs() as logs:
        for front in (moving, moving, empty, moving, empty, Front(version("b.csv"), "it is empty")):
            links.held("orders", front)
    assert [(line["path"], line["reason"]) for line in logs] == [
        ("a.csv", "it changed a moment ago"),
        ("a.csv", "it is empty"),
        ("b.csv", "it is empty"),
    ]
