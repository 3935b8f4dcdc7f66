"""Rows 14 and 15: what a ledger on PostgreSQL costs, with one node and with three, and what an idle node asks of it."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.life import Life, ask, living, site
from bench.model import Bound, Claim, Plan, Row, Scale, Series, ratios
from bench.places import light_directory, public_directory
from bench.processes import cpu_of_tree
from bench.servers import NGINX_REMEDY, Nginx, nginx, nginx_binary
from bench.sink import sinking
from bench.turns import in_turn, tell
from bench.workload import ORDERS, bring_back, discard, make_files
from support.daemon import Site
from support.postgres import REMEDY, Postgres, programs, serving_postgres

NUMBERS = (14, 15)
TITLES = {14: "a fleet: files per second, by ledger and nodes", 15: "transactions of an idle node"}
SQLITE, ONE, THREE = "SQLite", "PostgreSQL, one node", "PostgreSQL, three nodes"
NODES = {SQLITE: 1, ONE: 1, THREE: 3}
GROWTH = 1.2
"""CPU seconds a file of three nodes together by those of one, at most."""
SHARE = 0.67
"""Files of the node with the fewest by those of the one with the most, at least."""
IDLE_LIMIT = 1.0
"""Transactions a second that an idle node may take."""
_TOOK = "SELECT max(closed_at) - min(queued_at) FROM files"
_TRANSACTIONS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = '{}'"
_WRITTEN = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"


async def measure(plan: Plan) -> list[Row]:
    """Both rows, with a PostgreSQL of their own."""
    if programs() is None:
        return [Row(number, title, (), notes=(f"Left out: {REMEDY}.",)) for number, title in TITLES.items()]
    directory = plan.scratch / "fleet"
    try:
        with public_directory(plan) as place, serving_postgres(place / "cluster") as server:
            return [await _delivering(plan, directory, server), await _idle(plan, directory, server)]
    finally:
        discard(directory)


@dataclass(frozen=True, slots=True)
class _Sample:
    rate: float
    """Files per second."""
    cpu: float
    """CPU milliseconds of all daemons per file."""
    share: float
    """Files of the node with the fewest by those of the one with the most."""
    server_cpu: float = 0.0
    """CPU milliseconds of PostgreSQL per file."""
    transactions: float = 0.0
    """Per file, and `written` the bytes of write-ahead log."""
    written: float = 0.0


async def _delivering(plan: Plan, directory: Path, server: Postgres) -> Row:
    if nginx_binary() is None:
        return Row(14, TITLES[14], (), notes=(f"Left out: {NGINX_REMEDY}.",))
    count = plan.pick(5_000, 90)
    make_files(directory / "outside", count)
    with light_directory(plan) as light:
        async with nginx(light / "nginx", tls=False) as sink:
            work = _Work(plan, directory, server, sink, count)
            taken = await in_turn(14, plan, {name: _contender(work, name) for name in NODES})
    cpu = {name: Series(name, "CPU ms/file", tuple(each.cpu for each in taken[name])) for name in NODES}
    split = Series(f"{THREE}, the least of a node / the most", "", tuple(each.share for each in taken[THREE]))
    return Row(
        14,
        f"a fleet: files per second, {count:,} × 10 KiB in one shared directory, by ledger and nodes",
        (
            *(Series(name, "files/s", tuple(each.rate for each in taken[name])) for name in NODES),
            *cpu.values(),
            *_of_server(taken),
            split,
        ),
        (
            Claim("CPU of three nodes / of one", "", ratios(cpu[THREE], cpu[ONE]), Bound.AT_MOST, GROWTH),
            Claim("files of the node with the fewest / with the most", "", split.values, Bound.AT_LEAST, SHARE),
        ),
        (
            (
                "The daemons run, with all settings at their default but for the addresses, when the files are moved "
                "into the directory that they share. From the moment when the first is queued until the last is "
                "archived, in a new ledger. CPU: from before the move until then, of all daemons together."
            ),
            (
                "Transactions are those of the daemons' whole lives, start and end included, which flush what "
                "PostgreSQL counts; the write-ahead log begins with a checkpoint, so that pages are written in full "
                "once in each run, and counts that of autovacuum too. PostgreSQL's CPU is that of all its processes."
            ),
            (
                "Daemons, PostgreSQL and nginx share the machine's cores, so that the rates say little of nodes that "
                "have machines of their own: what counts is what a file costs. PostgreSQL runs with 64 MB of shared "
                "buffers, and else as it is by default: what is committed is on the disk."
            ),
        ),
    )


def _of_server(taken: dict[str, list[_Sample]]) -> list[Series]:
    """What PostgreSQL had to do for a file."""
    found = []
    for name in (ONE, THREE):
        found += [
            Series(f"{name}: PostgreSQL itself", "CPU ms/file", tuple(each.server_cpu for each in taken[name])),
            Series(name, "transactions/file", tuple(each.transactions for each in taken[name])),
            Series(name, "WAL bytes/file", tuple(each.written for each in taken[name])),
        ]
    return found


@dataclass(frozen=True, slots=True)
class _Work:
    """What all contenders have."""

    plan: Plan
    directory: Path
    server: Postgres
    sink: Nginx
    count: int

    @property
    def outside(self) -> Path:
        """Where the files are while nobody delivers them."""
        return self.directory / "outside"

    @property
    def share(self) -> Path:
        """The directory of all nodes."""
        return self.directory / "share"

    def place(self, node: str, url: str) -> Site:
        """A node's own."""
        place = site(self.directory / node, self.sink.base_url)
        if url:
            place.sections |= {"ledger": {"url": url}, "fleet": {"node": node}}
        settle = self.plan.pick("2s", "200ms")
        place.feed(ORDERS, directory=str(self.share), dataset_id="dataset-1", settle=settle, shared=bool(url))
        return place

    def archived(self, lives: Sequence[Life]) -> bool:
        """Whether all files are archived, and the daemons know it."""
        if any(entry.is_file() for entry in os.scandir(self.share)):
            return False
        return sum(map(_archived_by, lives)) == self.count


