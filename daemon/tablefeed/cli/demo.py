"""`tablefeed demo`: sandbox, daemon and sample exports together, with what happens to each file on the terminal."""

import asyncio
import hashlib
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from rich.markup import escape

from tablefeed.cli.console import Output
from tablefeed.cli.exports import WAYS, Way, event_log, named
from tablefeed.cli.options import quiet_logs, run_async
from tablefeed.errors import Exit, Fatal
from tablefeed.sandbox.server import RunningSandbox, SandboxSettings, running
from tablefeed.signals import Signals
from tablefeed.units import format_size

EXPORTS_EACH = 2
DEADLINE = 120.0
"""Seconds after which `--once` gives up."""
PAUSE = 4.0
"""Seconds between exports after the first ones."""
_CASES = 400


def demo(keep: Path | None, *, once: bool) -> None:
    """Show it, in `keep` or in a temporary directory."""
    quiet_logs()
    directory = (keep or Path(tempfile.mkdtemp(prefix="tablefeed-demo-"))).resolve()
    try:
        code = run_async(Demo(directory).run(once=once))
    except OSError as error:
        raise Fatal(
            f"{directory} cannot be used: {error.strerror}", "Name another directory with --keep", Exit.CANNOT_CREATE
        ) from None
    finally:
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    sys.exit(code)


