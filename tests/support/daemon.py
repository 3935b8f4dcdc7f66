"""The real daemon as a process of its own, and what its log and its files say."""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pytest
from psycopg.rows import dict_row

from support.patience import PATIENCE

KEY = "k3y-that-nobody-may-see"


def clean_environ(**more: str) -> dict[str, str]:
    """The environment without settings, proxies and terminal of the machine that the tests run on."""
    unwanted = (
        *("TABLEFEED_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NOTIFY_SOCKET", "CREDENTIALS_"),
        *("COLUMNS", "LINES"),
    )
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(unwanted)}
    return kept | more


@dataclass
class Site:
    """A place with a configuration: feeds, ledger, key."""

    root: Path
    base_url: str
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    feeds: dict[str, dict[str, Any]] = field(default_factory=dict)
    ledger_directory: Path | None = None
    """Where the ledger's file lies; None: in `root`."""
    url: str = field(default_factory=lambda: Site.database())
    """Of the ledger's database; empty: it is a file."""
    database: ClassVar[Callable[[], str]] = str
    """What makes an empty database for each new site; as it is, there are none."""

    def feed(self, name: str, **settings: Any) -> Path:
        """Add a feed and make its directory."""
        directory = self.root / "drop" / name
        directory.mkdir(parents=True, exist_ok=True)
        self.feeds[name] = {"directory": str(directory), "datatable_id": "table-456", "settle": "100ms"} | settings
        return directory

    @property
    def config(self) -> Path:
        """The configuration as a file, written anew."""
        key = self.root / "api-key"
        if not key.exists():
            key.write_text(KEY + "\n")
            key.chmod(0o600)
        sections: dict[str, dict[str, Any]] = {
            "api": {"base_url": self.base_url, "tenant_id": "tenant-123", "api_key_file": str(key)},
            "ledger": {"url": self.url or f"sqlite:///{self.ledger}"},
            "http": {"listen": ""},
            "log": {"format": "json", "level": "debug"},
        }
        for name, values in self.sections.items():
            sections.setdefault(name, {}).update(values)
        lines = []
        for name, values in sections.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        for name, values in self.feeds.items():
            lines += ["[[feeds]]", f"name = {json.dumps(name)}"]
            lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        path = self.root / "tablefeed.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return (self.ledger_directory or self.root) / "ledger.db"

    def rows(self, query: str) -> list[dict[str, Any]]:
        """What the ledger answers, read beside whoever writes."""
        if self.url:
            with psycopg.connect(self.url.replace("+psycopg", ""), row_factory=dict_row) as conn:
                return conn.execute(query.encode()).fetchall()
        with closing(sqlite3.connect(f"file:{self.ledger}?mode=ro", uri=True, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query)]

    def archived(self, feed: str) -> dict[str, bytes]:
        """The content of the feed's archive by name."""
        return contents(Path(self.feeds[feed]["directory"]) / "archive")

    def dropped(self, feed: str) -> set[str]:
        """Names that still lie in the feed's directory."""
        return {path.name for path in Path(self.feeds[feed]["directory"]).iterdir() if path.is_file()}


def contents(directory: Path) -> dict[str, bytes]:
    """All files below a directory by name."""
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def rename_in(directory: Path, name: str, content: bytes) -> None:
    """Drop a file as careful producers do: written under another name, then renamed over what lies there."""
    part = directory / ".next.part"
    part.write_bytes(content)
    part.rename(directory / name)


class Daemon:
    """A running `tablefeed run`, whose log is read as it comes."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.events: list[dict[str, Any]] = []
        self._news = asyncio.Condition()
        self._ended = False

    async def read(self) -> None:
        """Collect the log until it ends."""
        assert self.process.stderr is not None
        async for raw in self.process.stderr:
            line = raw.decode()
            self.lines.append(line)
            try:
                self.events.append(json.loads(line))
            except ValueError:
                self.events.append({"event": "no_json", "text": line})
            async with self._news:
                self._news.notify_all()
        async with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def log(self) -> str:
        """All that it has written."""
        return "".join(self.lines)

    def named(self, event: str) -> list[dict[str, Any]]:
        """The events of one name so far."""
        return [entry for entry in self.events if entry.get("event") == event]

    def moments(self, event: str, path: str) -> list[float]:
        """When an event of a path was logged, in Unix seconds."""
        found = [entry for entry in self.named(event) if entry.get("path") == path]
        return [datetime.fromisoformat(entry["timestamp"]).timestamp() for entry in found]

    async def until(self, condition: Callable[[], object], patience: float = PATIENCE) -> None:
        """Wait until a condition holds after some line of the log."""
        try:
            async with asyncio.timeout(patience), self._news:
                while not condition():
                    assert not self._ended, f"the daemon ended:\n{self.log[-4000:]}"
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"it did not happen within {patience} s:\n{self.log[-4000:]}") from None

    async def until_event(self, name: str, count: int = 1, patience: float = PATIENCE) -> None:
        """Wait until an event has been logged `count` times."""
        await self.until(lambda: len(self.named(name)) >= count, patience)

    async def death(self, patience: float = PATIENCE) -> int:
        """Wait until it has ended by itself, and return the exit code."""
        try:
            async with asyncio.timeout(patience):
                return await self.process.wait()
        except TimeoutError:
            raise AssertionError(f"it did not end within {patience} s:\n{self.log[-4000:]}") from None

    async def end(self, number: int = signal.SIGTERM, patience: float = PATIENCE) -> int:
        """Send a signal and return the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(patience):
            return await self.process.wait()

    def peak_memory(self) -> int:
        """The most memory it has ever used, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024


WITHOUT_OVERRIDE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
"""Before a command: root without the rights that permissions do not bind."""
as_a_user = pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may everything, and there is no setpriv"
)


def bound_by_permissions() -> Sequence[str]:
    """What to put before a command so that permissions bind it, whoever runs the tests."""
    return WITHOUT_OVERRIDE if os.geteuid() == 0 else ()


@asynccontextmanager
async def running_daemon(
    config: Path,
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    program: Sequence[str] = ("-m", "tablefeed"),
) -> AsyncIterator[Daemon]:
    """Start the daemon; at the end it is killed, should it still run.

    `prefix`: a command that starts it; `program`: what Python is to run.
    """
    process = await asyncio.create_subprocess_exec(
        *prefix,
        sys.executable,
        *program,
        "run",
        "--config",
        str(config),
        *arguments,
        env=clean_environ(**(environ or {})),
        stderr=asyncio.subprocess.PIPE,
        limit=2**24,
        start_new_session=True,  # Ctrl-C is for those who run the tests
    )
    daemon = Daemon(process)
    reading = asyncio.create_task(daemon.read())
    try:
        yield daemon
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def command(*arguments: str, environ: Mapping[str, str] | None = None, **options: Any) -> tuple[int, str, str]:
    """Run a tablefeed command to its end: (exit code, standard output, standard error)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tablefeed",
        *arguments,
        env=clean_environ(COLUMNS="300", **(environ or {})),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        **options,
    )
    try:
        async with asyncio.timeout(PATIENCE * 2):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
