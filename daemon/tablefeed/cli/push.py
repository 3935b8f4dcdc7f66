"""`tablefeed push`: deliver files now, without the daemon."""

import asyncio
import os
import random
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column

from tablefeed.cli.options import run_async, set_up_logs
from tablefeed.cli.words import plural, shown
from tablefeed.client import Prepared, ProcessMindClient
from tablefeed.config import Settings, key_source, load
from tablefeed.config.model import FeedSettings
from tablefeed.errors import DeliveryError, Exit, GrantExpired, Transient
from tablefeed.model import Receipt
from tablefeed.retry import backoff
from tablefeed.service import read_keys
from tablefeed.units import format_size
from tablefeed.upload import Progress as Sent

_AT_A_TIME = 16
"""Files at a time where the configuration leaves that to the daemon."""
TRIES = 4
"""How often a file is sent whose failure may pass."""
_REFRESH = 0.1


def push(files: Sequence[Path], feed: str, config: Path | None) -> None:
    """Deliver the files, and end with 1 when one was not."""
    settings = load(config, os.environ)
    feeds = {it.name: it for it in settings.feeds}
    if feed not in feeds:
        raise typer.BadParameter(
            f"the configuration has no feed {feed}; it has {', '.join(feeds)}", param_hint="--feed"
        )
    keys = read_keys(settings, os.environ)
    set_up_logs(settings, keys)
    source = key_source(settings, feeds[feed], os.environ).name
    failed = run_async(_push_all(settings, feeds[feed], (source, keys[source].value), files))
    sys.stdout.write(f"{plural(len(files) - failed, 'file')} delivered" + (f", {failed} not.\n" if failed else ".\n"))
    sys.exit(Exit.UNDELIVERED if failed else Exit.DONE)


async def _push_all(settings: Settings, feed: FeedSettings, key: tuple[str, str], files: Sequence[Path]) -> int:
    """Send all; returns how many failed. `key`: where it comes from, and the key itself."""
    client = ProcessMindClient(
        key[1],
        feed.tenant_id or settings.api.tenant_id or "",
        base_url=feed.base_url or settings.api.base_url,
        ca_file=settings.upload.ca_file,
        stall_timeout=settings.upload.stall_timeout,
        allow_http=settings.upload.allow_http,
        key_name=key[0],
    )
    slots = asyncio.Semaphore(feed.concurrency or settings.upload.concurrency or _AT_A_TIME)
    with _bars() as bars:
        async with client:
            outcomes = await asyncio.gather(*(_push(client, feed, file, slots, bars) for file in files))
    return outcomes.count(False)


@contextmanager
def _bars() -> Iterator[Progress]:
    """Progress bars on a terminal, and nothing elsewhere."""
    console = Console(stderr=True)
    name = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = (name, BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(
        *columns,
        console=console,
        disable=not console.is_terminal,
        transient=True,
        # What is told of files that are done goes where the output goes, which may be a file.
        redirect_stdout=sys.stdout.isatty(),
    ) as bars:
        yield bars


async def _push(
    client: ProcessMindClient, feed: FeedSettings, file: Path, slots: asyncio.Semaphore, bars: Progress
) -> bool:
    async with slots:
        name = shown(str(file))
        bar = bars.add_task(shown(file.name), total=None)
        try:
            await asyncio.to_thread(_assert_regular, file)
            receipt = await _try(client, feed, file, bars, bar)
        except OSError as error:
            sys.stderr.write(f"{name}: {error.strerror or error}\n")
        except DeliveryError as error:
            sys.stderr.write(f"{name}: {shown(str(error))}\n")
        else:
            confirmed = ", checksum confirmed by the store" if receipt.verified else ""
            seconds = (receipt.finished_at - receipt.started_at) / 1000
            sys.stdout.write(f"{name}: {format_size(receipt.size)} delivered in {seconds:.3g} s{confirmed}\n")
            return True
        finally:
            bars.remove_task(bar)
    return False


def _assert_regular(file: Path) -> None:
    """Raises OSError for what is missing, and for what has no content of its own."""
    mode = file.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError("is a directory; name the files in it")
    if not stat.S_ISREG(mode):
        raise OSError("is no regular file, so its length is not known; write it to one first")


async def _try(client: ProcessMindClient, feed: FeedSettings, file: Path, bars: Progress, bar: TaskID) -> Receipt:
    """Send one file, again where that may help, and to the same object while that is possible.

    Raises what the last try raised.
    """
    prepared: Prepared | None = None
    for attempt in range(1, TRIES + 1):
        try:
            if prepared is None:
                prepared = await client.prepare(file, feed.datatable_id, dataset_id=feed.dataset_id)
            return await _send(client, prepared, bars, bar)
        except GrantExpired:
            if attempt == TRIES:
                raise
            prepared = None
        except Transient as error:
            if attempt == TRIES:
                raise
            await asyncio.sleep(backoff(attempt, random.random, error.retry_after))
    raise AssertionError("the last try returns or raises")


async def _send(client: ProcessMindClient, prepared: Prepared, bars: Progress, bar: TaskID) -> Receipt:
    sent = Sent(prepared.version.size)
    watching = asyncio.create_task(_watch(sent, bars, bar))
    try:
        return await client.send(prepared, sent)
    finally:
        watching.cancel()


async def _watch(sent: Sent, bars: Progress, bar: TaskID) -> None:
    while True:
        bars.update(bar, total=sent.size, completed=sent.sent())
        await asyncio.sleep(_REFRESH)
