"""Reads one directory through as the daemon does, in a process of its own, and prints what it took as JSON.

    python -m bench.scan_work walk|intake DIRECTORY

`walk` is the scan alone; `intake` is a feed's whole rescan, for which a ledger that knows every file stands in.
"""

import asyncio
import json
import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tablefeed.errors import FileRefused
from tablefeed.intake import Hooks, Intake
from tablefeed.model import ApiAccess, Feed, FileVersion
from tablefeed.watch.scan import Selection, scan


@dataclass
class KnowsAll:
    """A ledger that has every file already."""

    asked: int = 0

    async def unknown(self, versions: Sequence[FileVersion]) -> list[FileVersion]:
        self.asked += len(versions)
        return []

    async def enqueue(self, versions: Sequence[FileVersion]) -> int:
        raise AssertionError("nothing is unknown")

    async def refuse(self, version: FileVersion, error: FileRefused) -> int:
        raise AssertionError("nothing is unknown")


async def walk(feed: Feed) -> int:
    """The number of files that a scan gives, in a thread of its own as the daemon has it."""
    loop = asyncio.get_running_loop()
    count = 0
    with ThreadPoolExecutor(1) as thread:
        batches = scan(feed.directory, Selection(feed), run=lambda function: loop.run_in_executor(thread, function))
        async for batch in batches:
            count += len(batch.entries)
    return count


async def intake(feed: Feed) -> int:
    """The number of files that a feed's rescan asks the ledger for."""
    ledger = KnowsAll()
    hooks = Hooks(lambda _: None, lambda error: sys.exit(str(error)), lambda: None)
    whole = Intake(feed, ledger, hooks, rescan=60.0, polling=True, clock=time.time)
    await whole.settle_all(0.0)
    return ledger.asked


def main() -> None:
    """Measure what the arguments name."""
    what, directory = sys.argv[1:]
    api = ApiAccess("http://127.0.0.1:9", "tenant-123", "none")
    feed = Feed("crowded", Path(directory), "table-456", api, include=("*.csv", "*.xlsx"))
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    files = asyncio.run({"walk": walk, "intake": intake}[what](feed))
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"files": files, "wall": time.perf_counter() - began, "cpu": cpu}))


if __name__ == "__main__":
    main()
