"""One round of a soak: all faults mixed for a while, then calm, then the books."""

import asyncio
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Protocol

from faults.books import Books, Findings
from faults.crash_site import crash_site
from faults.faulty import Faulty, Weather, misbehaving
from faults.soak_life import Lives
from faults.soak_producers import Producer
from support.daemon import KEY, Site
from tablefeed.sandbox.server import SandboxSettings, running

USUAL, STORM = 0.06, 0.4
"""Shares of requests that meet a fault."""


class Disk(Protocol):
    """A disk that can fail."""

    def fail(self) -> None:
        """From now on."""

    def mend(self) -> None:
        """Until now."""


@dataclass(slots=True)
class Tally:
    """What all rounds have seen together."""

    counts: Counter[str] = field(default_factory=Counter)
    """How often each fault was made."""
    findings: Findings = field(default_factory=Findings)
    files: int = 0
    size: int = 0
    rounds: int = 0

    def add(self, books: Books, findings: Findings) -> None:
        """Add a round."""
        self.rounds += 1
        self.files += len(books.drops)
        self.size += sum(drop.size for drop in books.drops.values())
        self.findings += findings


@dataclass(frozen=True, slots=True)
class Place:
    """Where a round takes place."""

    root: Path
    far: Path
    """On another file system."""
    ledger: Path
    """A directory on a disk that can fail."""
    environ: dict[str, str]
    """What daemons need so that it can."""
    disks: dict[str, Disk]
    """By what is wrong when they fail."""


class Round:
    """Producers, a daemon that is killed all the time, and servers and disks that fail."""

    def __init__(self, place: Place, seed: str, tally: Tally) -> None:
        self._place = place
        self._random = Random(seed)
        self._tally = tally
        self._weather = Weather(Random(f"{seed} weather"), USUAL, tally.counts)
        self._books = Books()

    async def run(self, seconds: float, stopped: asyncio.Event) -> None:
        """Disturb for so many seconds, or until it is stopped; then let all arrive, and audit."""
        settings = SandboxSettings(self._place.root / "processmind", KEY)
        async with (
            running(settings) as sandbox,
            misbehaving(sandbox.base_url, self._weather) as faulty,
        ):
            site = crash_site(self._place.root, faulty.api.origin, self._place.far)
            site.ledger_directory = self._place.ledger
            log = self._place.root / "daemon.log"
            lives = Lives(site, self._place.environ, self._random, self._tally.counts, log)
            await self._disturb(site, lives, faulty, seconds, stopped)
            await lives.last()
            findings = self._books.audit(site, sandbox.objects, excused=faulty.invalid)
            findings.other += lives.problems
        self._tally.add(self._books, findings)

    async def _disturb(self, site: Site, lives: Lives, faulty: Faulty, seconds: float, stopped: asyncio.Event) -> None:
        producers = [Producer(site, feed, self._books, Random(self._random.random())) for feed in site.feeds]
        producing = [asyncio.create_task(producer.run()) for producer in producers]
        storms = asyncio.create_task(self._storms(lives, faulty))
        end = time.monotonic() + seconds
        while time.monotonic() < end and not stopped.is_set() and not storms.done():
            await lives.one()
        for producer in producers:
            producer.stop()
        storms.cancel()
        with suppress(asyncio.CancelledError):
            await storms
        self._weather.rate = 0.0
        await asyncio.gather(*producing)

    async def _storms(self, lives: Lives, faulty: Faulty) -> None:
        """One trouble after the other, each for a while."""
        while True:
            await asyncio.sleep(self._random.uniform(0.5, 4.0))
            storm = self._random.choice(["API", "store", "both", "storm", *self._place.disks])
            if storm == "storm":
                await self._storm()
            elif storm in self._place.disks:
                await self._disk_trouble(storm, lives)
            else:
                await self._outage(storm, faulty)

    async def _last(self, longest: float) -> None:
        await asyncio.sleep(self._random.uniform(0.3, longest))

    async def _storm(self) -> None:
        self._weather.rate = STORM
        try:
            await self._last(4.0)
        finally:
            self._weather.rate = USUAL

    async def _outage(self, whose: str, faulty: Faulty) -> None:
        fronts = {"API": [faulty.api], "store": [faulty.store]}.get(whose, [faulty.api, faulty.store])
        for front in fronts:
            await front.go_away()
        try:
            await self._last(4.0)
        finally:
            for front in fronts:
                await front.open()

    async def _disk_trouble(self, name: str, lives: Lives) -> None:
        self._tally.counts[name] += 1
        lives.ledger_troubles += 1
        lives.ledger_is_well.clear()
        self._place.disks[name].fail()
        try:
            await self._last(4.0)
        finally:
            self._place.disks[name].mend()
            lives.ledger_is_well.set()