class Demo:
    """One demonstration in one directory."""

    def __init__(self, directory: Path) -> None:
        """`directory` gets exports, objects, configuration and ledger."""
        self._directory = directory
        self._console = Output(soft_wrap=True)
        self._expected: set[str] = set()
        self._archived: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._ready = asyncio.Event()
        self._signals = Signals()
        self._token = secrets.token_urlsafe(12)
        self._random = Random(20_240_501)  # noqa: S311 - sample data

    async def run(self, *, once: bool) -> Exit:
        """Run until a signal, or until all samples are archived."""
        key = secrets.token_urlsafe(24)
        settings = SandboxSettings(self._directory / "processmind", key)
        async with self._signals.caught(), running(settings) as sandbox:
            config = self._configure(sandbox)
            self._introduce(sandbox)
            async with self._daemon(config, key) as daemon, asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._retell(daemon))
                exporting = tasks.create_task(self._export(forever=not once))
                asked = tasks.create_task(self._signals.drain.wait())
                done = tasks.create_task(self._all_archived()) if once else asked
                await asyncio.wait(
                    (asked, done, reading), timeout=DEADLINE if once else None, return_when="FIRST_COMPLETED"
                )
                for task in (exporting, asked, done):
                    task.cancel()
                if daemon.returncode is None:
                    daemon.send_signal(signal.SIGTERM)
                await reading
                code = await daemon.wait()
            return self._conclude(sandbox, code, once=once)

    def _configure(self, sandbox: RunningSandbox) -> Path:
        token = self._directory / "token"
        token.touch(mode=0o600)
        token.write_text(self._token + "\n")
        lines = [
            "[api]",
            f"base_url = {json.dumps(sandbox.base_url)}",
            'tenant_id = "tenant-123"',
            "[http]",
            'listen = "127.0.0.1:0"',
            f"token_file = {json.dumps(str(token))}",
            "[log]",
            'format = "json"',
            "[ledger]",
            f"url = {json.dumps(f'sqlite:///{self._directory}/ledger.db')}",
        ]
        for way in WAYS:
            directory = self._exports(way)
            directory.mkdir(parents=True, exist_ok=True)
            lines += [
                "[[feeds]]",
                f"name = {json.dumps(way.feed)}",
                f"directory = {json.dumps(str(directory))}",
                f"datatable_id = {json.dumps(way.datatable_id)}",
                f"ready = {json.dumps(way.ready)}",
                'settle = "500ms"',
            ]
        config = self._directory / "tablefeed.toml"
        config.write_text("\n".join(lines) + "\n")
        return config

    def _exports(self, way: Way) -> Path:
        return self._directory / "exports" / way.feed

    @asynccontextmanager
    async def _daemon(self, config: Path, key: str) -> AsyncIterator[Process]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TABLEFEED_")}
        daemon = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tablefeed",
            "run",
            "--config",
            str(config),
            env=environ | {"TABLEFEED_API_KEY": key},
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            yield daemon
        finally:
            if daemon.returncode is None:
                daemon.kill()
                await daemon.wait()

    async def _export(self, *, forever: bool) -> None:
        await self._ready.wait()
        number = 0
        while forever or number < EXPORTS_EACH:
            number += 1
            names = [named(way, number) for way in WAYS]
            self._expected.update(names)
            async with asyncio.TaskGroup() as writers:
                for way, name in zip(WAYS, names, strict=True):
                    text = event_log(number * 1000, _CASES, self._random, datetime(2026, 1, 5, 8, tzinfo=UTC))
                    self._tell(way.feed, name, f"[yellow]exporting[/] {format_size(len(text))}, {way.told_as}")
                    writers.create_task(way.write(self._exports(way) / name, text))
            if number >= EXPORTS_EACH:
                await asyncio.sleep(PAUSE)

    async def _retell(self, daemon: Process) -> None:
        """Tell the daemon's log as a story."""
        if daemon.stderr is None:
            raise AssertionError("the daemon's standard error is a pipe")
        async for line in daemon.stderr:
            try:
                event = json.loads(line)
            except ValueError:
                self._console.print(f"[red]{escape(line.decode(errors='replace').rstrip())}[/]")
                continue
            self._retell_event(event)

    def _retell_event(self, event: dict[str, Any]) -> None:
        feed, path = str(event.get("feed", "")), str(event.get("path", ""))
        match event["event"]:
            case "started" if event.get("http"):
                self._console.print(f"Watch it in a browser at http://{event['http']}/")
                self._console.print(f"The token for its buttons is {self._token}\n")
            case "ready":
                self._tell("daemon", "", "[green]watching[/] the directories of all feeds")
                self._ready.set()
            case "files_queued":
                self._tell(feed, path, "[cyan]whole[/], so it is queued")
            case "file_delivered":
                rate = f"{format_size(event['bytes'])} in {event['seconds'] * 1000:.0f} ms"
                self._tell(feed, path, f"[blue]delivered[/]: {rate}, checksum confirmed by the store")
            case "file_archived":
                place = Path(event["destination"]).relative_to(self._directory)
                self._tell(feed, path, f"[green]archived[/] in {escape(str(place.parent))}")
                self._archived[path] = event["destination"]
                self._changed.set()
            case "stopped":
                self._tell("daemon", "", "stopped in good order")
            case name if event.get("level") in ("warning", "error"):
                self._tell(feed or "daemon", path, f"[red]{name}[/]: {escape(str(event.get('reason', '')))}")

    def _tell(self, who: str, name: str, what: str) -> None:
        now = datetime.now().astimezone()
        self._console.print(f"[dim]{now:%H:%M:%S}[/]  [bold]{who:<16}[/] {escape(name):<36} {what}")

    async def _all_archived(self) -> None:
        while len(self._archived) < EXPORTS_EACH * len(WAYS):
            self._changed.clear()
            await self._changed.wait()

    def _introduce(self, sandbox: RunningSandbox) -> None:
        self._console.print(f"A stand-in for ProcessMind answers at {sandbox.base_url}.")
        self._console.print(f"The daemon runs with {self._directory}/tablefeed.toml.")
        self._console.print("Each feed gets purchase-to-pay event logs, written in one of the ways of exports.\n")

    def _conclude(self, sandbox: RunningSandbox, code: int, *, once: bool) -> Exit:
        """Compare what lies in the archive with what the store holds."""
        stored = sorted(_md5(path) for path in sandbox.objects.rglob("*") if path.is_file())
        kept = sorted(_md5(Path(path)) for path in self._archived.values())
        missing = self._expected - self._archived.keys()
        agreed = kept == stored
        verdict = "byte for byte the same." if agreed else "[red]and they differ.[/]"
        self._console.print(f"\n{len(self._archived)} of {len(self._expected)} exports are archived;", end=" ")
        self._console.print(f"the store holds {len(stored)} objects, {verdict}")
        if missing and not once:
            self._console.print("The others were still being written or checked when it was ended.")
        if once and missing:
            self._console.print(f"[red]Not archived: {escape(', '.join(sorted(missing)))}[/]")
        failed = code != 0 or (once and (missing or not agreed))
        return Exit.UNDELIVERED if failed else Exit.DONE


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
