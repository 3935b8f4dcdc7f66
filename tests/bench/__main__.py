"""`make bench`: measure, print the table, and renew what `docs/` says of it.

It ends with 0 also where a limit is missed, which the table says; with anything else only where it could not measure.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import bench.rows
from bench.machine import machine, versions
from bench.model import Plan, Row, Scale
from bench.pictures import ALTS, pictures
from bench.report import markdown, plain
from bench.results import Result, Setting, merged, read, write
from bench.turns import tell

DOCS = Path(__file__).parents[2] / "docs"
Measure = Callable[[Plan], Awaitable[list[Row]]]


def modules() -> list[tuple[tuple[int, ...], Measure]]:
    """The numbers of rows and what measures them, by number."""
    found = [import_module(f"bench.rows.{module.name}") for module in iter_modules(bench.rows.__path__)]
    return sorted(
        ((module.NUMBERS, module.measure) for module in found if hasattr(module, "NUMBERS")), key=lambda each: each[0]
    )


def arguments(given: Sequence[str], known: Sequence[int]) -> argparse.Namespace:
    """What the command line asks for. Ends the program when it asks for what is not there."""
    parser = argparse.ArgumentParser("bench", description="tablefeed beside what people would use instead")
    parser.add_argument("--rows", type=_numbers, default=tuple(known), help="such as 1,3; without it all are measured")
    parser.add_argument("--runs", type=int, help="how often each contender is measured (5)")
    parser.add_argument("--short", action="store_true", help="as little as shows that all of it still runs")
    parser.add_argument("--out", type=Path, help="where the results are written (docs; with --short nowhere)")
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp"), help="a directory on a real disk")  # noqa: S108
    wanted = parser.parse_args(given)
    unknown = sorted(set(wanted.rows) - set(known))
    if unknown:
        parser.error(f"there is no row {', '.join(map(str, unknown))}; there are {', '.join(map(str, known))}")
    if wanted.runs is not None and wanted.runs < 1:
        parser.error("--runs must be 1 or more")
    if wanted.out is None and not wanted.short:
        wanted.out = DOCS
    return wanted


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


async def results(plan: Plan, rows: Sequence[int]) -> AsyncIterator[list[Result]]:
    """Measure; gives the results of each module as they come."""
    facts, programs = machine(plan.scratch), versions()
    for numbers, measure in modules():
        if set(numbers) & set(rows):
            load = os.getloadavg()[0] / len(os.sched_getaffinity(0))
            today = datetime.now(UTC).date().isoformat()
            setting = Setting(today, plan.scale.value, plan.runs, round(load, 2), facts, programs)
            yield [Result(row, setting) for row in await measure(plan) if row.number in rows]


def publish(out: Path, new: Sequence[Result]) -> None:
    """Renew the results kept in a directory, and the page and the pictures made of them."""
    out.mkdir(parents=True, exist_ok=True)
    whole = merged(read(out / "benchmark.json"), new)
    write(out / "benchmark.json", whole)
    drawn = pictures(whole)
    for name, svg in drawn.items():
        (out / name).write_text(svg)
    (out / "benchmark.md").write_text(markdown(whole, {name: ALTS[name] for name in drawn}))


async def main(given: Sequence[str]) -> int:
    """Run the benchmark; returns the exit code."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    wanted = arguments(given, [number for numbers, _ in modules() for number in numbers])
    runs = wanted.runs or (1 if wanted.short else 5)
    found: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="tablefeed-bench-", dir=wanted.scratch) as scratch:
        plan = Plan(Scale.SHORT if wanted.short else Scale.FULL, runs, Path(scratch))
        async for some in results(plan, wanted.rows):
            found += some
            if wanted.out is not None:
                publish(wanted.out, found)
    print(plain(found))
    if wanted.out is not None:
        tell(f"Written: benchmark.json, benchmark.md and their pictures, in {os.path.relpath(wanted.out)}")
    return 0


def run(given: Sequence[str]) -> int:
    """Run it until it has ended or is told to end; its servers have ended by then in either case."""
    try:
        return asyncio.run(main(given))
    except RuntimeError as error:
        tell(f"The benchmark is broken: {error}")
        return 1
    except (asyncio.CancelledError, KeyboardInterrupt):
        tell("Ended early; what was measured before is kept.")
        return 130


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
