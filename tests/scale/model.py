"""A fleet of nodes and one PostgreSQL as a discrete-event model. All times are seconds.

A *lot* is a few files of one node that go their way together; a file alone is a lot of one. A lot makes five changes
of the ledger, one after the other. A node commits what has gathered while its last commit ran as one transaction
(group commit), and PostgreSQL flushes the commits of all nodes that are ready together.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from random import Random
from typing import Any

from scale.postgres import Postgres
from scale.world import Change, Load, Outcome, World


class Node:
    """One daemon."""

    __slots__ = ("beat", "beat_due", "committing", "cpu_free", "is_busy", "waiting")

    def __init__(self) -> None:
        self.is_busy = False
        """It waits for a commit."""
        self.waiting: list[Lot] = []
        self.committing: list[Lot] = []
        self.beat_due: float | None = None
        """Since when a heartbeat waits for the next commit."""
        self.beat: float | None = None
        """The same for one that is in this commit."""
        self.cpu_free = 0.0


class Lot:
    """Files on their way."""

    __slots__ = ("change", "node", "since", "waited")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.change = Change.QUEUED
        self.since = 0.0
        self.waited = 0.0


@dataclass(slots=True)
class _Mark:
    """The counters at one time."""

    now: float
    files: int
    transactions: int
    busy: float
    wal: float
    calls: int
    locked: float


class Fleet:
    """So many nodes under a load."""

    def __init__(self, world: World, load: Load, nodes: int, *, seed: int = 1) -> None:
        self._world = world
        self._load = load
        self._nodes = [Node() for _ in range(nodes)]
        self._random = Random(seed)
        self._postgres = Postgres(world.cores, world.flush, world.wal_rate)
        self._now = 0.0
        self._number = 0
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._api_free = 0.0
        self._calls = 0
        self._files = 0
        self._delays: list[float] = []
        self._slowest_beat = 0.0
        self._row_waits: deque[Node] = deque()
        """Nodes whose commit waits for the shared feed's row."""
        self._row_holder: Node | None = None
        self._locked = self._locked_at = 0.0
        self._lot_wal = world.wal_of_row * load.lot
        self._lot_rows = world.row * load.lot
        self._begin()

    def run(self, *, seconds: float = 0.0, warm_files: int = 0, files: int = 0) -> Outcome:
        """Go on until so many files are through, after so many that are not counted; or for so many seconds."""
        self._go(lambda: self._files >= warm_files)
        before = self._mark()
        self._delays.clear()
        self._slowest_beat = 0.0
        until, goal = before.now + seconds, before.files + files
        if seconds:
            self._at(until, lambda _: None, None)
            self._go(lambda: self._now >= until)
        else:
            self._go(lambda: self._files >= goal)
        return self._outcome(before, self._mark())

    def _go(self, enough: Callable[[], bool]) -> None:
        events = self._events
        while events and not enough():
            self._now, _, call, what = heappop(events)
            call(what)

    def _at(self, when: float, call: Callable[[Any], None], what: Any) -> None:
        # The number keeps the order of what happens at the same time, so that a run can be repeated.
        self._number += 1
        heappush(self._events, (when, self._number, call, what))

    def _begin(self) -> None:
        load, uniform = self._load, self._random.uniform
        for node in self._nodes:
            for every, call in ((load.beat_every, self._beat), (load.read_every, self._read)):
                if every:
                    self._number += 1
                    self._events.append((uniform(0, every), self._number, call, node))
            for _ in range(load.backlog):
                self._number += 1
                # At any of its changes, so that not all go through each of them at the same time.
                lot = Lot(node)
                lot.change = Change(self._random.randrange(len(Change)))
                self._events.append((uniform(0, 1), self._number, self._submit, lot))
        heapify(self._events)
        if load.arrivals:
            self._arrive(None)

    def _arrive(self, node: Node | None) -> None:
        if node is not None:
            self._enter(Lot(node))
        gap = self._random.expovariate(self._load.arrivals * len(self._nodes))
        self._at(self._now + gap, self._arrive, self._random.choice(self._nodes))

    def _beat(self, node: Node) -> None:
        node.beat_due = self._now
        if not node.is_busy:
            self._gather(node)

    def _read(self, node: Node) -> None:
        self._postgres.work(self._now, self._world.read)
        self._at(self._now + self._load.read_every, self._read, node)

    def _enter(self, lot: Lot) -> None:
        lot.change = Change.QUEUED
        lot.waited = 0.0
        self._submit(lot)

    def _submit(self, lot: Lot) -> None:
        """The lot's next change waits for its node's next commit."""
        lot.since = self._now
        node = lot.node
        node.waiting.append(lot)
        if not node.is_busy:
            self._gather(node)

    def _gather(self, node: Node) -> None:
        """All that waits becomes one transaction, which may have to wait for the feed's row."""
        node.is_busy = True
        node.committing, node.waiting = node.waiting, []
        node.beat, node.beat_due = node.beat_due, None
        rows = self._load.feed_row
        if rows and any(lot.change in rows for lot in node.committing) and self._touches_row():
            if self._row_holder is not None:
                self._row_waits.append(node)
                return
            self._row_holder, self._locked_at = node, self._now
        self._commit(node)

    def _touches_row(self) -> bool:
        return self._random.random() < self._world.feed_row_share

    def _commit(self, node: Node) -> None:
        world, lots = self._world, len(node.committing)
        cpu = world.transaction + self._lot_rows * lots
        wal = self._lot_wal * lots
        if node.beat is not None:
            cpu += world.row + world.seen * len(self._nodes)
            wal += world.wal_of_row
        self._at(self._postgres.commit(self._now, cpu, wal), self._durable, node)

    def _durable(self, node: Node) -> None:
        if self._row_holder is node:
            self._locked += self._now - self._locked_at
            self._row_holder = None
            if self._row_waits:
                self._row_holder, self._locked_at = self._row_waits.popleft(), self._now
                self._commit(self._row_holder)
        for lot in node.committing:
            lot.waited += self._now - lot.since
            self._go_on(lot)
        if node.beat is not None:
            self._slowest_beat = max(self._slowest_beat, self._now - node.beat)
            self._at(self._now + self._load.beat_every, self._beat, node)
        node.committing, node.beat, node.is_busy = [], None, False
        if node.waiting or node.beat_due is not None:
            self._gather(node)

    def _go_on(self, lot: Lot) -> None:
        """What follows a change that is durable."""
        world, now = self._world, self._now
        match lot.change:
            case Change.QUEUED:
                lot.change = Change.CLAIMED
                self._ask(lot)
            case Change.CLAIMED:
                lot.change = Change.GRANTED
                self._at(self._let_in() + self._about(world.api), self._submit, lot)
            case Change.GRANTED:
                lot.change = Change.UPLOADED
                node = lot.node
                node.cpu_free = max(now, node.cpu_free) + world.node_cpu * self._load.lot
                self._at(node.cpu_free + self._about(world.upload), self._submit, lot)
            case Change.UPLOADED:
                lot.change = Change.ARCHIVED
                self._at(now + world.move, self._submit, lot)
            case Change.ARCHIVED:
                self._files += self._load.lot
                self._delays.append(lot.waited)
                if self._load.backlog:
                    self._enter(lot)

    def _ask(self, lot: Lot) -> None:
        """The questions before a claim."""
        reads = self._load.reads
        count = int(reads) + (self._random.random() < reads % 1)
        answered = self._now
        for _ in range(count):
            answered = max(answered, self._postgres.work(self._now, self._world.read))
        lot.waited += answered - self._now
        self._at(answered, self._submit, lot)

    def _let_in(self) -> float:
        """When the API has taken one call for each file of a lot."""
        self._calls += self._load.lot
        begin = max(self._now, self._api_free)
        self._api_free = begin + self._load.lot / self._world.api_rate
        return begin

    def _about(self, seconds: float) -> float:
        return seconds * self._random.uniform(0.5, 1.5)

    def _mark(self) -> _Mark:
        locked = self._locked + (self._now - self._locked_at if self._row_holder is not None else 0.0)
        postgres = self._postgres
        behind = max(0.0, self._api_free - self._now)
        # Calls that still wait to be let in have not been taken.
        calls = self._calls - (round(behind * self._world.api_rate) if behind else 0)
        busy = postgres.busy(self._now)
        return _Mark(self._now, self._files, postgres.transactions, busy, postgres.wal, calls, locked)

    def _outcome(self, before: _Mark, after: _Mark) -> Outcome:
        seconds = after.now - before.now
        delays = sorted(self._delays)
        files = (after.files - before.files) / seconds
        return Outcome(
            seconds=seconds,
            files=files,
            transactions=(after.transactions - before.transactions) / seconds,
            cpu=(after.busy - before.busy) / seconds / self._world.cores,
            wal=(after.wal - before.wal) / seconds,
            api=(after.calls - before.calls) / seconds,
            node_cpu=files * self._world.node_cpu / len(self._nodes),
            feed_row=(after.locked - before.locked) / seconds,
            delay=delays[len(delays) // 2] if delays else 0.0,
            delay_95=delays[len(delays) * 95 // 100] if delays else 0.0,
            slowest_beat=self._slowest_beat,
        )
