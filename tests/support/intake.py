"""Feeds on real directories, and an intake that runs over a real ledger which notes what it is told."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from support.ledgers import opened
from tablefeed.errors import DiskTrouble, FeedBlocked, FileRefused
from tablefeed.intake import Hooks, Intake
from tablefeed.ledger import Ledger
from tablefeed.model import ApiAccess, Feed, FileVersion

SETTLE = 0.15
NEVER = 3_600.0


def make_feed(directory: Path, **changes: Any) -> Feed:
    """A feed that settles fast."""
    api = ApiAccess("https://api.example", "tenant-1", "$KEY")
    values: dict[str, Any] = {"name": "orders", "directory": directory, "datatable_id": "t", "api": api}
    return Feed(**(values | {"settle": SETTLE, "exclude": ()} | changes))


class Known:
    """A ledger that knows every file but those named."""

    def __init__(self, *news: str) -> None:
        self.news = news

    async def unknown(self, versions: Sequence[FileVersion]) -> list[FileVersion]:
        return [version for version in versions if version.path in self.news]

    async def enqueue(self, versions: Sequence[FileVersion]) -> int:
        return len(versions)

    async def refuse(self, version: FileVersion, error: FileRefused) -> int:
        raise AssertionError(f"{version.path} is refused: {error}")


class Notes:
    """A ledger that notes what it is asked and told."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.questions: list[int] = []
        self.queued: dict[str, FileVersion] = {}
        self.refused: dict[str, FileRefused] = {}

    async def unknown(self, versions: Sequence[FileVersion]) -> list[FileVersion]:
        self.questions.append(len(versions))
        return await self.ledger.unknown(versions)

    async def enqueue(self, versions: Sequence[FileVersion]) -> int:
        count = await self.ledger.enqueue(versions)
        self.queued |= {version.path: version for version in versions}
        return count

    async def refuse(self, version: FileVersion, error: FileRefused) -> int:
        number = await self.ledger.refuse(version, error)
        self.refused[version.path] = error
        return number


class Running:
    """An intake at work, and what it has said."""

    def __init__(self, intake: Intake, notes: Notes) -> None:
        self.intake = intake
        self.notes = notes
        self.queued = notes.queued
        self.refused = notes.refused
        self.told: list[str] = []
        """"trouble: …" and "recovered", in order."""
        self.woken: list[str] = []

    def reasons(self) -> Mapping[str, str]:
        """Why each file waits."""
        return {path: wait.reason for path, wait in self.intake.waiting.items()}


@asynccontextmanager
async def made(
    feed: Feed, ledger_path: Path, *, rescan: float = NEVER, polling: bool = False
) -> AsyncIterator[Running]:
    """An intake that does not run yet. Its looks at a directory that is away come fast."""
    told: list[str] = []
    woken: list[str] = []

    def trouble(error: FeedBlocked | DiskTrouble) -> None:
        told.append(f"trouble: {error}")

    async with opened(ledger_path) as ledger:
        notes = Notes(ledger)
        intake = Intake(
            feed,
            notes,
            Hooks(woken.append, trouble, lambda: told.append("recovered")),
            rescan=rescan,
            polling=polling,
            clock=time.time,
            tick=0.1,
        )
        running = Running(intake, notes)
        running.told, running.woken = told, woken
        yield running


@asynccontextmanager
async def taking_in(
    feed: Feed, ledger_path: Path, *, rescan: float = NEVER, polling: bool = False
) -> AsyncIterator[Running]:
    """An intake that runs until the end of the block. By default it scans at its start alone."""
    async with made(feed, ledger_path, rescan=rescan, polling=polling) as running:
        task = asyncio.create_task(running.intake.run())
        try:
            yield running
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()


class Holder:
    """Another process that writes a file and keeps it open until it is told to close it."""

    def __init__(self, path: Path) -> None:
        script = (
            "import sys; f = open(sys.argv[1], 'w'); f.write('half'); f.flush(); print(flush=True); input(); f.close()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", script, os.fspath(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout
        self._process.stdout.readline()

    def close(self) -> None:
        """Let it close the file, and wait for its end."""
        self._process.communicate(b"\n")


@contextmanager
def unprivileged() -> Iterator[None]:
    """Without root's rights over other users' files, whoever runs the tests."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


async def ledger_for_all(path: Path) -> Path:
    """A ledger that is made already and that everybody may use: its migrations may lie where only root can read."""
    async with opened(path):
        """Making it is all."""
    for file in path.parent.glob(path.name + "*"):
        if os.geteuid() == 0:
            os.chown(file, 65_534, 65_534)
    return path


@contextmanager
def public_directory() -> Iterator[Path]:
    """A directory that every user can reach, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)
