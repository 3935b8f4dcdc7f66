"""Row 6: from the drop of a file to the first byte of its PUT, with a daemon that has nothing else to do."""

import asyncio
import random
import time
from pathlib import Path
from statistics import quantiles

from bench.life import Life, living, site, watch_notes
from bench.model import Bound, Claim, Plan, Row, Series
from bench.sink import Sink, sinking
from bench.workload import ORDERS, discard, make_files, name_of

NUMBERS = (6,)
P50, P99 = 60.0, 150.0
"""Milliseconds."""
_UNCOUNTED = 3
"""Drops at the begin, until the kernel's watch is there and connections are made."""
_LONGEST_PAUSE = 0.1
"""Seconds between two drops, at most: at random, so that drops keep no step with anything in the daemon."""


async def measure(plan: Plan) -> list[Row]:
    """The delays of many drops, one after the other."""
    drops = plan.pick(200, 10)
    p50, p99, slowest = [], [], []
    refused = 0
    for run in range(plan.runs):
        delays, unwatched = await _delays(plan, drops, random.Random(run))
        refused += unwatched
        centiles = quantiles(delays, n=100, method="inclusive")
        p50.append(centiles[49] * 1000)
        p99.append(centiles[98] * 1000)
        slowest.append(max(delays) * 1000)
    half, most = Series("tablefeed, p50", "ms", tuple(p50)), Series("tablefeed, p99", "ms", tuple(p99))
    return [
        Row(
            6,
            "drop to the first byte of the PUT, renamed in, settle = 0s",
            (half, most, Series("tablefeed, slowest", "ms", tuple(slowest))),
            (
                Claim("p50", "ms", half.values, Bound.AT_MOST, P50),
                Claim("p99", "ms", most.values, Bound.AT_MOST, P99),
            ),
            (
                (
                    f"{drops} drops a run, each when the one before has been archived and up to "
                    f"{_LONGEST_PAUSE * 1000:g} ms have passed. From just before the rename until the server, which "
                    "also answers for the presigned URL, has read the head of the PUT."
                ),
                *watch_notes(refused, 1),
            ),
        )
    ]


async def _delays(plan: Plan, drops: int, chance: random.Random) -> tuple[list[float], int]:
    """Seconds of each drop, by a daemon of its own, and how many watches it was refused."""
    directory = plan.scratch / "latency"
    try:
        async with sinking() as sink:
            place = site(directory, sink.origin)
            drop = place.feed(ORDERS, dataset_id="dataset-1", settle="0s")
            make_files(directory / "made", drops + _UNCOUNTED)
            async with living(place) as life:
                delays = []
                for number in range(drops + _UNCOUNTED):
                    await asyncio.sleep(chance.random() * _LONGEST_PAUSE)
                    delays.append(await _delay(life, sink, directory / "made" / name_of(number), drop))
                return delays[_UNCOUNTED:], life.unwatched
    finally:
        discard(directory)


async def _delay(life: Life, sink: Sink, made: Path, drop: Path) -> float:
    """Seconds from the drop of a file until its PUT begins; the file is archived when this returns."""
    dropped_at = time.monotonic()
    made.rename(drop / made.name)
    begun_at = await sink.put_begun()
    archived = drop / "archive" / made.name
    await life.until(archived.exists, step=0.002)
    return begun_at - dropped_at
