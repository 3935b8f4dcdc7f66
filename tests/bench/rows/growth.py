"""Rows 11 and 12: what many queued files, and many feeds, do to the speed of delivery."""

import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.delivery import Beside, nothing, old_enough, settle
from bench.life import archived, ask, living, site, watch_notes
from bench.model import Bound, Claim, Plan, Row, Series, ratios
from bench.profile import Spy
from bench.servers import Nginx, nginx
from bench.workload import ORDERS, backlog, bring_back, crowd, crowded, discard, make_files, queue
from support.daemon import Site

NUMBERS = (11, 12)
GROWTH = 0.8
"""The slowest by the fastest, at least."""
MANY = 0.7
"""Many feeds by one, at least."""
_LEAST = 50
"""So many deliveries are waited for, however long that takes."""
_SPARED = 10
"""One in so many deliveries is not counted at the begin: connections are made then."""


async def measure(plan: Plan) -> list[Row]:
    """Both rows, with nginx as API and store."""
    directory = plan.scratch / "growth"
    try:
        async with nginx(directory / "nginx", tls=False) as server:
            return [await _growth(plan, directory, server), await _many(plan, directory, server)]
    finally:
        discard(directory)


@dataclass
class _Backlog:
    """A daemon's place with so many files in its queue, and how it went."""

    count: int
    place: Site
    drop: Path
    ledger: Path
    """As it is before each run."""
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.count:,} queued"

    @property
    def archive(self) -> Path:
        return self.place.root / "archive"


