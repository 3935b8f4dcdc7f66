"""Whatever is done to the ledger in whatever order, and wherever it crashes: it is what a simple model says it is."""

import asyncio
import itertools
import shutil
import sqlite3
import tempfile
from abc import abstractmethod
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from psycopg.rows import dict_row
from sqlalchemy.engine import default

from support.ledger_model import Model, claimed
from support.ledgers import RECEIPT, Clock
from support.postgres import Postgres
from tablefeed.clock import steady
from tablefeed.errors import FileRefused, Unreachable
from tablefeed.ledger import Closing, Failure, Ledger, Purge, Want
from tablefeed.ledger.changes import Delivery
from tablefeed.ledger.member import Member
from tablefeed.ledger.records import opened as opened_records
from tablefeed.ledger.schema import FsPath, metadata
from tablefeed.model import FileVersion, Grant, Order, State
from tablefeed.retry import LONGEST_ASKED

T = TypeVar("T")
Op = tuple[str, Any]
"""A transition's name and its item."""

FEEDS = ("orders", "items")
PATHS = ("a.csv", "b\\x41.csv", "sub/c.csv", "d", "e", "f")
LONGEST = round(LONGEST_ASKED * 1000)
PASSING, LASTING = Unreachable("https://s.example", "refused"), FileRefused("a.csv", "too large", "Split it")

feeds = st.sampled_from(FEEDS)
picks = st.integers(0, 20)
"""Which row; one of them does not exist."""


@st.composite
def versions(draw: st.DrawFn, feed: str) -> FileVersion:
    size, mtime = draw(st.integers(0, 2)), draw(st.integers(1, 3))
    return FileVersion(feed, draw(st.sampled_from(PATHS)), device=1, inode=1, size=size, mtime_ns=mtime)


@st.composite
def batches(draw: st.DrawFn) -> list[FileVersion]:
    """What one feed's intake queues at a time."""
    return draw(st.lists(versions(draw(feeds)), min_size=1, max_size=6))


@st.composite
def wants(draw: st.DrawFn) -> Want:
    feed = draw(feeds)
    ahead = draw(st.none() | versions(feed))
    return Want(
        feed, draw(st.sampled_from(Order)), draw(st.integers(1, 6)), draw(st.sampled_from([False, False, True])), ahead
    )


def items(name: str, entry_id: int, number: int, now: int) -> Any:
    """The item of a transition that concerns one row; `number` varies it."""
    odd = number % 2 == 1
    match name:
        case "granted":
            return entry_id, Grant(f"https://s.example/{entry_id}?sig={number}", now + number, number + 1.0, {"a": "b"})
        case "uploaded":
            return Delivery(entry_id, RECEIPT, f"target-{number}", entry_id - 1 if number % 4 == 3 else None)
        case "archived" | "set_aside":
            return Closing(entry_id, None if odd else f"/archive/{entry_id}", odd)
        case "rejected":
            return entry_id, LASTING
        case "failed":
            due_at = now + (number + entry_id) % 8 * 500
            return Failure(entry_id, LASTING if odd else PASSING, due_at, keep_grant=number % 3 == 0)
        case _:
            return entry_id


OF_ONE_ROW = (
    *("granted", "uploaded", "archived", "rejected", "set_aside"),
    *("gone", "failed", "put_back", "removed", "vanished"),
)


DONE = {
    "uploaded": (State.UPLOADED,),
    "archived": (State.ARCHIVED, State.SKIPPED),
    "rejected": (State.REJECTED,),
}
"""What transitions lead to that count as done where they are found so after a lost connection."""
WAYS = (
    ("granted", "uploaded", "archived"),
    ("granted", "uploaded", "failed"),
    ("granted", "failed"),
    ("granted", "put_back"),
    ("granted", "rejected", "set_aside"),
    ("gone",),
)
plans = st.lists(st.tuples(st.sampled_from(WAYS), st.integers(0, 2), picks), min_size=1, max_size=3)
"""Ways, how far to go (0: to the end), and a variant."""


