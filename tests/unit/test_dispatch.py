import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.ledgers import Clock, version
from support.patience import PATIENCE
from tablefeed.dispatch import TICK, Dispatcher, Front, Hooks
from tablefeed.errors import LedgerUnusable
from tablefeed.gates import Gates, Place
from tablefeed.ledger import Want
from tablefeed.model import ApiAccess, Entry, Feed, State
from tablefeed.shares import Demand, plan

ACCESS = ApiAccess("https://api.example", "t", "k")

DEMANDS = st.lists(
    st.builds(
        Demand,
        feed=st.sampled_from("abcdefgh"),
        in_flight=st.integers(0, 5),
        limit=st.integers(0, 6),
        priority=st.integers(0, 2),
        allowance=st.none() | st.integers(0, 1),
    ),
    unique_by=lambda demand: demand.feed,
)


@given(DEMANDS, st.integers(0, 40))
def test_a_plan_keeps_all_limits_and_leaves_no_feed_out(demands: list[Demand], room: int) -> None:
    """Room, a feed's limit and its gates bound the claims; a feed with nothing in flight gets one all the same."""
    wants = plan(demands, room)
    by_feed = {demand.feed: demand for demand in demands}
    assert all(count > 0 for count in wants.values())
    extra = 0
    for feed, count in wants.items():
        demand = by_feed[feed]
        assert demand.allowance is None or count <= demand.allowance
        assert not demand.limit or count <= demand.limit - demand.in_flight
        extra += demand.in_flight == 0
    assert sum(wants.values()) <= room + extra
    for demand in demands:
        free = demand.allowance != 0 and (not demand.limit or demand.limit > demand.in_flight)
        if demand.in_flight == 0 and free:
            assert wants.get(demand.feed, 0) >= 1


@given(st.integers(1, 8), st.integers(8, 60))
def test_room_is_shared_evenly_between_equals(count: int, room: int) -> None:
    """No feed gets more than one file more than another."""
    wants = plan([Demand(name, 0, 0, 0, None) for name in "abcdefgh"[:count]], room)
    assert sum(wants.values()) == room
    assert max(wants.values()) - min(wants.values()) <= 1


def test_a_higher_priority_gets_the_room_and_the_lower_one_file() -> None:
    """Priority decides who goes first, and starves nobody."""
    wants = plan([Demand("low", 0, 0, 0, None), Demand("high", 0, 0, 5, None)], 10)
    assert wants == {"high": 10, "low": 1}


@pytest.fixture
def bench_clock() -> Clock:
    return Clock()


class Queue:
    """A queue in memory with the ledger's contract."""

    def __init__(self, **files: int) -> None:
        self.waiting = Counter(files)
        self.claims: list[list[Want]] = []
        self.later: list[tuple[int, str]] = []
        self._ids = 0

    async def claim(self, wants: Sequence[Want]) -> list[Entry]:
        self.claims.append(list(wants))
        await asyncio.sleep(0)
        entries = []
        for want in wants:
            for _ in range(min(want.limit, self.waiting[want.feed])):
                self.waiting[want.feed] -= 1
                self._ids += 1
                file = replace(version(f"{self._ids}.csv"), feed=want.feed)
                entries.append(Entry(self._ids, file, State.UPLOADING, 0))
        return entries

    async def feeds_due(self, after: int, until: int) -> list[str]:
        due = [feed for moment, feed in self.later if after < moment <= until]
        self.waiting.update(due)
        return due

    async def next_due(self, after: int) -> int | None:
        return min((moment for moment, _ in self.later if moment > after), default=None)

    async def bring_forward(self, milliseconds: int) -> None:
        self.later = [(moment - milliseconds, feed) for moment, feed in self.later]