async def _growth(plan: Plan, directory: Path, server: Nginx) -> Row:
    goal, longest = plan.pick(3_000, 150), plan.pick(20.0, 10.0)
    queues = [await _queued(plan, directory, server, count) for count in plan.pick((1_000, 10_000, 100_000), (200,))]
    queues.append(await _queued(plan, directory, server, crowd(plan)))
    for _ in range(plan.runs):
        for each in queues:
            await _drain(each, min(goal, each.count * 9 // 10), longest)
            server.clear()
    rates = [Series(each.name, "files/s", tuple(each.rates)) for each in queues]
    cpu = [Series(each.name, "CPU s per 1,000", tuple(each.cpu)) for each in queues]
    spread = tuple(min(run) / max(run) for run in zip(*(each.rates for each in queues), strict=True))
    return Row(
        11,
        "growth: files per second by the length of the queue",
        (*rates, *cpu),
        (Claim("the slowest / the fastest", "", spread, Bound.AT_LEAST, GROWTH),),
        (
            (
                f"The first {goal:,} deliveries (nine tenths of a shorter queue, or those of {longest:g} s) but for "
                f"one in {_SPARED} at the begin. The files lie in the feed's directory, so that the daemon's scan, "
                "which it makes at its start and once a minute, goes on meanwhile, for the longer the more files "
                "there are."
            ),
            "The CPU is the daemon's from READY to the last of those deliveries, that of the scan included.",
            _medians(rates),
        ),
    )


def _medians(rates: Sequence[Series]) -> str:
    slowest, fastest = (pick(rates, key=lambda each: each.median) for pick in (min, max))
    return (
        f"By the medians the slowest ({slowest.name}) comes to {slowest.median / fastest.median:.2f} of the fastest "
        f"({fastest.name}); in a single run, a few seconds for each, chance is added to that on either side."
    )


async def _queued(plan: Plan, directory: Path, server: Nginx, count: int) -> _Backlog:
    """So many files in the queue of a daemon that has not been started."""
    root = directory / f"queue-{count}"
    place = site(root, server.base_url)
    drop = crowded(plan) if count == crowd(plan) else root / "drop"
    place.feed(
        ORDERS, directory=str(drop), dataset_id="dataset-1", archive=str(root / "archive"), settle=f"{settle(plan)}s"
    )
    if count == crowd(plan):
        return _Backlog(count, place, drop, await backlog(plan))
    make_files(drop, count)
    await queue(root / "before.db", ORDERS, drop)
    return _Backlog(count, place, drop, root / "before.db")


async def _drain(each: _Backlog, goal: int, longest: float) -> None:
    """Deliver some of the files, then put everything back as it was."""
    shutil.copyfile(each.ledger, each.place.ledger)
    # It ends softly, so that no file is left between its directory and the archive.
    async with living(each.place, signal.SIGTERM) as life:
        end = time.monotonic() + longest
        await life.until(lambda: archived(each.place.ledger) >= (goal if time.monotonic() < end else _LEAST))
        moments = sorted(_closed_at(each.place.ledger))[:goal]
        each.cpu.append((life.cpu() - life.ready_cpu) / len(moments) * 1_000)
    counted = moments[len(moments) // _SPARED :]
    each.rates.append((len(counted) - 1) / ((counted[-1] - counted[0]) / 1000))
    bring_back(each.archive, each.drop)
    for suffix in ("", "-wal", "-shm"):
        each.place.ledger.with_name(each.place.ledger.name + suffix).unlink(missing_ok=True)


def _closed_at(ledger: Path) -> list[int]:
    """When each file was archived, in Unix milliseconds."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=10.0)) as conn:
        return [row[0] for row in conn.execute("SELECT closed_at FROM files WHERE closed_at IS NOT NULL")]


@dataclass
class _Feeds:
    """A daemon's place with so many feeds of so many files, and how it went."""

    feeds: int
    files: int
    place: Site
    settles: float
    """Seconds that a file must have been quiet."""
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)
    unwatched: int = 0
    """How many watches the kernel refused, in the run with the most."""

    @property
    def name(self) -> str:
        return f"{self.feeds:,} {'feed' if self.feeds == 1 else 'feeds'} of {self.files:,} files"

    def drops(self) -> Iterator[Path]:
        """The directory of each feed."""
        return (Path(settings["directory"]) for settings in self.place.feeds.values())


async def _many(plan: Plan, directory: Path, server: Nginx) -> Row:
    sizes = plan.pick(((1, 5_000), (500, 10)), ((1, 200), (20, 10)))
    one, many = (_feeds(directory, server, *size, settle(plan)) for size in sizes)
    for _ in range(plan.runs):
        for each in (one, many):
            await _deliver_all(each)
            server.clear()
    rates = [Series(each.name, "files/s", tuple(each.rates)) for each in (one, many)]
    spy = Spy(plan)
    if spy.is_wanted:
        await _deliver_all(replace(many, rates=[], cpu=[], ready=[]), spy)
        server.clear()
    return Row(
        12,
        f"many feeds: {many.name} beside {one.name}",
        (
            *rates,
            *(Series(each.name, "CPU s in all", tuple(each.cpu)) for each in (one, many)),
            *(Series(f"{each.name}, start to READY", "s", tuple(each.ready)) for each in (one, many)),
        ),
        (Claim("many feeds / one feed", "", ratios(rates[1], rates[0]), Bound.AT_LEAST, MANY),),
        (
            (
                "The files lie there, whole for longer than `settle`, when the daemon starts. From the moment when "
                "the first is queued until the last is archived, in a new ledger. The CPU is that of the daemon's "
                "whole life."
            ),
            (
                "Where the time goes, see the profile: each feed has threads, an archiver and a turn of its own, so "
                "that a share that hangs holds up its own feed alone; those threads stop three times as often. A batch "
                "of an archive is a file or two, which do not share their fsyncs with others' as the files of one "
                "feed do, and a claim asks for each feed by itself."
            ),
            *(note for each in (one, many) for note in watch_notes(each.unwatched, each.feeds)),
        ),
        spy.profile(many.feeds * many.files),
    )


def _feeds(directory: Path, server: Nginx, feeds: int, files: int, settles: float) -> _Feeds:
    place = site(directory / f"feeds-{feeds}", server.base_url)
    for number in range(feeds):
        drop = place.feed(f"feed-{number:03}", dataset_id="dataset-1", settle=f"{settles}s")
        make_files(drop, files, first=number * files)
    return _Feeds(feeds, files, place, settles)


async def _deliver_all(each: _Feeds, beside: Beside = nothing) -> None:
    """Deliver every file, then put everything back as it was."""
    ledger = each.place.ledger
    for drop in each.drops():
        await old_enough(drop, each.settles)
    async with living(each.place) as life:
        async with beside(life.pid):
            await life.until(lambda: archived(ledger) == each.feeds * each.files)
        each.cpu.append(life.cpu())
        each.ready.append(life.ready_after)
        each.unwatched = max(each.unwatched, life.unwatched)
    took = ask(ledger, "SELECT max(closed_at) - min(queued_at) FROM files") / 1000
    each.rates.append(each.feeds * each.files / took)
    for drop in each.drops():
        bring_back(drop / "archive", drop)
    for suffix in ("", "-wal", "-shm"):
        ledger.with_name(ledger.name + suffix).unlink(missing_ok=True)
