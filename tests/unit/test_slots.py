import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablefeed.slots import Draining, FairSlots, Share, choose


def equal(feed: str) -> Share:
    return Share(limit=0, priority=0)


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


class Holder:
    """Tasks that take a slot and hold it until told otherwise."""

    def __init__(self, slots: FairSlots) -> None:
        self.slots = slots
        self.order: list[str] = []
        self.gates: list[asyncio.Event] = []
        self.tasks: list[asyncio.Task[None]] = []

    def take(self, feed: str) -> asyncio.Task[None]:
        async def hold() -> None:
            async with self.slots.slot(feed):
                self.order.append(feed)
                gate = asyncio.Event()
                self.gates.append(gate)
                await gate.wait()

        self.tasks.append(asyncio.create_task(hold()))
        return self.tasks[-1]

    async def run_out(self) -> None:
        index = 0
        while index < len(self.gates):
            self.gates[index].set()
            index += 1
            await settle()


async def test_a_backlog_in_one_feed_does_not_delay_another() -> None:
    """A feed that comes late gets the next slot, whatever waits in the others."""
    holder = Holder(FairSlots(1, equal))
    for _ in range(10):
        holder.take("big")
    await settle()
    holder.take("small")
    await settle()
    await holder.run_out()
    assert holder.order[:2] == ["big", "small"]
    assert len(holder.order) == 11


async def test_no_more_than_the_limits_run_at_a_time() -> None:
    """The global limit and a feed's own limit both hold."""
    slots = FairSlots(3, lambda feed: Share(limit=1 if feed == "one" else 0, priority=0))
    holder = Holder(slots)
    for _ in range(4):
        holder.take("one")
        holder.take("many")
    await settle()
    assert sorted(holder.order) == ["many", "many", "one"]
    assert slots.busy == 3
    await holder.run_out()
    assert slots.busy == 0


async def test_a_cancelled_waiter_leaves_no_slot_behind() -> None:
    """A task that is cut off, before or after its slot was given, does not use it up."""
    slots = FairSlots(1, equal)
    holder = Holder(slots)
    holder.take("a")
    await settle()
    waiting = holder.take("a")
    await settle()
    waiting.cancel()
    holder.gates[0].set()
    await settle()
    holder.take("a")
    await settle()
    assert holder.order == ["a", "a"]
    late = holder.take("a")
    await settle()
    holder.gates[1].set()
    late.cancel()
    await settle()
    assert slots.busy == 0


async def test_draining_turns_waiters_away_and_lets_holders_finish() -> None:
    """No new upload starts once the daemon ends."""
    slots = FairSlots(1, equal)
    holder = Holder(slots)
    holder.take("a")
    await settle()
    waiting = holder.take("b")
    await settle()
    slots.drain()
    with pytest.raises(Draining):
        await waiting
    with pytest.raises(Draining):
        async with slots.slot("a"):
            pass
    assert slots.busy == 1
    await holder.run_out()


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 50), min_size=1),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 4)),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=6, max_size=6),
)
def test_the_chosen_feed_is_allowed_most_important_and_longest_unserved(
    waiting: dict[str, int], busy: dict[str, int], settings: list[tuple[int, int]]
) -> None:
    """Limits first, then priority, then turns; a slot stays empty only when no feed that waits may have it."""
    shares = {feed: Share(*pair) for feed, pair in zip("abcdef", settings, strict=True)}
    allowed = [f for f in waiting if shares[f].limit == 0 or busy.get(f, 0) < shares[f].limit]
    chosen = choose(waiting, busy, shares)
    if chosen is None:
        assert not allowed
    else:
        assert chosen in allowed
        assert all((shares[chosen].priority, waiting[chosen]) >= (shares[f].priority, waiting[f]) for f in allowed)