def _archived_by(life: Life) -> int:
    return life.log.read_text().count('"event":"file_archived"')


def _contender(work: _Work, name: str) -> Callable[[], Awaitable[_Sample]]:
    async def delivered() -> _Sample:
        work.share.mkdir()
        url = "" if name == SQLITE else await asyncio.to_thread(work.server.database)
        places = [work.place(f"node-{number + 1}", url) for number in range(NODES[name])]
        sample = await _deliver(work, places, url)
        if (arrived := work.sink.clear()) != work.count:
            raise RuntimeError(f"{arrived} of {work.count} files have arrived")
        bring_back(work.share / "archive", work.outside)
        for place in places:
            discard(place.root)
        discard(work.share)
        return sample

    return delivered


async def _deliver(work: _Work, places: Sequence[Site], url: str) -> _Sample:
    server, database = work.server, url.rpartition("/")[2]
    if url and work.plan.scale is Scale.FULL:
        server.execute("postgres", "CHECKPOINT")
    before = _Server.of(server, database) if url else _Server()
    async with _together(places) as lives:
        cpu, server_cpu = sum(life.cpu() for life in lives), cpu_of_tree(server.pid)
        bring_back(work.outside, work.share)
        await asyncio.gather(*(life.until(lambda: work.archived(lives)) for life in lives))
        cpu, server_cpu = sum(life.cpu() for life in lives) - cpu, cpu_of_tree(server.pid) - server_cpu
        shares = [_archived_by(life) for life in lives]
    took = int(server.execute(database, _TOOK)) if url else ask(places[0].ledger, _TOOK)
    sample = _Sample(work.count / (took / 1000), cpu / work.count * 1e3, min(shares) / max(shares))
    if not url:
        return sample
    after = _Server.of(server, database)
    return _Sample(
        *(sample.rate, sample.cpu, sample.share, server_cpu / work.count * 1e3),
        (after.transactions - before.transactions) / work.count,
        (after.written - before.written) / work.count,
    )


@asynccontextmanager
async def _together(places: Sequence[Site]) -> AsyncIterator[list[Life]]:
    """Daemons that are ready, and end softly, so that nobody waits for a lease, and PostgreSQL has counted all."""
    async with AsyncExitStack() as stack:
        starts = [stack.enter_async_context(living(place, signal.SIGTERM)) for place in places]
        yield list(await asyncio.gather(*starts))


@dataclass(frozen=True, slots=True)
class _Server:
    """What PostgreSQL has counted."""

    transactions: int = 0
    """Of one database."""
    written: int = 0
    """Bytes of write-ahead log, of all."""

    @classmethod
    def of(cls, server: Postgres, database: str) -> "_Server":
        """As it is now, asked in a transaction of another database."""
        transactions = server.execute("postgres", _TRANSACTIONS.format(database))
        return cls(int(transactions), int(server.execute("postgres", _WRITTEN)))


async def _idle(plan: Plan, directory: Path, server: Postgres) -> Row:
    feeds, seconds = 10, plan.pick(60.0, 2.0)
    names = {False: "feeds of its own", True: "shared feeds"}
    tell(f"row 15: {plan.runs} idle nodes with {feeds} feeds of their own, as many with shared ones")
    async with sinking() as sink, AsyncExitStack() as lives:
        urls: dict[bool, list[str]] = {shared: [server.database() for _ in range(plan.runs)] for shared in names}
        places = [
            _idler(directory / f"idle-{url.rpartition('/')[2]}", sink.origin, url, feeds, shared=shared)
            for shared, each in urls.items()
            for url in each
        ]
        await asyncio.gather(*(lives.enter_async_context(living(place)) for place in places))
        await asyncio.sleep(plan.pick(15.0, 0.0))  # what follows a start is over, and has been counted
        began, before = time.monotonic(), _counted(server, urls)
        await asyncio.sleep(seconds)
        after, took = _counted(server, urls), time.monotonic() - began
    rates = {
        shared: tuple((b - a) / took for a, b in zip(before[shared], after[shared], strict=True)) for shared in names
    }
    return Row(
        15,
        f"transactions of an idle node with {feeds} feeds, over {seconds:g} s",
        tuple(Series(name, "transactions/s", rates[shared]) for shared, name in names.items()),
        tuple(
            Claim(name, "transactions/s", rates[shared], Bound.AT_MOST, IDLE_LIMIT) for shared, name in names.items()
        ),
        (
            (
                "Each run is a node with a database of its own, and all run at the same time. All settings are the "
                "defaults: a sign of life every 20 s, each directory scanned once a minute, status page on, with "
                "nobody who looks at it. Reads count as well."
            ),
            "PostgreSQL tells what a connection has done up to ten seconds late, at either end of the time.",
        ),
    )


def _idler(root: Path, origin: str, url: str, feeds: int, *, shared: bool) -> Site:
    place = site(root, origin)
    place.sections |= {"ledger": {"url": url}, "fleet": {"node": root.name.replace("_", "-")}}
    for number in range(feeds):
        place.feed(f"feed-{number}", dataset_id="dataset-1", settle="2s", shared=shared)
    return place


def _counted(server: Postgres, urls: dict[bool, list[str]]) -> dict[bool, list[int]]:
    """Transactions so far, in each of these databases."""
    return {
        shared: [_Server.of(server, url.rpartition("/")[2]).transactions for url in each]
        for shared, each in urls.items()
    }
