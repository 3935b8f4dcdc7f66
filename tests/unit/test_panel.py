"""What the daemon says of its own health, where a real one cannot be brought to it."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tablefeed.errors import LedgerUnusable
from tablefeed.ledger import engine
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


@pytest.mark.parametrize(
    ("url", "node", "todo", "hangs"),
    [
        ("sqlite:////nowhere", "", "free space on the ledger's disk", "disk"),
        ("postgresql+psycopg://db/x", "north", "start PostgreSQL, or mend the way to it", "server"),
    ],
)
async def test_a_ledger_that_cannot_be_used_is_told_with_what_to_do_about_its_kind(
    monkeypatch: pytest.MonkeyPatch, url: str, node: str, todo: str, hangs: str
) -> None:
    """Also where it gives no answer, as PostgreSQL does while it is away."""
    monkeypatch.setattr("tablefeed.panel._PATIENCE", 0.01)

    async def never(_after: int) -> None:
        await asyncio.Event().wait()

    def problems(trouble: str) -> Any:
        ledger = SimpleNamespace(next_due=never, trouble=trouble, node=node, remedy=engine.while_it_waits(url))
        return panel_of(ledger=ledger).problems()

    assert await problems("it is away") == [f"the ledger cannot be written: it is away; {todo}"]
    assert await problems("") == [f"the ledger does not answer; does its {hangs} hang?"]


async def test_a_feed_whose_directory_is_away_is_told_as_that() -> None:
    """Its first scan failed, which is not to wait for."""
    panel = panel_of(intakes={"orders": intake(begun=False)}, troubles={"orders": "/srv/orders does not exist"})
    assert await panel.problems() == ["orders: /srv/orders does not exist"]


async def test_a_dispatcher_that_has_ended_needs_a_restart() -> None:
    """Nothing would be sent any more."""
    assert await panel_of().ailments() == []
    [ailment] = await panel_of(dispatcher=SimpleNamespace(ended=True)).ailments()
    assert "dispatcher has ended" in ailment


@pytest.mark.parametrize("what", ["pause", "resume"])
async def test_a_pause_that_cannot_be_kept_is_refused_at_once(what: str) -> None:
    """It would give no answer for as long as the ledger cannot be written; nothing of it is tried."""
    ledger = SimpleNamespace(
        next_due=nothing_due, trouble="PostgreSQL is away", node="north", remedy="start PostgreSQL"
    )
    panel = panel_of(ledger=ledger, pauses=SimpleNamespace())
    with pytest.raises(LedgerUnusable, match=r"Nothing was changed, .*PostgreSQL is away; start PostgreSQL"):
        await getattr(panel, what)("orders")
