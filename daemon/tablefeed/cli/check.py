"""`tablefeed check`: tries all that a delivery needs, short of delivering, and says how to mend what is wrong."""

import asyncio
import errno
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from tablefeed.archive.directories import probe_directories
from tablefeed.cli.console import Output
from tablefeed.cli.options import run_async, set_up_logs
from tablefeed.cli.words import plural
from tablefeed.clock import ServerClocks, steady
from tablefeed.config import KeyFile, Settings, key_sources, load, to_feeds, token_source, usable_token
from tablefeed.config.rules import in_both
from tablefeed.credentials import FileKey
from tablefeed.errors import DeliveryError, Exit, Fatal, LedgerUnusable, Transient
from tablefeed.http import make_session, tls_context
from tablefeed.ledger.engine import inspect_ledger
from tablefeed.model import ApiAccess, Feed
from tablefeed.processmind import ProcessMindApi
from tablefeed.watch.scan import Selection, scan
from tablefeed.webhook import assert_answers, origin_shown


class Mark(Enum):
    """How a finding is shown."""

    GOOD = "[green]ok[/]     "
    NOTE = "[yellow]note[/]   "
    BAD = "[red]wrong[/]  "


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried."""

    mark: Mark
    what: str
    remedy: str = ""
    code: Exit = Exit.DONE


def check(config: Path | None) -> None:
    """Try everything, tell each finding as it comes, and end with the code of the first that is wrong."""
    console = Output(soft_wrap=True)
    settings = load(config, os.environ)
    _show(console, Finding(Mark.GOOD, f"configuration: {plural(len(settings.feeds), 'feed')}"))
    codes = run_async(_check_all(console, settings))
    wrong = [code for code in codes if code is not Exit.DONE]
    verb = "is" if len(wrong) == 1 else "are"
    console.print(f"\n{plural(len(wrong), 'thing')} {verb} wrong." if wrong else "\nAll is well.")
    sys.exit(wrong[0] if wrong else Exit.DONE)


async def _check_all(console: Console, settings: Settings) -> list[Exit]:
    codes = []
    async for finding in _findings(settings):
        _show(console, finding)
        codes.append(finding.code)
    return codes


def _show(console: Console, finding: Finding) -> None:
    console.print(f"{finding.mark.value} {escape(finding.what)}")
    if finding.remedy:
        console.print(f"         [dim]{escape(finding.remedy)}[/]")


async def _findings(settings: Settings) -> AsyncIterator[Finding]:
    yield await asyncio.to_thread(_ledger, settings)
    feeds = to_feeds(settings, os.environ)
    keys: dict[str, FileKey] = {}
    for source in key_sources(settings, os.environ).values():
        try:
            keys[source.name] = await asyncio.to_thread(FileKey, source)
        except Fatal as error:
            yield Finding(Mark.BAD, error.what, error.remedy, error.exit_code)
            continue
        if await asyncio.to_thread(source.world_readable):
            yield Finding(Mark.NOTE, f"key {source.name} is readable by everybody", "chmod 600 protects it")
    set_up_logs(settings, keys)
    async for finding in _directories(feeds):
        yield finding
    async for finding in _api(settings, feeds, keys):
        yield finding
    async for finding in _webhooks(settings, feeds):
        yield finding
    if settings.http.address is not None:
        yield _port(*settings.http.address)
        for finding in await asyncio.to_thread(_token, token_source(settings)):
            yield finding


def _ledger(settings: Settings) -> Finding:
    try:
        return Finding(Mark.GOOD, inspect_ledger(settings.ledger.url))
    except LedgerUnusable as error:
        return Finding(Mark.BAD, error.what, error.remedy, error.exit_code)


def _port(host: str, port: int) -> Finding:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            what = f"[http] listen: {host}:{port} cannot be used: {os.strerror(error.errno or 0)}"
            if error.errno == errno.EADDRINUSE:
                return Finding(Mark.NOTE, what, "Well if that is the running tablefeed; else choose another port")
            return Finding(Mark.BAD, what, "Name an address of this machine and a free port", Exit.CANNOT_CREATE)
    return Finding(Mark.GOOD, f"[http] listen: {host}:{port} is free")


def _token(source: KeyFile | None) -> list[Finding]:
    if source is None:
        return []
    try:
        usable_token(source)
    except Fatal as error:
        return [Finding(Mark.BAD, error.what, error.remedy, error.exit_code)]
    found = [Finding(Mark.GOOD, f"[http] token_file: {source.path} holds the token for changes over HTTP")]
    if source.world_readable():
        found.append(Finding(Mark.NOTE, f"the token {source.name} is readable by everybody", "chmod 600 protects it"))
    return found


async def _directories(feeds: Sequence[Feed]) -> AsyncIterator[Finding]:
    for feed in feeds:
        async for finding in _directory(feed):
            yield finding
    for finding in await asyncio.to_thread(_twins, feeds):
        yield finding


async def _directory(feed: Feed) -> AsyncIterator[Finding]:
    findings = await asyncio.to_thread(probe_directories, feed)
    code = Exit.NO_PERMISSION if feed.directory.is_dir() else Exit.CONFIG
    for problem in findings.problems:
        yield Finding(Mark.BAD, problem.what, problem.remedy, code)
    for note in findings.notes:
        yield Finding(Mark.NOTE, f"feed {feed.name}: {note}")
    if not findings.problems:
        count = 0
        async for batch in scan(feed.directory, Selection(feed)):
            count += len(batch.entries)
        yield Finding(Mark.GOOD, f"feed {feed.name}: {feed.directory} holds {plural(count, 'file')} to deliver")


def _twins(feeds: Sequence[Feed]) -> list[Finding]:
    """Feeds that take the same files of one directory, where its names do not tell: by a link or a mount."""
    findings = []
    known: dict[tuple[int, int], list[Feed]] = {}
    for feed in feeds:
        try:
            found = feed.directory.stat()
        except OSError:  # told already
            continue
        neighbours = known.setdefault((found.st_dev, found.st_ino), [])
        for other in neighbours:
            if in_both(feed.include, other.include):
                findings.append(
                    Finding(
                        Mark.BAD,
                        f"feeds {other.name} and {feed.name} take the same files: {feed.directory} is the directory "
                        f"{other.directory}, by a link or a mount",
                        "Let only one of the two take them: which of them gets a file is left to chance",
                        Exit.CONFIG,
                    )
                )
        neighbours.append(feed)
    return findings


async def _api(settings: Settings, feeds: Sequence[Feed], keys: Mapping[str, FileKey]) -> AsyncIterator[Finding]:
    context = await asyncio.to_thread(tls_context, settings.upload.ca_file)
    async with make_session(settings.api.concurrency, context) as session:
        for access in dict.fromkeys(feed.api for feed in feeds):
            if access.key_name not in keys:
                continue
            api = ProcessMindApi(
                session,
                access,
                keys[access.key_name],
                clocks=ServerClocks(time.time, steady),
                wall=time.time,
                limit=asyncio.Semaphore(settings.api.concurrency),
            )
            async for finding in _tenant(api, access):
                yield finding
                if finding.code is not Exit.DONE:
                    break
            else:
                for feed in feeds:
                    if feed.api == access:
                        yield await _datatable(api, feed)


async def _webhooks(settings: Settings, feeds: Sequence[Feed]) -> AsyncIterator[Finding]:
    """Whether the receivers answer. No event is sent, and the path of a URL, which is often secret, is not used."""
    told = {feed.notify_url: feed for feed in feeds if feed.notify_url}
    if not told:
        return
    context = await asyncio.to_thread(tls_context, settings.upload.ca_file)
    async with make_session(1, context) as session:
        for url, feed in told.items():
            origin = origin_shown(url)
            signed = f"signed with {feed.notify_key}" if feed.notify_key else "not signed"
            try:
                await assert_answers(session, origin)
            except Transient as error:
                yield Finding(
                    Mark.BAD,
                    f"feed {feed.name}: webhook: {error}",
                    "Check notify_url, the network and the proxy variables; files are delivered all the same",
                    Exit.UNAVAILABLE,
                )
            else:
                yield Finding(Mark.GOOD, f"feed {feed.name}: webhook: {origin} answers; events are {signed}")


async def _tenant(api: ProcessMindApi, access: ApiAccess) -> AsyncIterator[Finding]:
    try:
        tenant = await api.tenant()
        yield Finding(Mark.GOOD, f"key {access.key_name}: {access.origin} accepts it")
        yield Finding(Mark.GOOD, f"tenant {tenant.id}: {tenant.display_name}")
        organization = await api.organization()
        yield Finding(Mark.GOOD, f"organization: {organization.display_name}")
        datasets = await api.datasets()
        names = ", ".join(f"{dataset.id} ({dataset.display_name})" for dataset in datasets)
        yield Finding(Mark.GOOD, f"datasets: {names}")
    except DeliveryError as error:
        yield _failure("", error)


async def _datatable(api: ProcessMindApi, feed: Feed) -> Finding:
    try:
        datatable = await api.datatable(feed.datatable_id)
        dataset_id = feed.dataset_id or await api.find_dataset(feed.datatable_id)
        dataset = await api.dataset(dataset_id)
    except DeliveryError as error:
        return _failure(f"feed {feed.name}: ", error)
    if feed.datatable_id not in [table.id for table in dataset.datatables]:
        return Finding(
            Mark.BAD,
            f"feed {feed.name}: dataset {dataset_id} does not hold the datatable {feed.datatable_id}",
            "Correct the feed's dataset_id, or leave it out to have it looked up",
            Exit.CONFIG,
        )
    names = f"datatable {datatable.id} ({datatable.display_name}) in dataset {dataset.id} ({dataset.display_name})"
    return Finding(Mark.GOOD, f"feed {feed.name} delivers to {names}")


def _failure(where: str, error: DeliveryError) -> Finding:
    remedy = getattr(error, "remedy", "")
    if isinstance(error, Transient):
        return Finding(
            Mark.BAD, f"{where}{error}", "Check base_url, the network and the proxy variables", Exit.UNAVAILABLE
        )
    return Finding(Mark.BAD, f"{where}{getattr(error, 'reason', error)}", remedy, Exit.CONFIG)
