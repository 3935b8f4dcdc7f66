"""Row 7: what a daemon takes that has nothing to do."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

from bench.life import PATIENCE, Life, living, site
from bench.model import Bound, Claim, Plan, Row, Series
from bench.sink import sinking
from bench.workload import discard, make_files, queue, remember
from support.daemon import Site

NUMBERS = (7,)
LIMIT = 0.3
"""Percent of a core."""


async def measure(plan: Plan) -> list[Row]:
    """As many daemons as there are runs do nothing side by side."""
    feeds, files = plan.pick((10, 1_000), (2, 20))
    seconds = plan.pick(60.0, 1.0)
    directory = plan.scratch / "idle"
    try:
        async with sinking() as sink, AsyncExitStack() as lives:
            places = [await _place(directory / str(number), sink.origin, feeds, files) for number in range(plan.runs)]
            running = await asyncio.gather(*(lives.enter_async_context(living(place)) for place in places))
            await asyncio.gather(*(_settled(life) for life in running))
            shares = await asyncio.gather(*(_share(life, seconds) for life in running))
            memory = [life.memory("VmRSS") for life in running]
    finally:
        discard(directory)
    ours = tuple(shares)
    return [
        Row(
            7,
            f"CPU of an idle daemon with {feeds} feeds of {files:,} archived files each, over {seconds:g} s",
            (
                Series("tablefeed", "% of a core", ours),
                Series("tablefeed, memory", "MiB", tuple(memory)),
            ),
            (Claim("tablefeed", "% of a core", ours, Bound.AT_MOST, LIMIT),),
            (
                (
                    "Each run is a daemon of its own, and all of them run at the same time. All settings are the "
                    "defaults: status page on, each directory scanned once a minute, systemd told of the state "
                    "every five seconds."
                ),
            ),
        )
    ]


async def _place(root: Path, origin: str, feeds: int, files: int) -> Site:
    """A daemon's place whose feeds have had files, which are archived."""
    place = site(root, origin)
    for number in range(feeds):
        name = f"feed-{number}"
        drop = place.feed(name, dataset_id="dataset-1", settle="2s")
        make_files(drop / "archive", files)
        await queue(place.ledger, name, drop)
        remember(place.ledger, name, drop / "archive", files)
    return place


async def _settled(life: Life) -> None:
    """Wait until a daemon has done what follows a start: it takes less than one hundredth of a core for a second."""
    async with asyncio.timeout(PATIENCE):
        while True:
            before = life.cpu()
            await asyncio.sleep(1.0)
            if life.cpu() - before <= 0.01:
                return


async def _share(life: Life, seconds: float) -> float:
    """Percent of a core over so many seconds."""
    began, before = time.monotonic(), life.cpu()
    await asyncio.sleep(seconds)
    return 100 * (life.cpu() - before) / (time.monotonic() - began)
