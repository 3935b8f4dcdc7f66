"""Puts together what the daemon is doing now, from its parts and its ledger."""

import asyncio
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import structlog

from tablefeed import __version__
from tablefeed.assembly import Parts
from tablefeed.clock import on_wall
from tablefeed.errors import LedgerUnusable
from tablefeed.fleetstatus import NODES_SHOWN, feeds_of_all, fleet_status
from tablefeed.gates import Closed
from tablefeed.history import trouble_of
from tablefeed.ledger.census import Census
from tablefeed.ledger.feeds import FeedRecord
from tablefeed.model import Feed, printable
from tablefeed.nodes import NO_FLEET, FleetStatus
from tablefeed.status import (
    SEE_TO_THE_EXPORT,
    FeedStatus,
    FileTrouble,
    Kind,
    MinuteStatus,
    ServerStatus,
    Snapshot,
    StoreStatus,
    Trouble,
    UploadStatus,
    stale_since,
    state_of,
)
from tablefeed.tally import Common, Tally
from tablefeed.units import format_duration

log = structlog.get_logger("status")

SHOWN = 50
"""Files with trouble that are listed."""
LEAST_AGE = 0.5
"""Seconds for which what the ledger has told is told again, at least."""
SHARE = 20
"""What the ledger has told is told again for so many times what it took, so that a large one is not kept busy."""
PATIENCE = 5.0
"""Seconds that the ledger gets for its answer."""
RATE_WINDOW = 5.0
"""Seconds over which the rate of an upload is measured."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What the ledger has told last."""

    census: Census
    files: tuple[FileTrouble, ...]
    problem: str
    at: float
    took: float
    fleet: FleetStatus


