"""What ties the rooms of the daemon together, without their knowing each other."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from tablefeed.archive import Archiver
from tablefeed.archive.directories import certain
from tablefeed.disks import Place
from tablefeed.dispatch import Dispatcher, Front
from tablefeed.errors import DiskTrouble, FeedBlocked
from tablefeed.intake import Intake
from tablefeed.ledger import Ledger
from tablefeed.model import ARCHIVE_DELETE, ARCHIVE_LEAVE, Feed, FileVersion
from tablefeed.news import News, Queued
from tablefeed.notify import Sender
from tablefeed.presence import assert_present
from tablefeed.refusals import Refusals
from tablefeed.threads import Threads

log = structlog.get_logger("service")

_AWAY = "Bring its disk or share back; it is looked at every few seconds"


class Inbox:
    """What the intakes need of the ledger."""

    def __init__(self, ledger: Ledger, refusals: Refusals, news: News) -> None:
        """What is refused goes to the refusals, all else to the ledger."""
        self._news = news
        self.unknown = ledger.unknown
        self.can_hold = ledger.can_hold
        self._ledger = ledger
        self.refuse = refusals.unqueued

    async def enqueue(self, versions: Sequence[FileVersion]) -> None:
        """Queue settled versions, and say so."""
        count = await self._ledger.enqueue(versions)
        if count:
            self._news.tell(Queued(versions[0].feed, count))
            names = {"path": versions[0].path} if len(versions) == 1 else {}
            log.info("files_queued", feed=versions[0].feed, count=count, **names)


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a feed's directory cannot be read."""

    reason: str
    remedy: str
    since: int
    """Unix milliseconds."""

    def __str__(self) -> str:
        """Both in words."""
        return f"{self.reason}. {self.remedy}" if self.remedy else self.reason


class Links:
    """Ties the rooms that tell each other something; each end is filled in when it is built."""

    def __init__(self, wall: Callable[[], float]) -> None:
        """Nothing is tied yet. `wall` gives Unix seconds."""
        self._wall = wall
        self.intakes: dict[str, Intake] = {}
        self.dispatcher: Dispatcher | None = None
        self.webhooks: Sender | None = None
        self.troubles: dict[str, Unusable] = {}
        self.changed = asyncio.Event()
        self._held: dict[str, tuple[str, set[str]]] = {}

    def front(self, feed: str) -> Front | None:
        """What stands before a strict feed's queue; None while that is not known."""
        return self.intakes[feed].front() if feed in self.intakes else None

    def held(self, feed: str, front: Front) -> None:
        """Say once for what a strict feed waits, and again where that file waits for something else by now."""
        path = front.ahead.path if front.ahead else ""
        if feed not in self._held or self._held[feed][0] != path:
            self._held[feed] = (path, set())
        told = self._held[feed][1]
        if front.reason not in told:
            told.add(front.reason)
            log.info("feed_held", feed=feed, path=path, reason=front.reason, effect="those behind it wait for it")

    def forget(self, feed: str) -> None:
        """A feed is not served any more, or not as before."""
        self.troubles.pop(feed, None)
        self._held.pop(feed, None)

    def look(self, feed: str, path: str) -> None:
        """A path may hold something new."""
        if feed in self.intakes:
            self.intakes[feed].hint(path)

    def due(self, moment: int) -> None:
        """A row becomes due at this time, in Unix milliseconds."""
        if self.dispatcher:
            self.dispatcher.due_at(moment)

    def delivering(self) -> bool:
        """Whether files are on their way now."""
        return self.dispatcher is not None and self.dispatcher.in_flight > 0

    def queued(self, feed: str) -> None:
        """Files of a feed may have become due."""
        if self.dispatcher:
            self.dispatcher.wake(feed)

    def told(self, feed: str) -> None:
        """There is something new in the outbox for a feed's webhook."""
        if self.webhooks:
            self.webhooks.wake(feed)

    def scanned(self, feed: str) -> bool:
        """Whether a feed's directory has been read, or cannot be."""
        return feed in self.troubles or (feed in self.intakes and self.intakes[feed].scanned.is_set())

    def trouble(self, feed: str) -> Callable[[FeedBlocked | DiskTrouble], None]:
        """What to call when a feed's directory cannot be read."""

        def report(error: FeedBlocked | DiskTrouble) -> None:
            since = self.troubles[feed].since if feed in self.troubles else round(self._wall() * 1000)
            reason, remedy = (error.reason, error.remedy) if isinstance(error, FeedBlocked) else (str(error), _AWAY)
            self.troubles[feed] = Unusable(reason, remedy, since)
            self.changed.set()
            log.error("directory_unusable", feed=feed, reason=reason, effect="its files wait", remedy=remedy)

        return report

    def recovered(self, feed: str) -> Callable[[], None]:
        """What to call when it can be read again."""

        def report() -> None:
            if self.troubles.pop(feed, None):
                log.info("directory_usable_again", feed=feed)

        return report


def places(ledger: Path | None, feeds: Mapping[str, Feed]) -> dict[Place, Path]:
    """Where files are put: the directory of the ledger's file, if it has one, and what each feed keeps."""
    found: dict[Place, Path] = {} if ledger is None else {("ledger", ""): ledger.absolute().parent}
    for feed in feeds.values():
        stays = feed.archive in (ARCHIVE_DELETE, ARCHIVE_LEAVE)
        found["archive", feed.name] = feed.directory if stays else certain(feed.directory, feed.archive)
    return found


async def still_there(threads: Threads, feed: Feed, version: FileVersion) -> bool:
    """Whether the path holds this version, still. Raises DiskTrouble where that cannot be told."""

    def look() -> bool:
        path = feed.directory / version.path
        try:
            return version.describes(os.lstat(path))
        except (FileNotFoundError, NotADirectoryError):
            assert_present(feed.directory, version)
            return False
        except OSError as error:
            raise DiskTrouble(str(path), f"it cannot be looked at: {error.strerror}") from None

    return await threads.call(look)


class Archivers:
    """One archiver a feed, made when its first file is to be moved."""

    def __init__(self, holds: Callable[[int], bool]) -> None:
        """None is made yet. `holds` tells, on any thread, whether a row may be moved here still."""
        self._holds = holds
        self._made: dict[str, tuple[Archiver, Threads]] = {}

    def __call__(self, feed: str) -> Archiver:
        """The feed's own, with a thread of its own: a share that hangs holds up this feed alone."""
        if feed not in self._made:
            executor = Threads(1, f"move-{feed}")
            self._made[feed] = (Archiver(executor, holds=self._holds), executor)
        return self._made[feed][0]

    async def close(self) -> None:
        """End all moves, of each feed by itself."""
        await asyncio.gather(*(archiver.close() for archiver, _ in self._made.values()))
        for _, executor in self._made.values():
            executor.shutdown(wait=False)
