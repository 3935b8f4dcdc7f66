"""One receiver of webhooks, and the line of events that wait for it: told one at a time, at least once, in order."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from tablefeed.errors import EventRefused, Transient
from tablefeed.ledger.outbox import Letter, Outbox
from tablefeed.model import Feed, Notice
from tablefeed.retry import LONGEST_DELAY, backoff
from tablefeed.webhook import origin_shown

log = structlog.get_logger("notify")

REFUSED_FOR, MOST_REFUSALS = 86_400.0, 12
"""An event is dropped that is older than this when its receiver has refused it so often."""
DROPPED = "these events are not told"
"""What follows for a receiver whose events are dropped, in words."""
_UNWANTED = "see why the receiver refuses them, or take `notify_url` out"
BATCH = 100
LINGER = 0.1
"""Seconds that a line rests after it has told all there was, so that what comes next comes in batches."""
UNSAVED = 1.0
"""Seconds after which what was accepted is written down: so much is told twice after a kill, at most."""
CLOSING = 2.0
"""Seconds that a line gets at its end to write that down."""
FAILING = 2
"""Failures in a row from which on a receiver is said to fail."""


Post = Callable[[str, Notice, str | None], Awaitable[None]]


class Secret(Protocol):
    """What signs events."""

    value: str

    async def reread(self) -> str:
        """Read it again; what cannot be read leaves it as it was."""
        ...


@dataclass(frozen=True, slots=True)
class Means:
    """What all lines work with."""

    outbox: Outbox
    post: Post
    """(URL, event, secret): raises a Transient, or EventRefused."""
    secrets: Mapping[str, Secret]
    """By `Feed.notify_key`."""
    feeds: Mapping[str, Feed]
    slots: asyncio.Semaphore
    wall: Callable[[], float]
    steady: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    random: Callable[[], float]

    def now(self) -> int:
        """Unix milliseconds."""
        return round(self.wall() * 1000)


class Line:
    """The events of all feeds with one URL."""

    def __init__(self, url: str, means: Means) -> None:
        """`feeds` are to be set before it runs."""
        self.feeds: tuple[str, ...] = ()
        self.rests = asyncio.Event()
        """Nothing is to be told now, or the receiver fails."""
        self._url = url
        self._means = means
        self._woken = asyncio.Event()
        self._failures = 0
        self._accepted: list[int] = []
        self._unsaved_since = 0.0

    def wake(self) -> None:
        """There is something new."""
        self._woken.set()
        if self._failures < FAILING:
            self.rests.clear()

    async def run(self) -> None:
        """Until cancelled. Raises what the ledger raises."""
        try:
            while True:
                self._woken.clear()
                waiting = await self._means.outbox.waiting(self._means.now(), self.feeds, BATCH)
                if waiting.letters:
                    await self._tell(waiting.letters)
                else:
                    await self._rest(waiting.next_due)
        finally:
            # A ledger that cannot be written must not keep the daemon from ending.
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSING):
                    await self._save()

    async def _rest(self, next_due: int | None) -> None:
        if not self._woken.is_set():
            self.rests.set()
        seconds = None
        if next_due is not None:
            seconds = min(max((next_due - self._means.now()) / 1000, LINGER), LONGEST_DELAY)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()

    async def _tell(self, letters: Collection[Letter]) -> None:
        """One after the other, until one fails."""
        for letter in letters:
            wait = await self._try(letter)
            if wait is not None:
                await self._save()
                await self._means.sleep(wait)
                return
            if self._means.steady() - self._unsaved_since >= UNSAVED:
                await self._save()
        await self._save()
        if len(letters) < BATCH:
            await self._means.sleep(LINGER)

    async def _try(self, letter: Letter) -> float | None:
        """Tell one event; returns how long to wait before the next is told, in seconds."""
        try:
            async with self._means.slots:
                await self._post(letter.notice)
        except Transient as error:
            return self._failed(str(error), error.retry_after)
        except EventRefused as error:
            wait = self._failed(str(error))
            await self._refused(letter, error, wait)
            return wait
        if not self._accepted:
            self._unsaved_since = self._means.steady()
        self._accepted.append(letter.number)
        log.debug("webhook_told", feed=letter.notice.feed, kind=letter.notice.event, id=letter.notice.id)
        if self._failures >= FAILING:
            log.info("webhook_works_again", feeds=self.feeds, origin=origin_shown(self._url))
        self._failures = 0
        return None

    async def _post(self, notice: Notice) -> None:
        """Send it; once more at once when what failed may have been an old secret."""
        feed = self._means.feeds.get(notice.feed)
        secret = self._means.secrets[feed.notify_key] if feed and feed.notify_key else None
        used = secret.value if secret else None
        try:
            await self._means.post(self._url, notice, used)
        except (EventRefused, Transient):
            if secret is None or await secret.reread() == used:
                raise
            await self._means.post(self._url, notice, secret.value)

    def _failed(self, reason: str, asked: float | None = None) -> float:
        self._failures += 1
        if self._failures == FAILING:
            log.error(
                "webhook_failing",
                feeds=self.feeds,
                origin=origin_shown(self._url),
                reason=reason,
                effect="its events wait and are sent again",
                remedy="see whether the receiver works, and whether `notify_url` still names it",
            )
        if self._failures >= FAILING:
            self.rests.set()
        return backoff(self._failures, self._means.random, asked)

    async def _refused(self, letter: Letter, error: EventRefused, wait: float) -> None:
        """Let others, which the receiver may take, go before it after `wait` seconds; or drop it, or all."""
        notice = letter.notice
        if error.gone:
            count = await self._means.outbox.clear(self.feeds)
            self._note_drop(count, error, feeds=self.feeds)
            return
        refusals = letter.refusals + 1
        if refusals >= MOST_REFUSALS and self._means.now() - letter.created_at > REFUSED_FOR * 1000:
            await self._means.outbox.forget([letter.number])
            self._note_drop(1, error, feeds=(notice.feed,), kind=notice.event, id=notice.id)
            return
        due_at = self._means.now() + round((wait + backoff(refusals, self._means.random)) * 1000)
        await self._means.outbox.refused(letter.number, due_at)

    def _note_drop(self, count: int, error: EventRefused, **names: object) -> None:
        log.error("webhook_dropped", **names, count=count, reason=str(error), effect=DROPPED, remedy=_UNWANTED)

    async def _save(self) -> None:
        """Write down what was accepted, so that it is not told again."""
        if self._accepted:
            saved = [*self._accepted]
            await self._means.outbox.forget(saved)
            del self._accepted[: len(saved)]
