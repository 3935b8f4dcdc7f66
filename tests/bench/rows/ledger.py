"""Row 10: the ledger alone, durable, beside SQLite alone."""

from typing import Any

from bench.delivery import Beside, nothing
from bench.ledger_work import IN_FLIGHT
from bench.model import Bound, Claim, Plan, Row, Series
from bench.profile import Spy
from bench.worker import work
from bench.workload import discard

NUMBERS = (10,)
LIMIT = 10_000.0
"""File versions a second."""
_NAMES = {
    "daemon": "tablefeed's ledger",
    "granted": "the same, keeping each grant too",
    "bare": "sqlite3 alone",
}


async def measure(plan: Plan) -> list[Row]:
    """How many file versions go through a ledger in a second."""
    count = plan.pick(50_000, 1_000)
    rate: dict[str, list[float]] = {mode: [] for mode in _NAMES}
    cpu: dict[str, list[float]] = {mode: [] for mode in _NAMES}
    for _ in range(plan.runs):
        for mode in _NAMES:
            done = await _lead(plan, mode, count)
            rate[mode].append(count / done["wall"])
            cpu[mode].append(done["cpu"] / count * 10_000)
    spy = Spy(plan)
    if spy.is_wanted:
        await _lead(plan, "daemon", count, spy)
    return [
        Row(
            10,
            "ledger alone, durable: file versions queued, claimed, delivered and archived",
            tuple(
                Series(name, unit, tuple(values[mode]))
                for unit, values in (("file versions/s", rate), ("CPU s per 10,000", cpu))
                for mode, name in _NAMES.items()
            ),
            (Claim(_NAMES["daemon"], "file versions/s", tuple(rate["daemon"]), Bound.AT_LEAST, LIMIT),),
            (
                (
                    f"{count:,} versions of one feed in a new ledger on a disk, synchronous=FULL. They are queued by "
                    f"batches of a scan's size while a claimant takes them and {IN_FLIGHT} wait for their "
                    "transitions at a time. sqlite3 alone makes the same changes one kind after the other, "
                    f"{IN_FLIGHT} in a commit."
                ),
                (
                    "Where the time goes, see the profile: half of the GIL's time is the event loop's, which makes and "
                    "wakes a future for each of the three transitions of a file; the statements take a fifth."
                ),
            ),
            spy.profile(count),
        )
    ]


async def _lead(plan: Plan, mode: str, count: int, beside: Beside = nothing) -> dict[str, Any]:
    """Lead so many file versions through a new ledger."""
    directory = plan.scratch / "ledger"
    directory.mkdir()
    try:
        return await work("bench.ledger_work", mode, str(directory / "ledger.db"), str(count), beside=beside)
    finally:
        discard(directory)
