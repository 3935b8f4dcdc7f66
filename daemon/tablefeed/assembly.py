"""Builds the parts of the daemon from the settings and takes them down again, in the right order."""

import asyncio
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import aiohttp
import structlog

from tablefeed.archive import Archiver
from tablefeed.clock import ServerClocks, steady
from tablefeed.config import KeySource, Settings
from tablefeed.dispatch import Dispatcher, Front
from tablefeed.duplicates import Contents
from tablefeed.errors import DiskTrouble, Fatal, FeedBlocked, FileRefused
from tablefeed.gates import Gates
from tablefeed.housekeeping import Housekeeper
from tablefeed.http import make_session, tls_context
from tablefeed.intake import Intake
from tablefeed.lease import writer_of
from tablefeed.ledger import Ledger
from tablefeed.model import ApiAccess, Feed, FileVersion
from tablefeed.pipeline import Pipeline, Ports
from tablefeed.presence import assert_present
from tablefeed.presign import Presigner
from tablefeed.processmind import ProcessMindApi
from tablefeed.roster import Roster
from tablefeed.slots import FairSlots, Share
from tablefeed.upload import Uploader, digest, grant_headers

log = structlog.get_logger("service")

_MOST_THREADS = 32
_CHORES = 2
_CLOSING = 10.0
"""Seconds that moves under way get at the end."""


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
    """By the name of the feed, as `feeds`; both change with a reload."""
    roster: Roster[Intake]
    housekeeper: Housekeeper
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
        self._held: dict[str, str] = {}

    def front(self, feed: str) -> Front | None:
        return self.intakes[feed].front() if feed in self.intakes else None

    def held(self, feed: str, front: Front) -> None:
        path = front.ahead.path if front.ahead else ""
        if self._held.get(feed) != path:
            self._held[feed] = path
            log.info("feed_held", feed=feed, path=path, reason=front.reason, effect="those behind it wait for it")

    def forget(self, feed: str) -> None:
        self.troubles.pop(feed, None)
        self._held.pop(feed, None)

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
        path = feed.directory / version.path
        try:
            return version.describes(os.lstat(path))
        except (FileNotFoundError, NotADirectoryError):
            assert_present(feed.directory, version)
            return False
        except OSError as error:
            raise DiskTrouble(str(path), f"it cannot be looked at: {error.strerror}") from None

    return await asyncio.to_thread(look)


