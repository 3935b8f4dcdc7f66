"""What the daemon says of its own health, where a real one cannot be brought to it."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from tablefeed.panel import Panel


async def nothing_due(_after: int) -> None:
    return None


async def no_problem() -> str:
    return ""


def panel_of(**parts: Any) -> Panel:
    """A panel over these parts; the others are well."""
    well = {
        "ledger": SimpleNamespace(next_due=nothing_due, trouble="", node=""),
        "intakes": {},
        "troubles": {},
        "roster": SimpleNamespace(ended=list),
        "dispatcher": SimpleNamespace(ended=False),
        "pulse": SimpleNamespace(problem=no_problem),
        "reader": SimpleNamespace(url="sqlite:////nowhere"),
        "feeds": {},
    }
    overview = SimpleNamespace(draining=False)
    return Panel(cast("Any", SimpleNamespace(**well | parts)), cast("Any", overview))


def intake(*, begun: bool) -> Any:
    first_scan = asyncio.Event()
    if begun:
        first_scan.set()
    return SimpleNamespace(first_scan=first_scan)


async def test_a_daemon_is_not_ready_before_every_first_scan_has_begun() -> None:
    """Nor is it when a directory cannot be read; what a reload adds later makes it unready no more."""
    intakes = {f"feed-{n}": intake(begun=False) for n in range(8)}
    panel = panel_of(intakes=intakes)
    [problem] = await panel.problems()
    assert problem == "the first scan of feed-0, feed-1, feed-2, feed-3, feed-4 and of 3 others has not begun"
    for name in [*intakes][1:]:
        intakes[name].first_scan.set()
    assert await panel.problems() == ["the first scan of feed-0 has not begun"]
    intakes["feed-0"].first_scan.set()
    assert await panel.problems() == []
    intakes["new"] = intake(begun=False)
    assert await panel.problems() == []


async def test_a_feed_whose_directory_is_away_is_told_as_that() -> None:
    """Its first scan failed, which is not to wait for."""
    panel = panel_of(intakes={"orders": intake(begun=False)}, troubles={"orders": "/srv/orders does not exist"})
    assert await panel.problems() == ["orders: /srv/orders does not exist"]


async def test_a_dispatcher_that_has_ended_needs_a_restart() -> None:
    """Nothing would be sent any more."""
    assert await panel_of().ailments() == []
    [ailment] = await panel_of(dispatcher=SimpleNamespace(ended=True)).ailments()
    assert "dispatcher has ended" in ailment
