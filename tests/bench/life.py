"""The daemon as a process, with the settings that it has by default, and what the kernel says of it."""

import asyncio
import signal
import socket
import sqlite3
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from bench.processes import cpu_of
from support.daemon import Site, clean_environ
from support.ports import free_port

PATIENCE = 600.0
"""Seconds that anything here may take."""


def site(root: Path, base_url: str) -> Site:
    """A place for a daemon whose settings are the defaults but for its addresses and paths."""
    root.mkdir(parents=True, exist_ok=True)
    made = Site(root, base_url)
    made.sections = {
        "http": {"listen": f"127.0.0.1:{free_port()}"},
        "log": {"format": "json", "level": "info"},
    }
    return made


@dataclass(frozen=True, slots=True)
class Life:
    """A running daemon."""

    process: Process
    ready_after: float
    """Seconds from its start until it said READY=1."""
    ready_cpu: float
    """CPU seconds that it had used by then."""
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def cpu(self) -> float:
        """CPU seconds that it has used so far, of its own and in the kernel."""
        return cpu_of(self.pid)

    def memory(self, what: str) -> float:
        """MiB: `VmRSS` is what it has now, `VmHWM` the most that it ever had."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split(f"{what}:")[1].split()[0]) / 1024

    @property
    def unwatched(self) -> int:
        """How often the kernel has refused it a watch, so that a feed's files are found by scans alone."""
        return self.log.read_text().count('"event":"watch_failed"')

    async def until(self, holds: Callable[[], bool], step: float = 0.05) -> None:
        """Wait until something holds. Raises RuntimeError when the daemon ends or that never comes."""
        end = time.monotonic() + PATIENCE
        while not holds():
            if self.process.returncode is not None or time.monotonic() > end:
                raise RuntimeError(f"the daemon did not get there:\n{self.log.read_text()[-2000:]}")
            await asyncio.sleep(step)


@asynccontextmanager
async def living(place: Site, end: signal.Signals = signal.SIGKILL) -> AsyncIterator[Life]:
    """A daemon that has said that it is ready. At the end it gets the signal, and has ended.

    It is killed unless what it does at its end is wanted: that takes time, and its next start copes with it.
    """
    log = place.root / "daemon.log"
    config = place.config
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening, log.open("wb") as errors:
        listening.bind("")  # the kernel gives it a name in the abstract namespace
        listening.setblocking(False)
        name = "@" + listening.getsockname()[1:].decode()
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tablefeed", "run", "--config", str(config)),
            env=clean_environ(NOTIFY_SOCKET=name),
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for the benchmark, which ends it
        )
        try:
            ready_at = await _ready(process, listening, log)
            yield Life(process, ready_at - began, cpu_of(process.pid), log)
        finally:
            if process.returncode is None:
                process.send_signal(end)
            try:
                async with asyncio.timeout(PATIENCE):
                    await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


async def _ready(process: Process, listening: socket.socket, log: Path) -> float:
    """When it said READY=1, on the clock of `time.monotonic`."""
    loop = asyncio.get_running_loop()
    ended = asyncio.ensure_future(process.wait())
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                heard = asyncio.ensure_future(loop.sock_recv(listening, 4096))
                await asyncio.wait((heard, ended), return_when=asyncio.FIRST_COMPLETED)
                if not heard.done():
                    heard.cancel()
                    raise RuntimeError(f"the daemon did not start:\n{log.read_text()[-2000:]}")
                if b"READY=1" in heard.result().split(b"\n"):
                    return time.monotonic()
    finally:
        ended.cancel()


def watch_notes(unwatched: int, feeds: int) -> tuple[str, ...]:
    """What a reader must know where the kernel has refused watches to some of the feeds."""
    if not unwatched:
        return ()
    return (
        (
            f"The kernel refused {unwatched:,} watches to daemons with {feeds:,} {'feed' if feeds == 1 else 'feeds'} "
            "(fs.inotify.max_user_instances was used up): files there were found by scans alone."
        ),
    )


def ask(ledger: Path, question: str, *values: object) -> int:
    """One number out of a ledger, beside the daemon that writes it; 0 where the answer is null."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=10.0)) as conn:
        found = conn.execute(question, values).fetchone()[0]
    return int(found or 0)


def queued_ever(ledger: Path) -> int:
    """How many rows the ledger has had so far; to ask costs the same however many they are."""
    return ask(ledger, "SELECT max(id) FROM files")


def archived(ledger: Path) -> int:
    """How many files have been archived so far."""
    return ask(ledger, "SELECT count(*) FROM files WHERE closed_at IS NOT NULL")
