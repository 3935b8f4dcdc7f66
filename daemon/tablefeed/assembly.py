"""Builds the parts of the daemon from the settings and takes them down again, in the right order."""

import asyncio
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from tablefeed.archive import Archiver
from tablefeed.clock import ServerClocks, steady
from tablefeed.config import KeySource, Settings
from tablefeed.dispatch import Dispatcher
from tablefeed.errors import DiskTrouble, Fatal, FeedBlocked, FileRefused
from tablefeed.gates import Gates
from tablefeed.http import make_session, tls_context
from tablefeed.intake import Intake
from tablefeed.ledger import Ledger
from tablefeed.model import ApiAccess, Feed, FileVersion
from tablefeed.pipeline import Pipeline, Ports
from tablefeed.presign import Presigner
from tablefeed.processmind import ProcessMindApi
from tablefeed.slots import FairSlots, Share
from tablefeed.upload import Uploader, grant_headers

log = structlog.get_logger("service")

_MOST_THREADS = 32


class FileKey:
    """An API key with the place that it comes from."""

    def __init__(self, source: KeySource) -> None:
        """Read it for the first time. Raises Fatal when it cannot be read."""
        self._source = source
        self.value = source.read()

    async def reread(self) -> str:
        """Read it again; what cannot be read leaves it as it was."""
        try:
            self.value = await asyncio.to_thread(self._source.read)
        except Fatal as error:
            log.warning("key_unreadable", source=self._source.name, reason=str(error))
        return self.value


@dataclass(frozen=True, slots=True)
class Parts:
    """The daemon, built and not yet running."""

    feeds: Mapping[str, Feed]
    ledger: Ledger
    pipeline: Pipeline
    dispatcher: Dispatcher
    slots: FairSlots
    gates: Gates
    intakes: Mapping[str, Intake]
    troubles: dict[str, str]
    """Feeds whose directory cannot be read now, with the reason of each."""
    changed: asyncio.Event
    """Set after each file that ended, and when a directory cannot be used."""


class _Inbox:
    """What the intakes need of the ledger."""

    def __init__(self, ledger: Ledger, pipeline: Pipeline) -> None:
        self.unknown = ledger.unknown
        self._ledger = ledger
        self._pipeline = pipeline

    async def enqueue(self, versions: Sequence[FileVersion]) -> None:
        count = await self._ledger.enqueue(versions)
        if count:
            names = {"path": versions[0].path} if len(versions) == 1 else {}
            log.info("files_queued", feed=versions[0].feed, count=count, **names)

    async def refuse(self, version: FileVersion, error: FileRefused) -> None:
        await self._pipeline.refuse(version, error)


class _Links:
    """Ties the rooms that tell each other something; each end is filled in when it is built."""

    def __init__(self) -> None:
        self.intakes: dict[str, Intake] = {}
        self.dispatcher: Dispatcher | None = None
        self.troubles: dict[str, str] = {}
        self.changed = asyncio.Event()

    def look(self, feed: str, path: str) -> None:
        if feed in self.intakes:
            self.intakes[feed].hint(path)

    def due(self, moment: int) -> None:
        if self.dispatcher:
            self.dispatcher.due_at(moment)

    def queued(self, feed: str) -> None:
        if self.dispatcher:
            self.dispatcher.wake(feed)

    def trouble(self, feed: str) -> Callable[[FeedBlocked | DiskTrouble], None]:
        def report(error: FeedBlocked | DiskTrouble) -> None:
            self.troubles[feed] = str(error)
            self.changed.set()
            log.error("directory_unusable", feed=feed, reason=str(error), effect="its files wait")

        return report

    def recovered(self, feed: str) -> Callable[[], None]:
        def report() -> None:
            if self.troubles.pop(feed, None):
                log.info("directory_usable_again", feed=feed)

        return report


async def _still_there(feed: Feed, version: FileVersion) -> bool:
    def look() -> bool:
        try:
            return version.describes(os.lstat(feed.directory / version.path))
        except OSError:
            return False

    return await asyncio.to_thread(look)


@asynccontextmanager
async def assembled(settings: Settings, feeds: Sequence[Feed], keys: Mapping[str, FileKey]) -> AsyncIterator[Parts]:
    """The daemon's parts, with an open ledger; at the end what they hold is put back and closed.

    `keys` maps `ApiAccess.key_name` to keys. Raises Fatal when a part cannot be built.
    """
    upload = settings.upload
    by_name = {feed.name: feed for feed in feeds}
    links = _Links()
    clocks = ServerClocks(time.time, steady)
    gates = Gates(steady, random.random)
    slots = FairSlots(upload.concurrency, lambda name: Share(by_name[name].concurrency, by_name[name].priority))
    context = await asyncio.to_thread(tls_context, upload.ca_file)
    ledger = Ledger(
        settings.ledger.url, owner=f"{socket.gethostname()}:{os.getpid()}", clock=time.time, sleep=asyncio.sleep
    )
    held = await ledger.open()
    if held:
        log.info("ledger_recovered", files=held, effect="what a killed daemon had begun goes on")
    with (
        ThreadPoolExecutor(min(_MOST_THREADS, upload.concurrency), thread_name_prefix="read") as readers,
        ThreadPoolExecutor(1, thread_name_prefix="move") as movers,
    ):
        archiver = Archiver(movers)
        async with make_session(upload.concurrency + settings.api.concurrency, context) as session:
            limit = asyncio.Semaphore(settings.api.concurrency)
            apis: dict[ApiAccess, ProcessMindApi] = {
                feed.api: ProcessMindApi(
                    session, feed.api, keys[feed.api.key_name], clocks=clocks, wall=time.time, limit=limit
                )
                for feed in feeds
            }
            for feed in feeds:
                gates.relate(feed.name, feed.api.origin)
            pipeline = Pipeline(
                by_name,
                ledger,
                Presigner(
                    apis.__getitem__,
                    ledger,
                    grant_headers,
                    clocks=clocks,
                    lifetime=settings.api.url_lifetime,
                    margin=upload.refresh_margin,
                ),
                Uploader(
                    session,
                    readers,
                    clocks=clocks,
                    wall=time.time,
                    stall_timeout=upload.stall_timeout,
                    allow_http=upload.allow_http,
                ),
                archiver,
                slots,
                gates,
                Ports(links.look, links.due, _still_there),
                wall=time.time,
                random=random.random,
                steady=steady,
            )
            links.dispatcher = Dispatcher(
                ledger,
                by_name,
                gates,
                pipeline.deliver,
                slots=upload.concurrency,
                wall=time.time,
                steady=steady,
                ended=links.changed.set,
            )
            inbox = _Inbox(ledger, pipeline)
            for feed in feeds:
                links.intakes[feed.name] = Intake(
                    feed,
                    inbox,
                    rescan=settings.watch.rescan,
                    polling=settings.watch.polling,
                    clock=time.time,
                    on_queued=links.queued,
                    on_trouble=links.trouble(feed.name),
                    on_recovered=links.recovered(feed.name),
                )
            try:
                yield Parts(
                    by_name,
                    ledger,
                    pipeline,
                    links.dispatcher,
                    slots,
                    gates,
                    links.intakes,
                    links.troubles,
                    links.changed,
                )
            finally:
                await archiver.close()
                await ledger.close()
