"""What follows from each sign of life."""

import asyncio
from dataclasses import replace

from structlog.testing import capture_logs

from tablefeed.fleet import Fleet
from tablefeed.ledger.nodes import Beat, Node
from tablefeed.ledger.reports import understood
from tablefeed.nodes import NodeTrouble

ONE = Node("one", 1, 0, 90, 160, "1.0")
TWO = Node("two", 3, 0, 20, 80, "1.0")


class Ledger:
    """Answers each sign of life with what the test says."""

    def __init__(self, *beats: Beat) -> None:
        self.beats = list(beats)

        self.told: list[str] = []

    async def beat(self, troubles: str) -> Beat:
        self.told.append(troubles)
        return self.beats.pop(0)


class Noted:
    """What was called, in order."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.troubles: list[NodeTrouble] = []

    def fleet(self, ledger: Ledger) -> Fleet:
        def call(what: str) -> None:
            self.calls.append(what)

        return Fleet(
            ledger,
            "one",
            60.0,
            sleep=asyncio.sleep,
            lost=lambda: call("lost"),
            came_free=lambda: call("came_free"),
            counted=lambda nodes: call(f"{nodes} live"),
            beaten=lambda: call("beaten"),
            troubles=lambda: self.troubles,
        )


async def test_each_sign_of_life_tells_who_lives_and_lets_what_is_paused_be_looked_up() -> None:
    """So that a pause counts here also where nobody could tell of it."""
    noted = Noted()
    fleet = noted.fleet(Ledger(Beat(100, True, (ONE, TWO))))
    await fleet.turn()
    assert noted.calls == ["1 live", "beaten"]
    assert (fleet.living, fleet.now) == (["one"], 100)


async def test_a_lease_that_was_lost_and_nodes_that_are_over_are_told_and_acted_on() -> None:
    """This node begins anew; what others held may be claimed here."""
    noted = Noted()
    fleet = noted.fleet(Ledger(Beat(100, False, (ONE, TWO), 7, ("two",))))
    with capture_logs() as logs:
        await fleet.turn()
    assert noted.calls == ["lost", "came_free", "1 live", "beaten"]
    assert [(log["event"], log.get("files")) for log in logs] == [("lease_lost", None), ("nodes_over", 7)]


async def test_each_sign_of_life_tells_what_is_in_the_way_here() -> None:
    """In the same words while it lasts, though clocks are set right meanwhile, and nothing of it when it is mended."""
    noted = Noted()
    ledger = Ledger(*[Beat(100, True, (ONE,))] * 4)
    fleet = noted.fleet(ledger)
    noted.troubles = [NodeTrouble("orders", "delivery", "the key is refused", "Give it another key", 5_000)]
    await fleet.turn()
    noted.troubles = [replace(noted.troubles[0], since=5_009)]
    await fleet.turn()
    noted.troubles = [replace(noted.troubles[0], since=70_000)]
    await fleet.turn()
    noted.troubles = []
    await fleet.turn()
    assert ledger.told[0] == ledger.told[1]
    assert [[it.since for it in understood(text).troubles] for text in ledger.told] == [[5_000], [5_000], [70_000], []]
