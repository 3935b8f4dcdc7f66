"""The number of uploads at a time, found by trying, beside fixed ones, at stores that take only so many well."""

import asyncio
import shutil
import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.model import Bound, Claim, Plan, Row, Scale, Series, ratios
from support.crowded import Answer, Crowd, refusing, slower
from support.daemon import Site, running_daemon
from support.stores import Server, serving

NUMBERS = (13,)

MOST = 8
"""Uploads at a time that the stores take well."""
USUAL = 0.04
"""Seconds in which they answer then: at best 200 files a second, so that not our own work is the limit."""
AUTO = "auto"
LOW, RIGHT, HIGH = 2, MOST, 64
STORES: Mapping[str, Answer] = {"a store that gets slower": slower, "a store that refuses with 503": refusing}


@dataclass(frozen=True, slots=True)
class Run:
    """What a store saw of a daemon."""

    rate: float
    """Files that it took in a second."""
    at_once: float
    """Uploads that it had at a time, in the middle."""


async def measure(plan: Plan) -> list[Row]:
    """One row for each store: files a second of the daemon, with each number of uploads at a time."""
    numbers: tuple[int | str, ...] = plan.pick((AUTO, LOW, RIGHT, HIGH), (AUTO, HIGH))
    runs: dict[tuple[str, int | str], list[Run]] = defaultdict(list)
    for turn in range(plan.runs):
        for store in plan.pick(tuple(STORES), tuple(STORES)[:1]):
            for number in numbers[turn % len(numbers) :] + numbers[: turn % len(numbers)]:
                root = plan.scratch / f"adaptive-{turn}-{len(runs)}-{number}"
                runs[store, number].append(await _run(root, STORES[store], number, plan.scale))
    return [
        _row(store, {number: its for (where, number), its in runs.items() if where == store})
        for store in dict.fromkeys(where for where, _ in runs)
    ]


async def _run(root: Path, answer: Answer, number: int | str, scale: Scale) -> Run:
    warm_up, seconds = (3.0, 5.0) if scale is Scale.FULL else (0.8, 0.8)
    root.mkdir(parents=True)
    crowd = Crowd(MOST, USUAL, answer)
    server = Server(crowd.put)
    async with serving(server) as origin:
        site = Site(root, origin, {"upload": {"concurrency": number}, "log": {"level": "info"}})
        drop = site.feed("orders", dataset_id="dataset-1", settle="0s")
        for n in range(round((warm_up + seconds) * 1.5 * MOST / USUAL)):
            (drop / f"{n:06}.csv").write_text(f"content {n}")
        async with running_daemon(site.config) as daemon:
            await daemon.until(lambda: crowd.seen)
            await asyncio.sleep(warm_up)
            taken, seen = len(server.objects), len(crowd.seen)
            await asyncio.sleep(seconds)
            taken, at_once = len(server.objects) - taken, crowd.seen[seen:]
    await asyncio.to_thread(shutil.rmtree, root)
    return Run(taken / seconds, statistics.median(at_once or [0]))


def _row(store: str, runs: Mapping[int | str, list[Run]]) -> Row:
    rates = {number: Series(_name(number), "files/s", tuple(run.rate for run in its)) for number, its in runs.items()}
    at_once = tuple(run.at_once / MOST for run in runs[AUTO])
    return Row(
        13,
        f"uploads at a time, at {store} above {MOST}",
        tuple(rates.values()),
        (
            *(
                Claim(f"auto / {number} at a time", "", _against(rates[AUTO], its), Bound.AT_LEAST, 1.0)
                for number, its in rates.items()
                if number in (LOW, HIGH)
            ),
            Claim(f"uploads at the store with auto / {MOST}", "", at_once, Bound.AT_LEAST, 0.5),
            Claim(f"uploads at the store with auto / {MOST}", "", at_once, Bound.AT_MOST, 2.0),
        ),
        (f"The store answers in {USUAL * 1000:.0f} ms while it has up to {MOST} uploads, {MOST / USUAL:.0f} files/s",),
    )


def _name(number: int | str) -> str:
    return "tablefeed, auto" if number == AUTO else f"tablefeed, {number} at a time"


def _against(ours: Series, theirs: Series) -> tuple[float, ...]:
    """Ratios; a store that took nothing in a short run counts as one file."""
    floor = Series(theirs.name, theirs.unit, tuple(max(value, 1.0) for value in theirs.values))
    return ratios(ours, floor)