class _Archivers:
    """One archiver a feed, made when its first file is to be moved."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Archiver, ThreadPoolExecutor]] = {}

    def __call__(self, feed: str) -> Archiver:
        if feed not in self._made:
            executor = ThreadPoolExecutor(1, thread_name_prefix=f"move-{feed}")
            self._made[feed] = (Archiver(executor), executor)
        return self._made[feed][0]

    async def close(self) -> None:
        for archiver, executor in self._made.values():
            await archiver.close()
            executor.shutdown(wait=False)


@asynccontextmanager
async def assembled(settings: Settings, feeds: Sequence[Feed], keys: Mapping[str, FileKey]) -> AsyncIterator[Parts]:
    """The daemon's parts, with an open ledger; at the end what they hold is put back and closed.

    `keys` maps `ApiAccess.key_name` to keys. Raises Fatal when a part cannot be built.
    """
    context = await asyncio.to_thread(tls_context, settings.upload.ca_file)
    owner = f"{socket.gethostname()}:{os.getpid()}"
    ledger = Ledger(settings.ledger.url, owner=owner, clock=time.time, sleep=asyncio.sleep)
    held = await ledger.open()
    if held:
        log.info("ledger_recovered", files=held, effect="what a killed daemon had begun goes on")
    readers = ThreadPoolExecutor(min(_MOST_THREADS, settings.upload.concurrency), thread_name_prefix="read")
    chores = ThreadPoolExecutor(_CHORES, thread_name_prefix="chore")
    archivers = _Archivers()
    try:
        async with make_session(settings.upload.concurrency + settings.api.concurrency, context) as session:
            yield _connected(settings, feeds, keys, ledger, session, readers, chores, archivers)
    finally:
        readers.shutdown(wait=False)
        chores.shutdown(wait=False, cancel_futures=True)
        with suppress(TimeoutError):  # a share that hangs must not keep the daemon from ending
            async with asyncio.timeout(_CLOSING):
                await archivers.close()
        await ledger.close()


def _connected(
    settings: Settings,
    feeds: Sequence[Feed],
    keys: Mapping[str, FileKey],
    ledger: Ledger,
    session: aiohttp.ClientSession,
    readers: ThreadPoolExecutor,
    chores: ThreadPoolExecutor,
    archivers: _Archivers,
) -> Parts:
    by_name = {feed.name: feed for feed in feeds}
    links = _Links()
    clocks = ServerClocks(time.time, steady)
    gates = Gates(steady, random.random)
    for feed in feeds:
        gates.relate(feed.name, feed.api.origin)
    slots = FairSlots(settings.upload.concurrency, partial(_share, by_name))
    pipeline = Pipeline(
        by_name,
        ledger,
        _presigner(settings, keys, ledger, session, clocks),
        _uploader(settings, session, readers, clocks),
        Contents(ledger, partial(_digest, readers)),
        archivers,
        slots,
        gates,
        Ports(links.look, links.due, _still_there),
        wall=time.time,
        random=random.random,
        steady=steady,
    )
    dispatcher = Dispatcher(
        ledger,
        by_name,
        gates,
        pipeline.deliver,
        slots=settings.upload.concurrency,
        wall=time.time,
        steady=steady,
        ended=links.changed.set,
        front=links.front,
        held=links.held,
    )
    links.dispatcher = dispatcher
    make_intake = partial(_intake, settings, _Inbox(ledger, pipeline), links)
    links.intakes |= {feed.name: make_intake(feed) for feed in feeds}
    return Parts(
        feeds=by_name,
        ledger=ledger,
        pipeline=pipeline,
        dispatcher=dispatcher,
        slots=slots,
        gates=gates,
        intakes=links.intakes,
        roster=Roster(
            by_name, links.intakes, make_intake, dispatcher, gates, changed=links.changed, forget=links.forget
        ),
        housekeeper=Housekeeper(
            by_name,
            ledger,
            pipeline.set_aside_leftovers,
            chores,
            wall=time.time,
            history_keep=settings.ledger.history_keep,
        ),
        troubles=links.troubles,
        changed=links.changed,
    )


def _share(feeds: Mapping[str, Feed], name: str) -> Share:
    """A feed's share of the slots; one that is not served any more has no limit for what it still sends."""
    feed = feeds.get(name)
    return Share(feed.concurrency, feed.priority) if feed else Share(0, 0)


def _presigner(
    settings: Settings,
    keys: Mapping[str, FileKey],
    ledger: Ledger,
    session: aiohttp.ClientSession,
    clocks: ServerClocks,
) -> Presigner:
    limit = asyncio.Semaphore(settings.api.concurrency)

    @cache
    def api(access: ApiAccess) -> ProcessMindApi:
        return ProcessMindApi(session, access, keys[access.key_name], clocks=clocks, wall=time.time, limit=limit)

    return Presigner(
        api,
        ledger,
        grant_headers,
        clocks=clocks,
        lifetime=settings.api.url_lifetime,
        margin=settings.upload.refresh_margin,
    )


def _uploader(
    settings: Settings, session: aiohttp.ClientSession, readers: ThreadPoolExecutor, clocks: ServerClocks
) -> Uploader:
    return Uploader(
        session,
        readers,
        clocks=clocks,
        wall=time.time,
        stall_timeout=settings.upload.stall_timeout,
        allow_http=settings.upload.allow_http,
        writer_of=writer_of,
    )


async def _digest(readers: ThreadPoolExecutor, directory: Path, version: FileVersion) -> str:
    return await asyncio.get_running_loop().run_in_executor(readers, digest, directory, version, writer_of)


def _intake(settings: Settings, inbox: _Inbox, links: _Links, feed: Feed) -> Intake:
    return Intake(
        feed,
        inbox,
        rescan=settings.watch.rescan,
        polling=settings.watch.polling,
        clock=time.time,
        on_queued=links.queued,
        on_trouble=links.trouble(feed.name),
        on_recovered=links.recovered(feed.name),
    )
