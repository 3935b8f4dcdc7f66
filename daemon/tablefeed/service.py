"""The daemon's life: start, run, drain. `serve` runs until a signal, `deliver_once` until nothing is left to do."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from tablefeed import __version__
from tablefeed.assembly import FileKey, Parts, assembled
from tablefeed.clock import steady
from tablefeed.config import Settings, key_source, needs_restart, to_feeds
from tablefeed.errors import Exit, Fatal
from tablefeed.lease import ignore_lease_breaks
from tablefeed.model import Entry, State
from tablefeed.signals import Signals
from tablefeed.systemd import Notifier
from tablefeed.web.server import make_app, running

log = structlog.get_logger("service")

PATIENCE = 30.0
"""Seconds that `--once` waits for a file to become whole, and for a delivery to succeed, before it leaves the rest."""
_LEDGER_PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class Left:
    """What `--once` did not deliver: (feed, path, why)."""

    files: tuple[tuple[str, str, str], ...] = ()
    troubles: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> Exit:
        """0 when nothing was left."""
        return Exit.UNDELIVERED if self.files or self.troubles else Exit.DONE


def read_keys(settings: Settings, environ: Mapping[str, str]) -> dict[str, FileKey]:
    """The API keys by the names of their sources. Raises Fatal when one cannot be read."""
    sources = {source.name: source for feed in settings.feeds for source in [key_source(settings, feed, environ)]}
    return {name: FileKey(source) for name, source in sources.items()}


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
            _served(parts, self._settings.http.listen) as address,
        ):
            log.info("started", version=__version__, feeds=len(self._feeds), http=address)
            with _unwrapped():
                await self._run(parts)
        log.info("stopped")

    async def _run(self, parts: Parts) -> None:
        async with asyncio.TaskGroup() as tasks:
            dispatching = tasks.create_task(parts.dispatcher.run(), name="dispatcher")
            parts.roster.start(tasks)
            await _tell_of_orphans(parts)
            chores: list[Coroutine[Any, Any, None]] = [
                self._announce(parts),
                parts.housekeeper.run(),
                self._feed_watchdog(),
                self._reload_when_asked(parts),
            ]
            background = [tasks.create_task(chore) for chore in chores]
            await self._signals.drain.wait()
            self._notifier.stopping()
            for task in background:
                task.cancel()
            parts.roster.stop()
            parts.slots.drain()
            parts.dispatcher.stop()
            await self._drained(parts, dispatching)

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
            await _first(slow[0].first_scan.wait(), parts.changed.wait())
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
        changes = await parts.roster.change(feeds)
        log.info("reloaded", feeds=len(feeds), added=changes.added, changed=changes.changed, removed=changes.removed)
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
                async with asyncio.TaskGroup() as tasks:
                    dispatching = tasks.create_task(parts.dispatcher.run())
                    stopped = tasks.create_task(self._signals.drain.wait())
                    work = tasks.create_task(_once(parts))
                    await asyncio.wait((stopped, work), return_when=asyncio.FIRST_COMPLETED)
                    stopped.cancel()
                    waiting = work.result() if work.done() else ()
                    work.cancel()
                    parts.slots.drain()
                    parts.dispatcher.stop()
                    await self._drained(parts, dispatching)
            left = [
                (entry.version.feed, entry.version.path, _why(entry, reason))
                for entry, reason in await parts.ledger.open_entries([*parts.feeds], limit=1000)
            ]
            files = (*waiting, *left, *parts.pipeline.rejected)
            for feed, path, reason in files:
                log.warning("not_delivered", feed=feed, path=path, reason=reason)
            log.info("pass_ended", delivered=parts.pipeline.delivered, left=len(files), troubles=len(parts.troubles))
            return Left(files, dict(parts.troubles))


def _why(entry: Entry, reason: str | None) -> str:
    if entry.state is State.UPLOADED:
        return f"it was delivered, but could not be archived yet: {reason}"
    return reason or "it was not its turn yet"


async def _once(parts: Parts) -> tuple[tuple[str, str, str], ...]:
    """Queue all that is whole, then wait until it is delivered or nothing has moved for a while."""
    await parts.housekeeper.tidy()
    while True:
        waiting = await _settled(parts)
        began = steady()
        while not await _exhausted(parts, began):
            parts.changed.clear()
            await _first(parts.changed.wait(), asyncio.sleep(1.0))
        if not any(intake.has_hints for intake in parts.intakes.values()):
            return waiting


async def _settled(parts: Parts) -> tuple[tuple[str, str, str], ...]:
    """Queue all that is whole; returns (feed, path, why) of what is not."""
    intakes = parts.intakes.items()
    left = await asyncio.gather(*(intake.settle_all(PATIENCE) for _, intake in intakes))
    return tuple(
        (name, path, wait.reason)
        for (name, _), paths in zip(intakes, left, strict=True)
        for path, wait in paths.items()
    )


async def _exhausted(parts: Parts, began: float) -> bool:
    """Whether nothing is left to do, or what is left has not moved for long enough, counted from `began` on."""
    if parts.dispatcher.in_flight:
        return False
    waiting = {feed for feed, _ in await parts.ledger.counts() if feed in parts.feeds}
    if waiting <= set(parts.gates.paused()):
        return True
    return steady() - max(began, parts.pipeline.progressed_at) > PATIENCE


async def _tell_of_orphans(parts: Parts) -> None:
    """Files that were queued for feeds which the configuration does not have any more."""
    waiting: Counter[str] = Counter()
    for (feed, _), count in (await parts.ledger.counts()).items():
        waiting[feed] += count
    for name in sorted(waiting.keys() - parts.feeds.keys()):
        log.warning(
            "feed_missing",
            feed=name,
            queued=waiting[name],
            effect="these files wait until the configuration has a feed of that name again",
        )


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait for the first of these, and cancel the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


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
async def _served(parts: Parts, listen: str) -> AsyncIterator[str | None]:
    """Serve over HTTP while the block runs; gives the address, None where HTTP is turned off."""
    if not listen:
        yield None
        return
    async with running(make_app(_Health(parts)), listen) as address:
        yield str(address)


class _Health:
    """What `/readyz` tells."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def problems(self) -> list[str]:
        """Why the daemon cannot deliver everything now; empty when it can."""
        try:
            async with asyncio.timeout(_LEDGER_PATIENCE):
                await self._parts.ledger.next_due(0)
        except TimeoutError:
            return ["the ledger does not answer; is its disk full?"]
        return [f"{feed}: {reason}" for feed, reason in self._parts.troubles.items()]
