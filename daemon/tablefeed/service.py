"""The daemon's life: start, run, drain. `serve` runs until a signal, `deliver_once` until nothing is left to do."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import structlog

from tablefeed import __version__
from tablefeed.assembly import Parts, assembled
from tablefeed.clock import steady
from tablefeed.config import Settings, key_sources, needs_restart, to_feeds, token_source
from tablefeed.credentials import FileKey
from tablefeed.errors import Fatal
from tablefeed.joining import know
from tablefeed.lease import ignore_lease_breaks
from tablefeed.news import Rest
from tablefeed.once import Left, deliver_all, first_of, left_of
from tablefeed.overview import Overview
from tablefeed.panel import Panel
from tablefeed.signals import Signals
from tablefeed.systemd import Notifier
from tablefeed.web.server import make_app, running

log = structlog.get_logger("service")

_LAST_WORDS = 10.0
"""Seconds that webhooks get to be told what has happened, at the end."""
_LONGEST_REST = 20.0
"""Seconds between two looks at what `systemctl status` shows, at most."""


def read_keys(settings: Settings, environ: Mapping[str, str]) -> dict[str, FileKey]:
    """API keys and webhook secrets by the names of their sources. Raises Fatal when one cannot be read."""
    return {name: FileKey(source) for name, source in key_sources(settings, environ).items()}


class Service:
    """One daemon. Both methods raise Fatal when it cannot run, and only then."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        keys: dict[str, FileKey],
        reread: Callable[[], Settings] | None = None,
    ) -> None:
        """`environ` is that of the process. `keys` gets the keys that a reload brings.

        `reread` reads the settings anew, for a reload; without it they stay as they are. It raises Fatal.
        """
        self._settings = settings
        self._environ = environ
        self._keys = keys
        self._reread = reread or (lambda: settings)
        self._feeds = to_feeds(settings, environ)
        self._notifier = Notifier(environ)
        self._signals = Signals()

    async def serve(self) -> None:
        """Deliver until a signal comes, then drain."""
        ignore_lease_breaks()
        async with (
            self._signals.caught(),
            assembled(self._settings, self._feeds, self._keys) as parts,
        ):
            overview = Overview(parts, wall=time.time, steady=steady)
            panel = Panel(parts, overview, token_source(self._settings))
            async with _served(panel, self._settings.http.listen) as address:
                log.info("started", version=__version__, feeds=len(self._feeds), http=address)
                with _unwrapped():
                    await self._run(parts, overview)
        log.info("stopped")

    async def _run(self, parts: Parts, overview: Overview) -> None:
        async with asyncio.TaskGroup() as tasks:
            dispatching = tasks.create_task(parts.dispatcher.run(), name="dispatcher")
            parts.roster.start(tasks)
            await _tell_of_orphans(parts)
            webhooks = tasks.create_task(parts.webhooks.run(), name="webhooks")
            member = _in_fleet(parts, tasks)
            chores: list[Coroutine[Any, Any, None]] = [
                self._announce(parts),
                parts.housekeeper.run(),
                parts.freshness.run(),
                self._feed_watchdog(),
                parts.pauses.run(parts.ledger.paused),
                parts.pulse.run(),
                parts.disks.run(),
                self._reload_when_asked(parts),
                overview.recall(),
            ]
            background = [tasks.create_task(chore) for chore in chores]
            rest = Rest(parts.news, _LONGEST_REST)
            telling = tasks.create_task(self._notifier.keep_status(overview.snapshot, rest))
            await self._signals.drain.wait()
            self._notifier.stopping(self._settings.service.shutdown_grace)
            overview.draining = True
            for task in background:
                task.cancel()
            parts.roster.stop()
            parts.slots.drain()
            parts.dispatcher.stop()
            ends_at = steady() + self._settings.service.shutdown_grace
            await self._drained(parts, dispatching)
            await self._told_last(parts, webhooks, min(_LAST_WORDS, ends_at - steady()))
            telling.cancel()
            for task in member:
                task.cancel()

    async def _told_last(self, parts: Parts, webhooks: asyncio.Task[None], patience: float) -> None:
        """Let webhooks be told what has just happened; the outbox keeps the rest for the next start."""
        await first_of(parts.webhooks.flush(patience), self._signals.end.wait())
        webhooks.cancel()

    async def _drained(self, parts: Parts, dispatching: asyncio.Task[None]) -> None:
        log.info("draining", uploads=parts.slots.busy, grace=self._settings.service.shutdown_grace)
        ended = asyncio.create_task(self._signals.end.wait())
        try:
            await asyncio.wait(
                (dispatching, ended),
                timeout=self._settings.service.shutdown_grace,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            ended.cancel()
        if not dispatching.done():
            log.warning("uploads_cut_off", uploads=parts.slots.busy, effect="they are sent again at the next start")
            dispatching.cancel()

    async def _announce(self, parts: Parts) -> None:
        """Tell systemd that the daemon is ready: the ledger is open and every feed's first scan has begun or failed."""
        while slow := [
            intake
            for name, intake in parts.intakes.items()
            if not intake.first_scan.is_set() and name not in parts.troubles
        ]:
            parts.changed.clear()
            await first_of(slow[0].first_scan.wait(), parts.changed.wait())
        self._notifier.ready()
        log.info("ready", feeds=len(parts.feeds), troubles=len(parts.troubles))

    async def _reload_when_asked(self, parts: Parts) -> None:
        while True:
            await self._signals.reload.wait()
            self._signals.reload.clear()
            self._notifier.reloading()
            await self._reload(parts)
            self._notifier.ready()

    async def _reload(self, parts: Parts) -> None:
        """Serve the feeds that the configuration names now; one with errors changes nothing."""
        try:
            settings = await asyncio.to_thread(self._reread)
            keys = await asyncio.to_thread(read_keys, settings, self._environ)
            feeds = to_feeds(settings, self._environ)
        except Fatal as error:
            log.error("reload_refused", reason=str(error), effect="nothing was changed; the daemon goes on as before")
            return
        for name, key in keys.items():
            self._keys.setdefault(name, key).value = key.value
        parts.throttle.follow(settings.upload.bandwidth)
        parts.slots.change(settings.upload.concurrency)
        await know(parts.ledger, feeds)
        changes = await parts.roster.change(feeds)
        log.info("reloaded", feeds=len(feeds), added=changes.added, changed=changes.changed, removed=changes.removed)
        parts.webhooks.reload()
        parts.freshness.reload()
        await _tell_of_orphans(parts)
        if fixed := needs_restart(self._settings, settings):
            log.warning("reload_partial", keys=fixed, remedy="restart the daemon: these are read at its start only")

    async def _feed_watchdog(self) -> None:
        interval = self._notifier.watchdog_interval
        while interval is not None:
            self._notifier.watchdog()
            await asyncio.sleep(interval)

    async def deliver_once(self) -> Left:
        """Deliver what is there, and return what was not delivered."""
        ignore_lease_breaks()
        async with self._signals.caught(), assembled(self._settings, self._feeds, self._keys) as parts:
            with _unwrapped():
                waiting = await self._pass(parts)
            return await left_of(parts, waiting)

    async def _pass(self, parts: Parts) -> tuple[tuple[str, str, str], ...]:
        """Deliver what is there, or until a signal comes; returns (feed, path, why) of what is not whole."""
        async with asyncio.TaskGroup() as tasks:
            dispatching = tasks.create_task(parts.dispatcher.run())
            webhooks = tasks.create_task(parts.webhooks.run())
            member = _in_fleet(parts, tasks)
            stopped = tasks.create_task(self._signals.drain.wait())
            work = tasks.create_task(deliver_all(parts))
            await asyncio.wait((stopped, work), return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            is_whole = work.done()
            waiting = work.result() if is_whole else ()
            work.cancel()
            parts.slots.drain()
            parts.dispatcher.stop()
            await self._drained(parts, dispatching)
            if is_whole:
                await parts.freshness.judge_all()
            await self._told_last(parts, webhooks, _LAST_WORDS)
            for task in member:
                task.cancel()
        return waiting


def _in_fleet(parts: Parts, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
    """Be one node among others; none of it where there is no fleet."""
    return [tasks.create_task(part.run()) for part in (parts.fleet, parts.listener) if part is not None]


async def _tell_of_orphans(parts: Parts) -> None:
    """Files that were queued for feeds which the configuration does not have any more."""
    for name, queued in sorted((await parts.ledger.orphans([*parts.feeds])).items()):
        log.warning(
            "feed_missing",
            feed=name,
            queued=queued,
            effect="these files wait until the configuration has a feed of that name again",
        )


@contextmanager
def _unwrapped() -> Iterator[None]:
    """Raise the Fatal that a TaskGroup has wrapped, by itself."""
    try:
        yield
    except BaseExceptionGroup as group:
        for error in _leaves(group):
            if isinstance(error, Fatal):
                raise error from None
        raise


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


@asynccontextmanager
async def _served(panel: Panel, listen: str) -> AsyncIterator[str | None]:
    """Serve over HTTP while the block runs; gives the address, None where HTTP is turned off."""
    if not listen:
        yield None
        return
    async with running(make_app(panel), listen) as address:
        yield str(address)
