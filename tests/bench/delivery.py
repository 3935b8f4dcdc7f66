"""The daemon as it is measured: a process of its own, that logs to a file as it would to a journal."""

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import datetime
from pathlib import Path

from bench.model import Plan
from bench.processes import Spent, cpu_of
from bench.servers import ended
from support.daemon import Site, clean_environ
from support.ports import free_port

Beside = Callable[[int], AbstractAsyncContextManager[object]]
"""What goes on beside a daemon, given its process id."""
_LOOK = 0.03
"""Seconds between two looks at the log."""


class Measured:
    """A running daemon, whose log is looked at now and then, which costs next to nothing."""

    def __init__(self, process: Process, log: Path) -> None:
        """`log`: what the process writes to."""
        self.process = process
        self._log = log
        self._offset = 0
        self._rest = b""
        self._lines: list[bytes] = []

    @property
    def cpu(self) -> float:
        """CPU seconds so far."""
        return cpu_of(self.process.pid)

    def _read(self) -> None:
        with self._log.open("rb") as log:
            log.seek(self._offset)
            new = log.read()
        self._offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        self._lines += lines

    def moments(self, event: str) -> list[float]:
        """When an event was logged, in Unix seconds."""
        named = f'"event":"{event}"'.encode()
        times = (json.loads(line)["timestamp"] for line in self._lines if named in line)
        return [datetime.fromisoformat(text).timestamp() for text in times]

    def count(self, event: str) -> int:
        """How often an event has been logged."""
        named = f'"event":"{event}"'.encode()
        return sum(named in line for line in self._lines)

    async def until(self, event: str, count: int = 1, patience: float = 300.0) -> None:
        """Wait until an event has been logged `count` times.

        Raises RuntimeError when the daemon ends before that, or it takes longer than `patience` seconds.
        """
        named = f'"event":"{event}"'.encode()
        deadline = time.monotonic() + patience
        seen = looked = 0
        while seen < count:
            self._read()
            seen += sum(named in line for line in self._lines[looked:])
            looked = len(self._lines)
            if seen < count:
                if self.process.returncode is not None or time.monotonic() > deadline:
                    last = b"\n".join(self._lines[-5:]).decode(errors="replace")
                    raise RuntimeError(
                        f"{event} came {seen} times instead of {count}; the daemon's last words:\n{last}"
                    )
                await asyncio.sleep(_LOOK)


def site(root: Path, base_url: str, *, ca_file: Path | None = None) -> Site:
    """A place with a configuration that leaves all at its default: ledger, page, archive, log at level info."""
    root.mkdir(parents=True)
    sections: dict[str, dict[str, object]] = {
        "log": {"format": "json", "level": "info"},
        "http": {"listen": f"127.0.0.1:{free_port()}"},
    }
    if ca_file is not None:
        sections["upload"] = {"ca_file": str(ca_file)}
    return Site(root, base_url, sections)


def nothing(_: int) -> AbstractAsyncContextManager[object]:
    """Nothing goes on beside a daemon."""
    return nullcontext()


@asynccontextmanager
async def daemon(place: Site, *under: str) -> AsyncIterator[Measured]:
    """Run `tablefeed run`, by the command `under` if there is one; it has ended when this has.

    Its log lies beside its configuration.
    """
    log = place.root / "tablefeed.log"
    config = place.config
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(*under, sys.executable, "-m", "tablefeed", "run", "--config", str(config)),
            env=clean_environ(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Measured(process, log)
    finally:
        await ended(process)


async def deliver(place: Site, count: int, *under: str, beside: Beside = nothing) -> Spent:
    """Run the daemon on the `count` files that lie there, from its first look at them to the last one in the archive.

    `under` is a command that runs it. Start and end of the process are left out. `beside` goes on meanwhile; it is
    given the process's id.
    """
    async with daemon(place, *under) as running:
        await running.until("started")
        before = running.cpu
        async with beside(running.process.pid):
            await running.until("file_archived", count)
        cpu = running.cpu - before
        seconds = max(running.moments("file_archived")) - running.moments("started")[0]
    archived = sum(len(place.archived(name)) for name in place.feeds)
    if archived != count:
        raise RuntimeError(f"{archived} of {count} files are in the archive")
    return Spent(seconds, cpu)


def settle(plan: Plan) -> float:
    """Seconds that the benchmark's files settle for: as long as by default, or less where nobody looks at figures."""
    return plan.pick(2.0, 0.2)


def make_files(directory: Path, count: int, size: int) -> list[Path]:
    """Files of random bytes, no two alike."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"export-{number:06}.csv" for number in range(count)]
    for path in paths:
        path.write_bytes(os.urandom(size))
    return paths


async def old_enough(directory: Path, settle: float) -> None:
    """Wait until every file there has been quiet for `settle` seconds, so that nobody waits for that while measured."""
    newest = max(entry.stat().st_ctime for entry in os.scandir(directory))
    await asyncio.sleep(max(0.0, newest + settle + 0.1 - time.time()))