class Bench:
    """A dispatcher over a queue, whose work waits until the test lets it end."""

    def __init__(
        self,
        queue: Queue,
        *names: str,
        slots: int = 4,
        slots_of: dict[str, int] | None = None,
        clock: Clock | None = None,
        strict: bool = False,
    ) -> None:
        self.queue = queue
        self.slots = slots
        self.clock = clock or Clock()
        self.set_back = 0.0
        """Seconds by which the wall clock has been set back."""
        self.started: list[str] = []
        self.let_go = asyncio.Event()
        self.error: Exception | None = None
        self.most = 0
        self.feeds = {name: Feed(name, Path("/d"), "t", ACCESS, strict=strict) for name in names}
        self.front: Front | None = Front()
        self.held: list[Front] = []
        self.lost: list[int] = []
        """Rows that were claimed and not begun."""
        self.paused: set[str] = set()
        self.gates = Gates(self.clock, lambda: 0.5)
        self.asked_gates = 0
        next_probe = self.gates.next_probe

        def counted(feeds: Iterable[str]) -> float | None:
            self.asked_gates += 1
            return next_probe(feeds)

        self.gates.next_probe = counted  # type: ignore[method-assign]
        self.dispatcher = Dispatcher(
            queue,
            self.feeds,
            self.gates,
            self._work,
            slots=lambda: self.slots,
            slots_of=lambda feed: (slots_of or {}).get(feed, 0),
            wall=lambda: self.clock() - self.set_back,
            steady=self.clock,
            paused=self.paused,
            hooks=Hooks(
                lambda _: self.front,
                lambda _, front: self.held.append(front),
                given_up=lambda row: self.lost.append(row),
            ),
        )

    async def _work(self, entry: Entry) -> None:
        self.started.append(entry.version.feed)
        self.most = max(self.most, self.dispatcher.in_flight)
        if self.error:
            while self.asked_gates == 0:  # the dispatcher has gone to sleep
                await asyncio.sleep(0)
            raise self.error
        await self.let_go.wait()

    @property
    def turns(self) -> int:
        """How often the gates were asked when to wake."""
        return self.asked_gates

    async def until(self, count: int) -> None:
        while len(self.started) < count:
            await asyncio.sleep(0)

    async def stop(self, running: asyncio.Task[None]) -> None:
        self.let_go.set()
        self.dispatcher.stop()
        await running


async def test_every_file_is_worked_on_once_and_never_too_many_at_a_time() -> None:
    """A thousand files through four slots: look-ahead is bounded, and the queue is emptied."""
    bench = Bench(Queue(a=500, b=500), "a", "b")
    running = asyncio.create_task(bench.dispatcher.run())
    bench.let_go.set()
    await bench.until(1000)
    await bench.stop(running)
    assert Counter(bench.started) == {"a": 500, "b": 500}
    assert bench.most <= 2 * 4 + 2 + 2


async def test_files_are_claimed_in_batches() -> None:
    """One claim serves several files, so that the ledger is not asked for each."""
    bench = Bench(Queue(a=1000), "a", slots=16)
    running = asyncio.create_task(bench.dispatcher.run())
    bench.let_go.set()
    await bench.until(1000)
    await bench.stop(running)
    assert len(bench.queue.claims) < 300


async def test_a_feed_that_wakes_late_starts_although_a_backlog_fills_the_room() -> None:
    """A backlog in one feed delays no other."""
    queue = Queue(big=1000)
    bench = Bench(queue, "big", "small")
    running = asyncio.create_task(bench.dispatcher.run())
    await bench.until(10)
    queue.waiting["small"] = 1
    bench.dispatcher.wake("small")
    await bench.until(11)
    await bench.stop(running)
    assert bench.started[10] == "small"


async def test_what_a_store_does_not_take_leaves_the_room_to_the_files_for_another() -> None:
    """Of a feed whose store takes two at a time, no more are claimed than those and the next ones."""
    bench = Bench(Queue(slow=1000, other=1000), "slow", "other", slots=16, slots_of={"slow": 2})
    running = asyncio.create_task(bench.dispatcher.run())
    await bench.until(2 * 16 + 2)
    await bench.stop(running)
    assert Counter(bench.started[:34]) == {"slow": 2 * 2 + 2, "other": 28}


async def test_more_files_are_claimed_when_there_are_more_slots() -> None:
    """Their number may change at any time; whoever changes it wakes the dispatcher."""
    bench = Bench(Queue(a=1000), "a")
    running = asyncio.create_task(bench.dispatcher.run())
    await bench.until(2 * 4 + 2)
    bench.slots = 8
    bench.dispatcher.wake("a")
    await bench.until(2 * 8 + 2)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(bench.started) == 18
    await bench.stop(running)


