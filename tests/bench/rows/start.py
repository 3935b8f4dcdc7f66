"""Row 8: from the start of the daemon until it says that it is ready, with much behind it and much before it."""

from dataclasses import dataclass, field

from bench.life import living, site
from bench.model import Bound, Claim, Plan, Row, Series
from bench.sink import sinking
from bench.workload import ORDERS, crowd, crowded, discard, lent, make_files, queue, remember
from support.daemon import Site

NUMBERS = (8,)
LIMIT = 3.0
"""Seconds."""


@dataclass
class _Starts:
    """The starts of one daemon."""

    place: Site
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    async def once_more(self) -> None:
        async with living(self.place) as life:
            self.seconds.append(life.ready_after)
            self.cpu.append(life.ready_cpu)
            self.memory.append(life.memory("VmRSS"))


async def measure(plan: Plan) -> list[Row]:
    """How long a start takes, with nothing and with much."""
    queued = plan.pick(100_000, 1_000)
    directory = plan.scratch / "start"
    try:
        async with sinking("--hold") as sink:
            empty, full = (_Starts(site(directory / name, sink.origin)) for name in ("empty", "full"))
            for starts in (empty, full):
                drop = starts.place.feed(ORDERS, dataset_id="dataset-1", settle="0s")
                make_files(drop, queued if starts is full else 0)
                await queue(starts.place.ledger, ORDERS, drop)
            remember(full.place.ledger, ORDERS, drop / "archive", crowd(plan))
            with lent(crowded(plan), drop / "archive"):
                for _ in range(plan.runs):
                    await empty.once_more()
                    await full.once_more()
    finally:
        discard(directory)
    return [_row(empty, full, crowd(plan), queued)]


def _row(empty: _Starts, full: _Starts, archived: int, queued: int) -> Row:
    seconds = tuple(full.seconds)
    return Row(
        8,
        f"start to READY with {archived:,} files in a feed's archive and {queued:,} queued",
        (
            Series("tablefeed", "s", seconds),
            Series("tablefeed", "CPU s", tuple(full.cpu)),
            Series("tablefeed, with nothing", "s", tuple(empty.seconds)),
            Series("tablefeed, with nothing", "CPU s", tuple(empty.cpu)),
            Series("tablefeed, memory when ready", "MiB", tuple(full.memory)),
        ),
        (Claim("tablefeed", "s", seconds, Bound.AT_MOST, LIMIT),),
        (
            (
                "From the start of the process to READY=1. The queued files lie in the drop directory and the "
                "archive below it; the ledger has a row for each file of both, as if the archive had been filled "
                "over 80 days."
            ),
            "Each daemon was killed once it was ready, so that each start is one after a crash.",
        ),
    )
