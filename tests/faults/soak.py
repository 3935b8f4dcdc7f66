"""The soak: `python -m faults.soak --minutes 30`, from the directory `tests`. All faults mixed, and the books audited.

Rounds of a minute follow each other. A seed gives the same producers and the same faults in the same order; when they
meet is up to the machine. What a round that is not clean leaves is kept.
"""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from secrets import randbelow

import pytest

from faults.soak_round import Disk, Place, Round, Tally
from support.archive import other_file_system
from support.disks import Broken, Small, small

ROUND = 60.0
"""Seconds of trouble in a round."""
LEDGER_MEGABYTES = 48


def main() -> int:
    """Soak, and return the exit code: 0 when the books are clean."""
    parser = argparse.ArgumentParser(prog="soak", description="Mix all faults, and check that nothing is lost.")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long (5)")
    parser.add_argument("--seed", default=str(randbelow(10**9)), help="of the producers and faults (random)")
    arguments = parser.parse_args()
    seed, tally, began = arguments.seed, Tally(), time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="tablefeed-soak-"))
    with ExitStack() as stack:
        try:
            far = stack.enter_context(other_file_system(root))
            kept = asyncio.run(_soak(root, far, _ledger_disk(stack, root), arguments.minutes * 60, seed, tally))
        except pytest.skip.Exception as reason:
            print(f"soak: {reason}", file=sys.stderr)
            return 1
    print(summary(tally, time.monotonic() - began, seed))
    if kept is None:
        shutil.rmtree(root)
        return 0
    print(f"The books are not clean. Files, ledger and logs of that round are kept in {kept}", file=sys.stderr)
    return 1


async def _soak(root: Path, far: Path, ledgers: Path | Small, seconds: float, seed: str, tally: Tally) -> Path | None:
    """Rounds until the time is over, Ctrl-C, or books that are not clean; then where all of that round is kept."""
    stopped = asyncio.Event()
    _stop_on_interrupt(stopped)
    print(f"soak of {seconds / 60:g} minutes, seed {seed} (--seed {seed} repeats it)", flush=True)
    end = time.monotonic() + seconds
    while not stopped.is_set() and (left := end - time.monotonic()) > 0:
        place = _place(root / f"round-{tally.rounds + 1}", far, ledgers)
        await Round(place, f"{seed}/{tally.rounds + 1}", tally).run(min(ROUND, left), stopped)
        print(f"round {tally.rounds}: {tally.files} files so far, {kills(tally)} kills; {tally.findings}", flush=True)
        if [*tally.findings]:
            shutil.copytree(place.far, place.root / "far")
            shutil.copytree(place.ledger, place.root / "ledger")
            return place.root
        for directory in (place.root, place.far, place.ledger):
            shutil.rmtree(directory)
    return None


def _stop_on_interrupt(stopped: asyncio.Event) -> None:
    """The first Ctrl-C ends the round in order, the next one at once."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopped.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, stop)


def _ledger_disk(stack: ExitStack, root: Path) -> Path | Small:
    """Where ledgers lie: on a small disk that can be filled, if one may be mounted."""
    try:
        return stack.enter_context(small(root / "ledgers", LEDGER_MEGABYTES))
    except pytest.skip.Exception as reason:
        print(f"not mixed in: a full ledger disk ({reason})", flush=True)
        return root / "ledgers"


def _place(root: Path, far: Path, ledgers: Path | Small) -> Place:
    ledger = (ledgers.directory if isinstance(ledgers, Small) else ledgers) / root.name
    for directory in (root, far / root.name, ledger):
        directory.mkdir(parents=True)
    disks: dict[str, Disk] = {"ledger: disk full (ENOSPC)": ledgers} if isinstance(ledgers, Small) else {}
    try:
        broken = Broken(ledger, root)
    except pytest.skip.Exception as reason:
        print(f"not mixed in: a ledger disk whose fsync fails ({reason})", flush=True)
        return Place(root, far / root.name, ledger, {}, disks)
    return Place(root, far / root.name, ledger, broken.environ, disks | {"ledger: fsync fails (EIO)": broken})


def kills(tally: Tally) -> int:
    """How often a daemon was killed."""
    return sum(count for name, count in tally.counts.items() if name.startswith("SIGKILL"))


def summary(tally: Tally, seconds: float, seed: str) -> str:
    """The end of it all in few lines."""
    found, total = tally.findings, kills(tally)
    at_random = tally.counts["SIGKILL at a random instant"]
    steps = sum(1 for name, count in tally.counts.items() if name.startswith("SIGKILL") and count) - 1
    others = sorted((name, count) for name, count in tally.counts.items() if not name.startswith("SIGKILL"))
    return "\n".join(
        [
            f"\nsoak: {seconds / 60:.1f} minutes, seed {seed}, rounds {tally.rounds}",
            f"files: {tally.files:,} ({tally.size / 1e6:,.0f} MB)",
            f"kills: {total}, {at_random} at a random instant, {total - at_random} at {steps} named steps",
            *(f"  {count:>6}  {name}" for name, count in others),
            f"lost {len(found.lost)}, halved {len(found.halved)}, second objects {len(found.doubled)}",
            *(f"  {finding}" for finding in found),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
