"""Row 5: the most memory that the daemon ever has."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.life import archived, living, queued_ever, site
from bench.model import Bound, Claim, Plan, Row, Series
from bench.sink import sinking
from bench.workload import ORDERS, crowd, crowded, discard, keep_backlog, make_files
from support.daemon import Site

NUMBERS = (5,)
MIB = 2**20
_MOST_RUNS = 2
"""Memory is not disturbed by what else the machine does, and these runs are long."""


@dataclass(frozen=True, slots=True)
class _Memory:
    """MiB of one daemon."""

    ready: float
    """When it had just said that it is ready."""
    peak: float


async def measure(plan: Plan) -> list[Row]:
    """The peak with many large uploads, with one very large one, and with very many files in the queue."""
    together, each = plan.pick((64, 256 * MIB), (8, 4 * MIB))
    large = plan.pick(5 * 2**30, 64 * MIB)
    runs = min(plan.runs, _MOST_RUNS)
    return [
        _row(
            f"{together} uploads of {each // MIB} MiB at once",
            150,
            [await _uploads(plan, together, each) for _ in range(runs)],
            "upload.concurrency is set so that all may go at once. The server reads the first bytes of each body "
            f"and no more until all {together} have begun, then everything.",
        ),
        _row(
            f"one file of {large / 2**30:g} GiB",
            100,
            [await _uploads(plan, 1, large) for _ in range(runs)],
            "All settings are the defaults; MD5 is computed on the way.",
        ),
        _row(
            f"{crowd(plan):,} queued files",
            300,
            [await _queued(plan)],
            "The API answers nothing, so that all that the daemon finds in its directory stays queued. Measured "
            "once the ledger has the last of them.",
        ),
    ]


def _row(what: str, limit: float, runs: list[_Memory], *notes: str) -> Row:
    peaks = tuple(run.peak for run in runs)
    return Row(
        5,
        f"peak memory: {what}",
        (
            Series("tablefeed", "MiB", peaks),
            Series("tablefeed, when ready", "MiB", tuple(run.ready for run in runs)),
        ),
        (Claim("tablefeed", "MiB", peaks, Bound.AT_MOST, limit),),
        notes,
    )


async def _uploads(plan: Plan, count: int, size: int) -> _Memory:
    """Deliver so many files at once."""
    async with _placed(plan, "--together", str(count)) as place:
        make_files(place.feed(ORDERS, dataset_id="dataset-1", settle="0s"), count, size)
        place.sections["upload"] = {"concurrency": max(count, 16)}
        return await _until(place, lambda: archived(place.ledger) == count)


async def _queued(plan: Plan) -> _Memory:
    """Let the daemon find a million files."""
    directory, archive = str(crowded(plan)), str(plan.scratch / "memory" / "archive")
    async with _placed(plan, "--hold") as place:
        place.feed(ORDERS, directory=directory, dataset_id="dataset-1", settle="0s", archive=archive)
        memory = await _until(place, lambda: queued_ever(place.ledger) >= crowd(plan))
        await keep_backlog(plan, place.ledger)
        return memory


@asynccontextmanager
async def _placed(plan: Plan, *options: str) -> AsyncIterator[Site]:
    """A place for a daemon that sends to a sink with these options."""
    directory = plan.scratch / "memory"
    try:
        async with sinking(*options) as sink:
            yield site(directory, sink.origin)
    finally:
        discard(directory)


async def _until(place: Site, done: Callable[[], bool]) -> _Memory:
    """What a daemon has needed once the condition holds."""
    async with living(place) as life:
        ready = life.memory("VmRSS")
        await life.until(done, step=0.2)
        return _Memory(ready, life.memory("VmHWM"))