async def test_a_paused_feed_starts_one_probe_and_the_others_go_on() -> None:
    """One bad thing stops only itself."""
    bench = Bench(Queue(bad=100, good=3), "bad", "good")
    bench.gates.feed_failed("bad", Place.DELIVERY, "key refused", 0)
    bench.clock.now += 60
    running = asyncio.create_task(bench.dispatcher.run())
    await bench.until(4)
    for _ in range(50):
        await asyncio.sleep(0)
    assert Counter(bench.started) == {"bad": 1, "good": 3}
    await bench.stop(running)


@pytest.mark.parametrize("by", ["somebody", "a reload"])
async def test_nothing_is_claimed_of_a_feed_that_is_paused_until_it_goes_on(by: str) -> None:
    """Also when its files become due meanwhile; the dispatcher sleeps, and the others go on."""
    bench = Bench(Queue(held=3, other=1), "held", "other")
    paused = bench.paused if by == "somebody" else bench.dispatcher.held_back
    paused.add("held")
    running = asyncio.create_task(bench.dispatcher.run())
    await bench.until(1)
    bench.dispatcher.wake("held")
    for _ in range(50):
        await asyncio.sleep(0)
    assert bench.started == ["other"]
    assert {want.feed for claim in bench.queue.claims for want in claim} == {"other"}
    assert bench.turns < 10
    paused.clear()
    bench.dispatcher.wake("held")
    await bench.until(4)
    await bench.stop(running)
    assert Counter(bench.started) == {"held": 3, "other": 1}


async def test_a_retry_is_claimed_when_it_is_due() -> None:
    """Rows that wait for a later try are not lost between the wake-ups."""
    queue = Queue()
    bench = Bench(queue, "a")
    running = asyncio.create_task(bench.dispatcher.run())
    queue.later = [(bench.clock.ms + 50, "a")]
    bench.dispatcher.due_at(bench.clock.ms + 50)
    bench.clock.now += 0.06
    await bench.until(1)
    await bench.stop(running)
    assert bench.started == ["a"]


async def test_stop_waits_for_what_is_in_flight() -> None:
    """Nothing new is claimed, and what runs may finish."""
    bench = Bench(Queue(a=100), "a")
    running = asyncio.create_task(bench.dispatcher.run())
    await bench.until(10)
    bench.dispatcher.stop()
    for _ in range(50):
        await asyncio.sleep(0)
    assert not running.done()
    bench.let_go.set()
    await running
    assert len(bench.started) == 10


async def test_a_retry_that_was_told_after_its_time_is_found(bench_clock: Clock) -> None:
    """The commit that makes a row due may end after the ledger was asked about that moment."""
    queue = Queue()
    bench = Bench(queue, "a", clock=bench_clock)
    running = asyncio.create_task(bench.dispatcher.run())
    for _ in range(20):
        await asyncio.sleep(0)
    bench_clock.now += 1
    bench.dispatcher.due_at(bench_clock.ms)
    for _ in range(20):
        await asyncio.sleep(0)
    queue.later = [(bench_clock.ms - 500, "a")]
    bench.dispatcher.due_at(bench_clock.ms - 500)
    await bench.until(1)
    await bench.stop(running)


async def test_the_tick_finds_what_nobody_told_of(bench_clock: Clock) -> None:
    """A lost wake-up costs a tick and no file."""
    queue = Queue()
    bench = Bench(queue, "a", clock=bench_clock)
    running = asyncio.create_task(bench.dispatcher.run())
    for _ in range(20):
        await asyncio.sleep(0)
    queue.waiting["a"] = 1
    bench_clock.now += TICK + 1
    bench.dispatcher.due_at(bench_clock.ms + 10_000)
    await bench.until(1)
    await bench.stop(running)


async def test_an_error_in_a_worker_ends_the_dispatcher_at_once() -> None:
    """A daemon that can no longer deliver must not look alive."""
    bench = Bench(Queue(a=3), "a")
    bench.error = LedgerUnusable("the ledger is damaged", "Move it aside")
    running = asyncio.create_task(bench.dispatcher.run())
    ended, _ = await asyncio.wait((running,), timeout=PATIENCE)
    assert ended
    assert isinstance(running.exception(), ExceptionGroup)