class Rates:
    """How fast each upload is now, from how far it was at the last looks. `clock` gives seconds that only grow."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """No upload has been looked at."""
        self._clock = clock
        self._looks: dict[int, list[tuple[float, int]]] = {}

    def rate(self, upload: int, started: float, sent: int) -> float:
        """Bytes a second of an upload that began at `started`, over the last seconds."""
        now = self._clock()
        looks = self._looks.setdefault(upload, [(started, 0)])
        if sent < looks[-1][1]:
            looks[:] = [(started, 0)]
        looks.append((now, sent))
        while len(looks) > 2 and looks[1][0] <= now - RATE_WINDOW:
            del looks[0]
        since, before = looks[0]
        return (sent - before) / (now - since) if now > since else 0.0

    def keep(self, uploads: Iterable[int]) -> None:
        """Forget all others."""
        self._looks = {upload: self._looks[upload] for upload in uploads if upload in self._looks}


class Overview:
    """Looks at a running daemon. Raises nothing."""

    def __init__(self, parts: Parts, *, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        """`wall` gives Unix seconds; `steady` is the clock of the gates."""
        self._parts = parts
        self._wall = wall
        self._steady = steady
        self._on_wall = on_wall(wall, steady)
        self._started_at = round(wall() * 1000)
        self._rates = Rates(steady)
        self._told = _Told(Census(), (), "", float("-inf"), 0.0, NO_FLEET)
        self._asking = asyncio.Lock()
        self._node = parts.ledger.node
        self._common = Common(wall) if self._node else None
        """None: what this daemon delivers is all."""
        self.draining = False
        """The daemon is ending."""

    async def snapshot(self) -> Snapshot:
        """The daemon now. What comes from the ledger is a little older, and the more so the larger that is."""
        told = await self._ask_ledger()
        now = round(self._wall() * 1000)
        closed = self._parts.gates.closed()
        return Snapshot(
            version=__version__,
            node=self._node or socket.gethostname(),
            pid=os.getpid(),
            now=now,
            started_at=self._started_at,
            draining=self.draining,
            bandwidth=self._parts.throttle.limit,
            bandwidth_source=self._parts.throttle.source,
            concurrency=self._parts.slots.limit,
            concurrency_source="auto" if self._parts.slots.is_automatic else "configuration",
            stores=tuple(StoreStatus(origin, limit) for origin, limit in self._parts.slots.stores()),
            ledger_problem=told.problem,
            ledger_held_up=self._held_up(),
            fleet=told.fleet,
            feeds=self._feeds(told, closed, now),
            uploads=self._uploads(),
            servers=tuple(self._server(gate) for gate in closed if gate.place is None),
            files=told.files,
            hour=tuple(MinuteStatus(minute.at, minute.files, minute.bytes) for minute in self._tally.hour()),
        )

    async def recall(self) -> None:
        """Count what was delivered before this daemon began, as far as today and the last hour go."""
        tally = self._parts.tally
        try:
            tally.remember(await self._parts.reader.delivered_between(tally.since, tally.began_at))
        except LedgerUnusable as error:
            log.warning("status_incomplete", reason=str(error))

    def expire(self) -> None:
        """Ask the ledger anew at the next snapshot: something has just been changed by hand."""
        self._told = replace(self._told, at=float("-inf"), took=0.0)

    @property
    def _tally(self) -> Tally | Common:
        return self._common or self._parts.tally

    def _held_up(self) -> str:
        ledger = self._parts.ledger
        return f"{ledger.trouble}; {ledger.remedy}" if ledger.trouble else ""

    def knows(self, feed: str) -> bool:
        """Whether a node of the fleet serves a feed of that name."""
        return any(feed in node.feeds for node in self._told.fleet.nodes)

    async def _ask_ledger(self) -> _Told:
        async with self._asking:
            began = self._steady()
            if began - self._told.at < max(LEAST_AGE, SHARE * self._told.took):
                return self._told
            now = round(self._wall() * 1000)
            before = self._told
            try:
                async with asyncio.timeout(PATIENCE):
                    census = await self._parts.reader.census(now)
                    files = tuple(trouble_of(it, now) for it in await self._parts.reader.troubled(SHOWN))
                    fleet = await self._ask_fleet(now)
            except (LedgerUnusable, TimeoutError) as error:
                problem = str(error) or f"it did not answer within {PATIENCE:g} s"
                if not before.problem:
                    log.warning("status_incomplete", reason=problem)
                census, files, fleet = before.census, before.files, before.fleet
            else:
                problem = ""
            ended = self._steady()
            self._told = _Told(census, files, problem, ended, ended - began, fleet)
            return self._told

    async def _ask_fleet(self, now: int) -> FleetStatus:
        if self._common is None:
            return NO_FLEET
        reader = self._parts.reader
        if self._told.problem:
            self._common.doubt()
        since = self._common.since
        self._common.learn(since, await reader.delivered_between(since, now + 1))
        return fleet_status(await reader.muster(NODES_SHOWN, self._node), self._node)

    def _feeds(self, told: _Told, closed: Iterable[Closed], now: int) -> tuple[FeedStatus, ...]:
        """Those that are served here, and then those that only other nodes serve."""
        own = [self._feed(feed, told.census, closed, now) for feed in self._parts.feeds.values()]
        return feeds_of_all(own, told.fleet, told.census, self._tally.today)

    def _feed(self, feed: Feed, census: Census, closed: Iterable[Closed], now: int) -> FeedStatus:
        open_files = census.backlogs(feed.name)
        record = census.feeds.get(("" if feed.shared else self._node, feed.name))
        stale = _overdue(feed, record, now)
        troubles = (*self._parts.obstacles.of(feed.name, closed), *([_stale(feed, stale)] if stale else []))
        paused_at = self._parts.pauses.since(feed.name)
        intake = self._parts.intakes.get(feed.name)
        files, size = self._tally.today(feed.name)
        return FeedStatus(
            name=feed.name,
            directory=printable(feed.directory),
            datatable_id=feed.datatable_id,
            state=state_of(paused_at, troubles),
            queued=open_files.queued.count,
            queued_bytes=open_files.queued.bytes,
            uploading=open_files.uploading.count,
            archiving=open_files.uploaded.count,
            unsettled=len(intake.waiting) if intake else 0,
            retrying=open_files.failing,
            refused=census.refused.get(feed.name, 0),
            delivered_today=files,
            bytes_today=size,
            oldest_queued_at=open_files.queued.oldest_at,
            oldest_undelivered_at=open_files.oldest_undelivered_at,
            next_try_at=open_files.next_try_at,
            last_arrival_at=record.arrived_at if record else None,
            last_delivery_at=record.delivered_at if record else None,
            expect_every=feed.expect_every or None,
            paused_at=paused_at,
            troubles=troubles,
        )

    def _server(self, gate: Closed) -> ServerStatus:
        next_try = None if gate.next_probe is None else self._on_wall(gate.next_probe)
        return ServerStatus(gate.name, gate.reason, tuple(sorted(gate.feeds)), self._on_wall(gate.since), next_try)

    def _uploads(self) -> tuple[UploadStatus, ...]:
        running = self._parts.pipeline.in_flight
        self._rates.keep(running)
        return tuple(
            UploadStatus(
                entry_id,
                entry.version.feed,
                entry.version.path,
                progress.size,
                sent := progress.sent(),
                self._rates.rate(entry_id, progress.began, sent),
                self._on_wall(progress.began),
                entry.attempts,
            )
            for entry_id, (entry, progress) in running.items()
        )


def _overdue(feed: Feed, record: FeedRecord | None, now: int) -> int | None:
    """Since when a file is overdue, as far as that was told: an alarm and what is shown never differ."""
    if record is None or record.stale_at is None or not feed.expect_every:
        return None
    return stale_since(feed.expect_every, record.arrived_at, record.known_at, now) or record.stale_at


def _stale(feed: Feed, since: int) -> Trouble:
    return Trouble(
        Kind.STALE,
        f"no file has arrived for longer than expect_every ({format_duration(feed.expect_every)})",
        SEE_TO_THE_EXPORT,
        since,
    )
