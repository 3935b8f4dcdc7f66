"""The limit that is found by trying, against stores that are simulated on a clock of their own."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablefeed.adaptive import FEW, LARGE, MOST, SMALL, SPARE, START, Adaptive, Outcome, Trial

USUAL = 0.05
"""Seconds in which the simulated stores answer when they are not crowded."""
BIG = SMALL + 1

Latency = Callable[[int, random.Random], float]
"""Seconds that an answer takes with so many requests at the store."""


def queues(most: int, spread: float = 0.1) -> Latency:
    """A store that works on so many at a time and lets the others wait."""
    return lambda at_once, chance: USUAL * max(1.0, at_once / most) * chance.uniform(1 - spread, 1 + spread)


def chokes(most: int) -> Latency:
    """A store that gets slower in all when there are more."""
    return lambda at_once, chance: USUAL * max(1.0, at_once / most) ** 3 * chance.uniform(0.9, 1.1)


def jitters(sigma: float) -> Latency:
    """A store whose answers take very different times, however many there are."""
    return lambda _, chance: USUAL * chance.lognormvariate(0, sigma)


def takes_all(at_once: int, chance: random.Random) -> bool:
    """A store that refuses nothing."""
    return False


@dataclass
class World:
    """A store, and a sender with always more to send, or with `senders` files at a time at most."""

    latency: Latency
    refuses: Callable[[int, random.Random], bool] = takes_all
    size: int = 1000
    senders: int = 1000
    now: float = 0.0
    adaptive: Adaptive = field(default_factory=Adaptive)
    limits: list[tuple[float, int]] = field(default_factory=list)
    delivered: int = 0
    refused: int = 0

    def __post_init__(self) -> None:
        self._chance = random.Random(7)
        self._order = count()
        self._ends: list[tuple[float, int, Trial, Outcome, float]] = []
        self._at_store = 0

    def run(self, seconds: float) -> "World":
        """Let so much time go by."""
        until = self.now + seconds
        while self.now < until:
            while len(self._ends) < min(self.adaptive.limit, self.senders):
                self._begin()
            self._end()
        return self

    def _begin(self) -> None:
        trial = self.adaptive.begin(self.size, len(self._ends) + 1)
        outcome, seconds = Outcome.REFUSED, 0.001
        if not self.refuses(self._at_store, self._chance):
            self._at_store += 1
            outcome, seconds = Outcome.ANSWERED, self.latency(self._at_store, self._chance)
        heapq.heappush(self._ends, (self.now + seconds, next(self._order), trial, outcome, seconds))

    def _end(self) -> None:
        self.now, _, trial, outcome, seconds = heapq.heappop(self._ends)
        if outcome is Outcome.ANSWERED:
            self._at_store -= 1
            self.delivered += 1
            self.adaptive.observe(trial, outcome, seconds, self.now)
        else:
            self.refused += 1
            self.adaptive.observe(trial, outcome, None, self.now)
        self.limits.append((self.now, self.adaptive.limit))

    def between(self, since: float) -> tuple[int, int]:
        """The least and the greatest limit since then."""
        limits = [limit for at, limit in self.limits if at >= since]
        return min(limits), max(limits)


@pytest.mark.parametrize("most", [4, 8, 16, 30])
@pytest.mark.parametrize("store", [queues, chokes])
def test_it_settles_near_what_a_store_takes_before_it_slows_down(store: Callable[[int], Latency], most: int) -> None:
    """Within half and double of it, and for good: it does not creep upwards with the delay that it causes."""
    least, greatest = World(store(most)).run(25).between(10)
    assert most / 2 <= least <= greatest <= 2 * most


@pytest.mark.parametrize("most", [1, 3, 8, 20])
def test_it_settles_at_what_a_store_takes_before_it_refuses(most: int) -> None:
    """And tries more the more seldom the more often that was refused, so that hardly anything is."""
    world = World(queues(1000), lambda at_store, _: at_store >= most).run(60)
    least, greatest = world.between(10)
    assert most / 2 <= least <= greatest <= most + 1
    assert world.refused <= 40


@pytest.mark.parametrize("sigma", [0.1, 0.7, 1.2])
def test_times_that_differ_by_chance_hold_nothing_back(sigma: float) -> None:
    """What counts is whether they are longer than with few uploads."""
    world = World(jitters(sigma)).run(30)
    assert world.between(25)[0] >= MOST * 0.7


def test_a_store_that_refuses_now_and_then_for_no_reason_still_gets_many() -> None:
    """One in a thousand costs a tenth for a moment."""
    world = World(queues(1000), lambda _, chance: chance.random() < 0.001).run(60)
    assert world.delivered / 60 > 0.4 * MOST / USUAL


def test_a_path_that_has_become_longer_is_not_taken_for_a_crowd_for_ever() -> None:
    """The limit falls to where the usual time is measured anew, and grows again from there."""
    world = World(queues(1000)).run(5)
    world.latency = lambda _, __: 5 * USUAL
    world.run(60)
    assert world.between(60)[0] >= MOST * 0.8


def test_it_recovers_after_trouble() -> None:
    """When a store that took two takes all again, there is no trace of it after a while."""
    world = World(queues(1000), lambda at_store, _: at_store >= 2).run(20)
    assert world.adaptive.limit <= 3
    world.refuses = takes_all
    world.run(60)
    assert world.adaptive.limit == MOST


def test_an_outage_leaves_no_trace() -> None:
    """What is refused while it is alone is not refused for its number: growth begins anew, in large steps."""
    world = World(queues(1000), lambda _, __: True).run(5)
    assert world.adaptive.limit == 1
    world.refuses = takes_all
    world.run(2)
    assert world.adaptive.limit >= MOST / 2


def test_the_usual_time_is_measured_also_where_larger_files_came_first() -> None:
    """They make room before any small file was seen; a crowd of those does not count as usual."""
    world = World(queues(8))
    larger = [world.adaptive.begin(BIG, n + 1) for n in range(START)]
    for trial in larger:
        world.adaptive.observe(trial, Outcome.COMES, None, 0.0)
    for trial in larger:
        world.adaptive.observe(trial, Outcome.ANSWERED, None, 0.0)
    world.adaptive.limit = LARGE + SPARE
    least, greatest = world.run(30).between(10)
    assert 4 <= least <= greatest <= 16


def test_few_files_teach_nothing() -> None:
    """Where fewer run than might, the limit stays, however well that goes, or badly for other reasons."""
    world = World(queues(1000), senders=2).run(30)
    assert world.between(0) == (START, START)
    world = World(queues(1000)).run(10)
    world.senders = 20
    world.run(1)
    world.latency = lambda _, __: 1.0
    world.run(30)
    assert world.between(11) == (MOST, MOST)


def test_larger_files_grow_to_a_number_that_fills_any_link_and_no_further() -> None:
    """That the store lets them come is enough for it: their ends, hours away, are not waited for."""
    adaptive = Adaptive()
    running = 0
    for _ in range(100):
        if running < adaptive.limit and adaptive.has_room_for_larger:
            running += 1
            adaptive.observe(adaptive.begin(BIG, running), Outcome.COMES, None, 0.0)
    assert running == LARGE
    assert adaptive.limit <= LARGE + SPARE


def test_what_small_files_take_beside_larger_ones_does_not_count() -> None:
    """They queue behind those on the link, and say nothing of the store."""
    world = World(queues(1000)).run(5)
    before = world.adaptive.limit
    world.adaptive.begin(BIG, 1)
    world.latency = lambda _, __: 10.0
    world.run(60)
    assert world.adaptive.limit == before


def test_one_crowd_makes_one_cut() -> None:
    """All that was under way at the first refusal may be refused, and takes no more than a tenth."""
    adaptive = World(queues(1000)).run(5).adaptive
    before = adaptive.limit
    for _ in range(before):
        adaptive.observe(adaptive.begin(1, 1), Outcome.ANSWERED, USUAL, 9.0)
    crowd = [adaptive.begin(1, n + 1) for n in range(before)]
    for trial in crowd:
        adaptive.observe(trial, Outcome.REFUSED, None, 9.0)
    assert adaptive.limit == int(before * 0.9)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "begin", "begin", *Outcome]),
        st.integers(0, 100),
        st.floats(0, 100, allow_nan=False),
        st.sampled_from([1, BIG]),
    ),
    max_size=300,
)


@given(STEPS)
def test_whatever_happens_the_limit_keeps_its_bounds_and_its_steps(
    steps: list[tuple[str | Outcome, int, float, int]],
) -> None:
    """Never below 1 nor above the ceiling; refusals make it fall, once for all that had begun before."""
    adaptive = Adaptive()
    running: list[tuple[int, Trial]] = []
    cuts = 0
    now = 0.0
    for step, which, seconds, size in steps:
        now += seconds / 10
        before = adaptive.limit
        if step == "begin":
            running.append((cuts, adaptive.begin(size, len(running) + 1)))
            assert adaptive.limit == before
            continue
        if not running:
            continue
        began_after, trial = running[which % len(running)]
        assert isinstance(step, Outcome)
        if step is not Outcome.COMES:
            running.remove((began_after, trial))
        adaptive.observe(trial, step, seconds if step is Outcome.ANSWERED else None, now)
        assert 1 <= adaptive.limit <= MOST
        assert adaptive.limit <= 2 * before
        if step is Outcome.REFUSED:
            assert adaptive.limit <= before
            if adaptive.limit < before:
                assert began_after == cuts
                cuts += 1
        elif step is Outcome.FAILED or len(running) + 1 < before < FEW:
            assert adaptive.limit == before