@pytest.fixture(scope="session", autouse=True)
def _template(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An empty ledger, made once: its migrations take longer than all that an example does."""

    async def make() -> None:
        ledger = Ledger(f"sqlite:///{place / 'ledger.db'}", owner="nobody", clock=Clock(), sleep=asyncio.sleep)
        await ledger.open()
        await ledger.close()

    place = tmp_path_factory.mktemp("ledger")
    asyncio.run(make())
    SqliteMachine.template = place


@pytest.fixture(scope="module")
def _database(postgres: Postgres) -> None:
    PostgresMachine.server = postgres.database()


class LedgerMachine(RuleBasedStateMachine):
    """Every transition in any order, alone or several in one commit. Where it is kept, and how it crashes, differs."""

    ledger: Ledger

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.model = Model()
        self.lives = 0
        self.sent: set[int] = set()
        """Rows that were ever seen as uploaded."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it is kept."""

    @abstractmethod
    def make_place(self) -> None:
        """Make an empty one."""

    @abstractmethod
    def make(self) -> Ledger:
        """Begin a life of the daemon."""

    @abstractmethod
    def rows(self) -> list[Any]:
        """The real rows, as another program reads them."""

    def bounded(self, want: Want) -> Want:
        """What of a claim counts."""
        return want

    def before_claim(self) -> None:
        """What a claim does first."""

    @initialize(queued=st.lists(batches(), min_size=2, max_size=4))
    def begin(self, queued: list[list[FileVersion]]) -> None:
        self.make_place()
        self.open()
        self.enqueue(queued)

    def open(self) -> None:
        self.ledger = self.make()
        assert self.run(self.ledger.open()) == self.model.restart(self.clock.ms, LONGEST)

    def pick(self, number: int) -> int:
        """Every other one is open, as far as there are any."""
        opened = [row.id for row in self.model.open_rows()]
        ids = opened if opened and number % 2 else [*self.model.rows, max(self.model.rows, default=0) + 1]
        return ids[number // 2 % len(ids)]

    def commit(self, ops: Sequence[Op]) -> None:
        """Let all of these arrive at once: those of one kind are one statement, all are one transaction."""

        async def together() -> list[Any]:
            return await asyncio.gather(*(self.ask(name, item) for name, item in ops))

        results = self.run(together())
        expected: dict[int, Any] = {}
        for name in dict.fromkeys(name for name, _ in ops):
            numbers = [number for number, op in enumerate(ops) if op[0] == name]
            outcome = self.model.apply(name, self.clock.ms, [ops[number][1] for number in numbers])
            expected |= dict(zip(numbers, outcome, strict=True))
        assert results == [expected[number] for number in range(len(ops))]

    async def ask(self, name: str, item: Any) -> Any:
        match name, item:
            case "uploaded", Delivery():
                return await self.ledger.uploaded(
                    item.entry_id, item.receipt, target=item.target, duplicate_of=item.duplicate_of
                )
            case (("granted" | "rejected" | "refuse"), (first, second)):
                return await getattr(self.ledger, name)(first, second)
            case _:
                return await getattr(self.ledger, name)(item)

    @rule(queued=st.lists(batches(), min_size=1, max_size=3))
    def enqueue(self, queued: list[list[FileVersion]]) -> None:
        self.commit([("enqueue", batch) for batch in queued])

    @rule(batch=batches())
    def refuse(self, batch: list[FileVersion]) -> None:
        self.commit([("refuse", (version, LASTING)) for version in batch])

    @rule(wanted=st.lists(wants(), min_size=1, max_size=3))
    def claim(self, wanted: list[Want]) -> None:
        """Only due rows that nobody has, first those to be moved, then those to be sent, each in their order."""
        found = self.run(self.ledger.claim(wanted))
        self.before_claim()
        for want in map(self.bounded, wanted):
            moves, queued = self.model.candidates(want, self.clock.ms)
            count = min(want.limit, len(moves))
            mine, found = found[:count], found[count:]
            dues = [self.model.rows[entry.id].due_at for entry in mine]
            assert dues == [row.due_at for row in moves[:count]], "moves go by when they are due"
            assert [entry.id for entry in mine if entry.id not in {row.id for row in moves}] == []
            sending = queued[: want.limit - count]
            mine, found = mine + found[: len(sending)], found[len(sending) :]
            assert [entry.id for entry in mine[count:]] == [row.id for row in sending]
            assert mine == [claimed(self.model.rows[entry.id]) for entry in mine]
            self.model.take([entry.id for entry in mine])
        assert found == []

    @rule(name=st.sampled_from(OF_ONE_ROW), numbers=st.lists(st.tuples(picks, picks), min_size=1, max_size=4))
    def change(self, name: str, numbers: list[tuple[int, int]]) -> None:
        """Several rows by one kind of transition, in whatever state they are."""
        by_id = {self.pick(number): variant for number, variant in numbers}
        self.commit([(name, items(name, entry_id, variant, self.clock.ms)) for entry_id, variant in by_id.items()])

    @rule(
        numbers=st.dictionaries(picks, st.tuples(st.sampled_from(OF_ONE_ROW), picks), min_size=2, max_size=5),
        queued=st.none() | batches(),
    )
    def change_at_once(self, numbers: dict[int, tuple[str, int]], queued: list[FileVersion] | None) -> None:
        """Several rows by several kinds of transitions, and new files, in one commit."""
        by_id = {self.pick(number): change for number, change in numbers.items()}
        ops = [(name, items(name, entry_id, variant, self.clock.ms)) for entry_id, (name, variant) in by_id.items()]
        self.commit([*ops, *([("enqueue", queued)] if queued else [])])

    @rule(seconds=st.integers(0, 5), wanted=st.lists(wants(), min_size=1, max_size=2), plans=plans)
    def work(self, seconds: int, wanted: list[Want], plans: list[tuple[tuple[str, ...], int, int]]) -> None:
        """What is claimed goes some way, which the next step may go on with, so that examples get far."""
        self.clock.now += seconds
        self.claim(wanted)
        held = [row for row in self.model.open_rows() if row.held]
        for row, (way, steps, variant) in zip(held, itertools.cycle(plans), strict=False):
            for name in way[: steps or None]:
                self.commit([(name, items(name, row.id, variant, self.clock.ms))])

    @rule(wanted=wants(), variant=picks, again=wants())
    def fail_to_move(self, wanted: Want, variant: int, again: Want) -> None:
        """The archive is away: what is claimed is delivered, and its moves wait, each for a time of its own."""
        self.claim([wanted])
        for row in [row for row in self.model.open_rows() if row.held]:
            due_at = self.clock.ms + row.id * (variant + 1) * 700 % 3000
            self.commit([("uploaded", items("uploaded", row.id, variant, self.clock.ms))])
            self.commit([("failed", Failure(row.id, PASSING, due_at, keep_grant=True))])
        self.clock.now += 2
        self.claim([again])

    @rule(age=st.integers(0, 5_000), limit=st.integers(1, 3), kept=st.lists(feeds, unique=True))
    def purge(self, age: int, limit: int, kept: list[str]) -> None:
        """The oldest closed rows go, and none that is still needed."""
        order = Purge(self.clock.ms - age, limit, tuple(kept))
        old = self.model.old(order)
        assert self.run(self.ledger.purge(order)) == min(limit, len(old))
        deleted = self.model.rows.keys() - {row["id"] for row in self.rows()}
        ends = sorted(self.model.rows[entry_id].closed_at or 0 for entry_id in deleted)
        assert ends == [row.closed_at for row in old[:limit]]
        assert deleted <= {row.id for row in old}
        for entry_id in deleted:
            del self.model.rows[entry_id]

    @rule(number=picks)
    def let_go(self, number: int) -> None:
        """`tablefeed retry`, in another process, beside the running daemon."""
        with opened_records(self.url) as records:
            records.let_go(self.pick(number))
        self.model.let_go(self.pick(number))

    @rule(seconds=st.floats(-2, 10) | st.floats(3_000, 4_000))
    def tick(self, seconds: float) -> None:
        """Time passes; sometimes it is set back."""
        self.clock.now += round(seconds, 3)

    @rule()
    def restart(self) -> None:
        """An orderly end, and the next start."""
        self.run(self.ledger.close())
        self.model.restart(self.clock.ms, 10**15)
        self.open()

    @rule(offered=st.lists(batches(), max_size=3), span=st.integers(0, 5_000))
    def ask_everything(self, offered: list[list[FileVersion]], span: int) -> None:
        """Every question is answered as the model answers it."""
        rows, now = list(self.model.rows.values()), self.clock.ms
        known = {row.version for row in rows if row.is_open or row.left_in_place}
        asked = [version for batch in offered for version in batch]
        assert self.run(self.ledger.unknown(asked)) == [version for version in asked if version not in known]
        counts = Counter((row.version.feed, row.state) for row in rows if row.is_open)
        assert self.run(self.ledger.counts()) == counts
        dues = [row.due_at for row in rows if row.is_open and row.due_at > now]
        assert self.run(self.ledger.next_due(now)) == min(dues, default=None)
        due = {row.version.feed for row in rows if row.is_open and now < row.due_at <= now + span}
        assert set(self.run(self.ledger.feeds_due(now, now + span))) == due
        for feed in FEEDS:
            left = self.run(self.ledger.rejected_in_place(feed, 1000))
            here = [row for row in rows if row.version.feed == feed and row.left_in_place]
            assert {entry.id for entry, _ in left} == {row.id for row in here if row.state is State.REJECTED}

    @invariant()
    def the_books_agree(self) -> None:
        """Each row is as the model has it."""
        assert [told(row) for row in self.rows()] == [row.told for row in self.model.rows.values()]

    @invariant()
    def what_must_never_be_is_not(self) -> None:
        """The promises, asked of the real rows alone."""
        rows = self.rows()
        opened = Counter((row["feed"], row["path"]) for row in rows if row["closed_at"] is None)
        assert all(count == 1 for count in opened.values()), "at most one row of a path is open"
        for row in rows:
            closed = row["state"] not in ("queued", "uploading", "uploaded")
            assert closed == (row["closed_at"] is not None)
            if closed:
                assert row["owner"] is None, "nobody works on what is closed"
            if closed or row["state"] == "uploaded":
                assert row["grant_url"] is row["grant_headers"] is None, "no grant outlives its use"
            if row["id"] in self.sent:
                assert row["state"] in ("uploaded", "archived", "skipped"), "what was uploaded is never sent again"
        self.sent |= {row["id"] for row in rows if row["md5"] is not None}

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.run(self.ledger.close())
        self.runner.close()


class SqliteMachine(LedgerMachine):
    """On SQLite, with a crash at any place between two commits and a power cut within one."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.TemporaryDirectory(prefix="tablefeed-ledger-")

    @property
    def place(self) -> Path:
        return Path(self.root.name) / str(self.lives)

    @property
    def url(self) -> str:
        return f"sqlite:///{self.place / 'ledger.db'}"

    def make_place(self) -> None:
        shutil.copytree(self.template, self.place)

    def make(self) -> Ledger:
        return Ledger(self.url, owner=f"life-{self.lives}", clock=self.clock, sleep=asyncio.sleep)

    def rows(self) -> list[sqlite3.Row]:
        """The real rows, as another program reads them."""
        with closing(sqlite3.connect(f"file:{self.place / 'ledger.db'}?mode=ro", uri=True)) as raw:
            raw.row_factory = sqlite3.Row
            return raw.execute("select * from files order by id").fetchall()

    @rule()
    def crash(self) -> None:
        """The process is killed between two commits: what is on disk is all that the next one finds."""
        self.begin_anew_with(self.ledger_as_it_lies())

    @rule(numbers=st.dictionaries(picks, st.tuples(st.sampled_from(OF_ONE_ROW), picks), min_size=1, max_size=4))
    @precondition(lambda self: self.model.rows)
    def crash_before_the_commit(self, numbers: dict[int, tuple[str, int]]) -> None:
        """The process is killed before a commit: none of its changes has happened."""
        files, model = self.ledger_as_it_lies(), self.model.copy()
        self.change_at_once(numbers, None)
        self.model = model
        self.begin_anew_with(files)

    @rule(
        numbers=st.dictionaries(picks, st.tuples(st.sampled_from(OF_ONE_ROW), picks), max_size=4),
        queued=batches(),
        cut=st.floats(0, 1),
    )
    def power_cut_in_the_commit(
        self, numbers: dict[int, tuple[str, int]], queued: list[FileVersion], cut: float
    ) -> None:
        """A part of the journal reached the disk: a commit is there whole or not at all."""
        before, model = self.ledger_as_it_lies(), self.model.copy()
        self.change_at_once(numbers, queued)
        after = self.ledger_as_it_lies()
        written, whole = (len(files.get("ledger.db-wal", b"")) for files in (before, after))
        if whole > written:
            length = written + int((whole - written) * cut)
            after["ledger.db-wal"] = after["ledger.db-wal"][:length]
            if length < whole:
                self.model = model
        self.begin_anew_with(after)

    def ledger_as_it_lies(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.place.iterdir() if not path.name.endswith("-shm")}

    def begin_anew_with(self, files: dict[str, bytes]) -> None:
        self.run(self.ledger.close())
        shutil.rmtree(self.place)
        self.lives += 1
        self.place.mkdir()
        for name, content in files.items():
            (self.place / name).write_bytes(content)
        self.open()

    def teardown(self) -> None:
        super().teardown()
        self.root.cleanup()


class PostgresMachine(LedgerMachine):
    """On PostgreSQL, with a connection that breaks and a daemon that is killed."""

    server: ClassVar[str]
    """The URL of a database for all examples."""

    def __init__(self) -> None:
        super().__init__()
        self.is_new = True
        """Nothing has been claimed on the connection yet."""
        self.raw: psycopg.Connection[dict[str, Any]] = psycopg.connect(
            self.server.replace("+psycopg", ""), autocommit=True, row_factory=dict_row
        )

    @property
    def url(self) -> str:
        return self.server

    def make_place(self) -> None:
        names = ", ".join(name for name in metadata.tables)
        self.raw.execute(f"TRUNCATE {names} RESTART IDENTITY".encode())

    def make(self) -> Ledger:
        async def sleep(_seconds: float) -> None:
            await asyncio.sleep(0.01)

        self.is_new = True
        return Ledger(self.url, owner="", clock=self.clock, sleep=sleep, member=Member("one", 60.0, steady))

    def before_claim(self) -> None:
        if self.is_new:
            self.model.give_back_the_rest()
        self.is_new = False

    def rows(self) -> list[Any]:
        return self.raw.execute("SELECT * FROM files ORDER BY id").fetchall()

    def bounded(self, want: Want) -> Want:
        """A strict feed has one file under way, whatever a node has."""
        held = [row for row in self.model.open_rows() if row.held and row.version.feed == want.feed]
        return replace(want, limit=max(0, min(want.limit, 1 - len(held)))) if want.strict else want

    @rule(
        numbers=st.dictionaries(picks, st.tuples(st.sampled_from(OF_ONE_ROW), picks), min_size=1, max_size=5),
        queued=st.none() | batches(),
    )
    @precondition(lambda self: self.model.rows)
    def break_off(self, numbers: dict[int, tuple[str, int]], queued: list[FileVersion] | None) -> None:
        """The server ends the daemon's connection: what is done next is done on another, and once."""
        self.end_sessions()
        # What is there already counts as done by the try whose answer was lost.
        news = {at: way for at, way in numbers.items() if self.state_of(at) not in DONE.get(way[0], ())}
        # Each caller tries again by itself, so that nobody knows which comes first at one path.
        rows = [row for at in news if (row := self.model.rows.get(self.pick(at)))]
        touched = {(row.version.feed, row.version.path) for row in rows}
        others = [version for version in queued or () if (version.feed, version.path) not in touched]
        self.change_at_once(news, others)

    def state_of(self, number: int) -> State | None:
        row = self.model.rows.get(self.pick(number))
        return row.state if row else None

    def end_sessions(self) -> None:
        mine = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'tablefeed one'"
        self.raw.execute(mine)
        self.is_new = True

    @rule()
    def crash(self) -> None:
        """The process is killed, and another begins."""
        self.end_sessions()
        self.ledger._abandon()  # it writes nothing, as one that was killed
        self.open()

    def teardown(self) -> None:
        super().teardown()
        self.raw.close()


def told(row: Any) -> tuple[object, ...]:
    """A real row in the form of `Row.told`."""
    path, reason, destination = (
        FsPath().process_result_value(row[name], default.DefaultDialect()) for name in ("path", "reason", "destination")
    )
    assert path is not None
    version = FileVersion(row["feed"], path, row["device"], row["inode"], row["size"], row["mtime_ns"])
    return (
        *(row["id"], version, row["state"], row["queued_at"], row["due_at"], row["owner"] is not None, row["attempts"]),
        *(row["failed_at"], row["error"], reason, row["grant_url"], row["grant_expires_at"]),
        *(row["md5"], row["finished_at"], row["target"], row["duplicate_of"], row["closed_at"], destination),
        *(bool(row["left_in_place"]), row["removed_at"]),
    )


_LONG = settings(
    max_examples=settings().max_examples // 2,  # they are long; a profile for a soak asks for more
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
SqliteMachine.TestCase.settings = _LONG
PostgresMachine.TestCase.settings = settings(_LONG, max_examples=settings().max_examples // 8)
TestLedger = SqliteMachine.TestCase


TestLedgerOnPostgres = pytest.mark.usefixtures("_database")(PostgresMachine.TestCase)
