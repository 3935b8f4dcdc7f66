"""One daemon's life in a soak: how it is started, disturbed and ended, and whether that is how it should end."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from random import Random

from faults.books import unfinished
from faults.crash_daemon import HASTY, started
from faults.crash_steps import STEPS
from support.daemon import Daemon, Site, running_daemon

PATIENCE = 120.0
"""Seconds after the last fault in which all must arrive."""
FULL_LEDGER = 73
"""The exit code of a start for which the ledger's disk has no room."""
GRACE = 30.0
"""Seconds that SIGTERM may take; the drain has 2."""
_CRIES = ("Traceback", "uncaught_exception", "never retrieved", "never awaited")


class Lives:
    """Starts daemons one after the other, and ends most of them badly."""

    def __init__(self, site: Site, environ: dict[str, str], random: Random, counts: Counter[str], log: Path) -> None:
        """`environ`: what a daemon needs beside its own; `counts` are added to, and `log` gets what they write."""
        self._site = site
        self._environ = environ
        self._random = random
        self._counts = counts
        self._log = log
        self.ledger_is_well = asyncio.Event()
        """Set while the ledger's disk works."""
        self.ledger_is_well.set()
        self.ledger_troubles = 0
        """How often it has failed."""
        self.problems: list[str] = []

    async def one(self) -> None:
        """A start, a life, an end."""
        step = self._random.choice([*STEPS]) if self._random.random() < 0.45 else HASTY
        troubles = self.ledger_troubles - (not self.ledger_is_well.is_set())
        async with self._started(step, self._random.randint(1, 4)) as daemon:
            expected = await (self._until_step(daemon, step) if step != HASTY else self._until_whim(daemon))
        code = daemon.process.returncode
        if code == FULL_LEDGER and self.ledger_troubles > troubles:
            self._counts["starts refused, as the ledger could not be written"] += 1
            await self.ledger_is_well.wait()
        elif code not in expected:
            self.problems.append(f"the daemon ended with {code} where {expected} was due: {_last_words(daemon)}")

    async def last(self) -> None:
        """A daemon that nobody disturbs, until all has arrived; then SIGTERM."""
        async with self._started(HASTY, 1) as daemon:
            try:
                await daemon.until_event("ready")
            except AssertionError as error:
                self.problems.append(f"the last daemon did not start: {error}")
                return
            if left := await self._left(daemon):
                self.problems.append(f"not done {PATIENCE:g} s after the last fault: {left}")
            await self._terminate(daemon)
        if daemon.process.returncode != 0:
            self.problems.append(f"the last daemon ended with {daemon.process.returncode}")

    async def _left(self, daemon: Daemon) -> Mapping[str, int]:
        """Wait until all is done, with patience; returns what is not."""
        end = time.monotonic() + PATIENCE
        while (left := unfinished(self._site)) and time.monotonic() < end and daemon.process.returncode is None:
            await asyncio.sleep(0.2)
        return left

    def _started(self, step: str, nth: int) -> "_Life":
        return _Life(self, self._site, step, nth, self._environ)

    async def _until_step(self, daemon: Daemon, step: str) -> tuple[int, ...]:
        """Until it dies at its step, or is killed because it never came there."""
        if await _ends_within(daemon, 4.0):
            self._counts[f"SIGKILL {step}"] += daemon.process.returncode == -signal.SIGKILL
        else:
            await self._kill(daemon)
        return (-signal.SIGKILL,)

    async def _until_whim(self, daemon: Daemon) -> tuple[int, ...]:
        """Until it is killed or ended at a random instant, perhaps after a pause."""
        if await _ends_within(daemon, self._random.choice([1.0, 2.0, 5.0]) * self._random.uniform(0.2, 1.0)):
            return ()
        if self._random.random() < 0.25:
            self._counts["SIGSTOP, later SIGCONT"] += 1
            daemon.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(self._random.uniform(0.5, 3.0))
            with suppress(ProcessLookupError):  # it may have died before it was stopped
                daemon.process.send_signal(signal.SIGCONT)
            if await _ends_within(daemon, self._random.uniform(0.0, 1.0)):
                return ()
        if self._random.random() < 0.25 and daemon.named("ready"):
            self._counts["SIGHUP"] += 1
            daemon.process.send_signal(signal.SIGHUP)
            if await _ends_within(daemon, self._random.uniform(0.0, 1.0)):
                return ()
        if self._random.random() < 0.75:
            await self._kill(daemon)
            return (-signal.SIGKILL,)
        self._counts["SIGTERM"] += 1
        await self._terminate(daemon)
        return (0, -signal.SIGTERM, -signal.SIGKILL)

    async def _terminate(self, daemon: Daemon) -> None:
        try:
            await daemon.end(signal.SIGTERM, GRACE)
        except TimeoutError:
            self.problems.append(f"SIGTERM did not end the daemon within {GRACE:g} s: {_last_words(daemon)}")
            await daemon.end(signal.SIGKILL)

    async def _kill(self, daemon: Daemon) -> None:
        self._counts["SIGKILL at a random instant"] += 1
        await daemon.end(signal.SIGKILL)

    def note(self, daemon: Daemon) -> None:
        """Keep its log, and hear its cries."""
        with self._log.open("a") as file:
            file.write(f"--- process {daemon.process.pid} ended with {daemon.process.returncode}\n{daemon.log}")
        if any(cry in daemon.log for cry in _CRIES):
            cries = [line for line in daemon.lines if any(cry in line for cry in _CRIES)]
            self.problems.append(f"process {daemon.process.pid} logged an error that nobody caught: {cries[0][-500:]}")


class _Life:
    """A daemon that runs within the block; its log is kept at the end."""

    def __init__(self, lives: Lives, site: Site, step: str, nth: int, environ: dict[str, str]) -> None:
        self._lives = lives
        self._running = running_daemon(site.config, **started(step, nth, environ=environ))

    async def __aenter__(self) -> Daemon:
        self._daemon = await self._running.__aenter__()
        return self._daemon

    async def __aexit__(self, *details: object) -> None:
        await self._running.__aexit__(*details)  # type: ignore[arg-type]
        self._lives.note(self._daemon)


def _last_words(daemon: Daemon) -> str:
    """What it wrote last; all of it is in the log."""
    return "".join(daemon.lines[-3:])[-500:]


async def _ends_within(daemon: Daemon, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await daemon.process.wait()
    except TimeoutError:
        return False
    return True