async def test_two_shut_gates_do_not_keep_the_dispatcher_awake(bench_clock: Clock) -> None:
    """While an API could be probed and a store could not, it sleeps instead of turning round."""
    bench = Bench(Queue(a=3), "a", clock=bench_clock)
    bench.gates.relate("a", "https://api")
    bench.gates.relate("a", "https://store")
    for origin, asked in (("https://api", None), ("https://store", 3000.0)):
        for _ in range(3):
            bench.gates.host_failed(origin, "503", asked, 0)
    bench_clock.now += 100
    running = asyncio.create_task(bench.dispatcher.run())
    for _ in range(50):
        await asyncio.sleep(0)
    asked_before = bench.turns
    for _ in range(200):
        await asyncio.sleep(0)
    assert bench.turns == asked_before
    await bench.stop(running)


async def test_a_strict_feed_has_one_file_in_flight() -> None:
    """However many slots are free, and however many files wait."""
    bench = Bench(Queue(a=5), "a", strict=True)
    running = asyncio.create_task(bench.dispatcher.run())
    await bench.until(1)
    bench.let_go.set()
    await bench.until(5)
    await bench.stop(running)
    assert bench.most == 1
    assert all(want.strict and want.limit == 1 for wants in bench.queue.claims for want in wants)


async def test_a_strict_feed_waits_until_its_front_is_known() -> None:
    """Before all files have been seen nobody can say which is the first."""
    bench = Bench(Queue(a=1, b=1), "a", "b", strict=True)
    bench.feeds["b"] = replace(bench.feeds["b"], strict=False)
    bench.front = None
    running = asyncio.create_task(bench.dispatcher.run())
    await bench.until(1)
    assert bench.started == ["b"]
    bench.front = Front()
    bench.dispatcher.wake("a")
    await bench.until(2)
    await bench.stop(running)


async def test_what_holds_a_strict_feed_is_told() -> None:
    """The claim names the file that stands in front, and when nothing came of it that is reported."""
    bench = Bench(Queue(a=0), "a", strict=True)
    bench.front = Front(version("first.csv"), "it is empty")
    running = asyncio.create_task(bench.dispatcher.run())
    while not bench.held:
        await asyncio.sleep(0)
    await bench.stop(running)
    assert bench.queue.claims[0][0].ahead == version("first.csv")
    assert bench.held[0].reason == "it is empty"


async def test_a_feed_that_is_not_served_any_more_is_not_claimed() -> None:
    """Its name may still be among those to look at."""
    bench = Bench(Queue(a=3, b=1), "a", "b")
    del bench.feeds["a"]
    running = asyncio.create_task(bench.dispatcher.run())
    await bench.until(1)
    await bench.stop(running)
    assert bench.started == ["b"]


async def test_a_clock_that_is_set_back_makes_no_retry_later(bench_clock: Clock) -> None:
    """A file that waits for a second does so, though the wall clock goes back by an hour meanwhile."""
    queue = Queue(a=0)
    bench = Bench(queue, "a", clock=bench_clock)
    queue.later = [(bench_clock.ms + 1000, "a")]
    running = asyncio.create_task(bench.dispatcher.run())
    while bench.turns == 0:
        await asyncio.sleep(0)
    bench.set_back = 3600.0
    bench_clock.now += 1.1
    bench.dispatcher.wake("a")
    await bench.until(1)
    await bench.stop(running)


async def test_what_is_another_nodes_is_cut_off_and_what_was_claimed_since_goes_on() -> None:
    """Nobody would give back what this node holds, and works on no more; what ends makes room again."""
    bench = Bench(Queue(orders=4), "orders")
    running = asyncio.create_task(bench.dispatcher.run())
    await bench.until(4)
    bench.dispatcher.cut_off(lambda entry_id: entry_id > 2)
    while bench.dispatcher.in_flight > 2:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert bench.dispatcher.in_flight == 2
    bench.queue.waiting["orders"] = 1
    bench.dispatcher.wake("orders")
    await bench.until(5)
    await bench.stop(running)
    assert bench.dispatcher.in_flight == 0


async def test_what_was_claimed_and_not_begun_is_given_up_where_it_is_another_nodes() -> None:
    """The rest of the same claim is begun."""
    bench = Bench(Queue(orders=4), "orders")
    running = asyncio.create_task(bench.dispatcher.run())
    while not bench.dispatcher._ready:
        await asyncio.sleep(0)
    bench.dispatcher.cut_off(lambda entry_id: entry_id > 3)
    await bench.until(1)
    assert (bench.lost, bench.dispatcher.in_flight) == ([1, 2, 3], 1)
    await bench.stop(running)
