import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.ledgers import Clock
from tablefeed.adaptive import LARGE, SPARE, START
from tablefeed.slots import Draining, FairSlots, Share, Slot

STORE = "https://store.example"


def equal(feed: str) -> Share:
    return Share(limit=0, priority=0)


def made(limit: int | None, share: Callable[[str], Share] = equal) -> FairSlots:
    return FairSlots(limit, share, clock=Clock())


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


class Holder:
    """Tasks that take a slot and hold it until told otherwise."""

    def __init__(self, slots: FairSlots) -> None:
        self.slots = slots
        self.order: list[str] = []
        self.held: list[Slot] = []
        self.gates: list[asyncio.Event] = []
        self.tasks: list[asyncio.Task[None]] = []

    def take(self, feed: str, origin: str = STORE, size: int = 1) -> asyncio.Task[None]:
        async def hold() -> None:
            async with self.slots.slot(feed, origin, size) as slot:
                self.order.append(feed)
                self.held.append(slot)
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
    holder = Holder(made(1))
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
    slots = made(3, lambda feed: Share(limit=1 if feed == "one" else 0, priority=0))
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
    slots = made(1)
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
    slots = made(1)
    holder = Holder(slots)
    holder.take("a")
    await settle()
    waiting = holder.take("b")
    await settle()
    slots.drain()
    with pytest.raises(Draining):
        await waiting
    with pytest.raises(Draining):
        async with slots.slot("a", STORE, 1):
            pass
    assert slots.busy == 1
    await holder.run_out()


PLAN = st.lists(st.one_of(st.sampled_from("abcd"), st.just("end")), max_size=60)


@given(PLAN, st.integers(1, 3), st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=4, max_size=4))
def test_the_next_feed_is_allowed_most_important_and_longest_unserved(
    steps: list[str], limit: int, settings: list[tuple[int, int]]
) -> None:
    """Limits first, then priority, then turns; a slot stays empty only when no feed that waits may have it."""
    shares = {feed: Share(*pair) for feed, pair in zip("abcd", settings, strict=True)}

    async def play() -> None:
        holder = Holder(made(limit, shares.__getitem__))
        asked: Counter[str] = Counter()
        served: dict[str, int] = {}
        busy: Counter[str] = Counter()
        ended = seen = 0
        for step in steps:
            if step != "end":
                holder.take(step)
                asked[step] += 1
            elif ended < len(holder.gates):
                holder.gates[ended].set()
                busy[holder.order[ended]] -= 1
                ended += 1
            await settle()
            while True:
                allowed = [f for f in asked if asked[f] and (not shares[f].limit or busy[f] < shares[f].limit)]
                if busy.total() >= limit or not allowed:
                    break
                got = holder.order[seen]
                assert got in allowed
                rank = {f: (shares[f].priority, -served.get(f, -1)) for f in allowed}
                assert rank[got] == max(rank.values())
                served[got] = seen
                asked[got] -= 1
                busy[got] += 1
                seen += 1
            assert len(holder.order) == seen
        for task in holder.tasks:
            task.cancel()

    asyncio.run(play())


async def test_a_store_that_takes_few_holds_up_no_other() -> None:
    """Each store has a limit of its own: what waits for one that refuses leaves the slots to the other's files."""
    slots = made(None)
    holder = Holder(slots)
    for _ in range(20):
        holder.take("a", "https://slow.example")
    await settle()
    for slot in holder.held[:]:
        slot.refused()
    limits = dict(slots.stores())
    assert limits == {"https://slow.example": START // 2}
    for _ in range(2):
        holder.take("b", "https://fast.example")
    await settle()
    assert Counter(holder.order) == {"a": START, "b": 2}
    for _ in range(20):
        holder.take("b", "https://fast.example")
    await settle()
    assert Counter(holder.order) == {"a": START, "b": START}
    assert slots.most_of("a") == START // 2
    assert slots.most_of("b") == START
    assert slots.limit == START // 2 + START


async def test_larger_files_leave_slots_to_small_ones() -> None:
    """Sixteen of the larger at a time, whatever the limit has grown to; a small one passes those that wait."""
    slots = made(None)
    holder = Holder(slots)
    for _ in range(40):
        holder.take("a", size=2**30)
    for _ in range(8):
        await settle()
        for slot in holder.held[:]:
            slot.comes()
    assert len(holder.order) == slots.busy == LARGE
    assert slots.limit == LARGE + SPARE
    holder.take("a", size=1)
    await settle()
    assert slots.busy == LARGE + 1


async def test_a_configured_number_is_kept_to_exactly() -> None:
    """Nothing that a store answers changes it, and it holds for all stores together."""
    slots = made(3)
    holder = Holder(slots)
    for number in range(9):
        holder.take("a", f"https://{number % 2}.example", size=2**30)
    await settle()
    for slot in holder.held[:]:
        slot.comes()
        slot.refused()
    await settle()
    assert len(holder.order) == slots.limit == 3
    assert not slots.most_of("a")
    assert not [*slots.stores()]


async def test_another_number_is_in_force_at_once() -> None:
    """A reload frees those who wait; holders keep their slots when it is a smaller one."""
    slots = made(1)
    holder = Holder(slots)
    for _ in range(20):
        holder.take("a")
    await settle()
    slots.change(5)
    await settle()
    assert slots.busy == 5
    slots.change(2)
    holder.gates[0].set()
    await settle()
    assert slots.busy == 4
    slots.change(None)
    await settle()
    assert slots.busy == slots.limit == START


async def test_who_fetches_files_is_told_of_growth() -> None:
    """More files must be claimed for it than the ones that end."""
    told: list[str] = []
    slots = FairSlots(None, equal, clock=Clock(), grown=told.append)
    holder = Holder(slots)
    for _ in range(3 * START):
        holder.take("a", size=2**30)
    await settle()
    for slot in holder.held[:]:
        slot.comes()
    assert told == ["a"]
    await settle()
    assert slots.busy == 2 * START


async def test_stores_that_nothing_is_sent_to_are_forgotten() -> None:
    """A signer that names another host for each file does not fill the memory."""
    slots = made(None)
    holder = Holder(slots)
    for number in range(300):
        holder.take("a", f"https://{number}.example")
        await holder.run_out()
    assert len([*slots.stores()]) <= 100
