"""Files that can never be delivered: recorded with the reason, and set aside in `failed/` as soon as that can be."""

from collections import deque
from collections.abc import Callable, Mapping

import structlog

from tablefeed.archive import Archiver
from tablefeed.errors import DiskTrouble, FeedBlocked, FileRefused, LeaseLost
from tablefeed.ledger import Closing, Ledger
from tablefeed.model import Entry, Feed, FileVersion
from tablefeed.notices import Notices
from tablefeed.outcomes import Outcomes

log = structlog.get_logger("pipeline")


class Refusals:
    """Takes refused files out of the way. What is recorded once is not forgotten, whatever becomes of the move."""

    def __init__(
        self,
        feeds: Mapping[str, Feed],
        ledger: Ledger,
        archivers: Callable[[str], Archiver],
        outcomes: Outcomes,
        notices: Notices,
        look: Callable[[str, str], None],
        *,
        wall: Callable[[], float],
    ) -> None:
        """`archivers` gives a feed's own; `look` is called with (feed, path) where a path may hold something new.

        `wall` gives Unix seconds.
        """
        self._feeds = feeds
        self._ledger = ledger
        self._archivers = archivers
        self._outcomes = outcomes
        self._notices = notices
        self._look = look
        self._wall = wall
        self.latest: deque[tuple[str, str, str]] = deque(maxlen=1_000)
        """(feed, path, reason) of the files refused last."""

    async def unqueued(self, version: FileVersion, error: FileRefused) -> None:
        """Refuse a file that never got into the queue."""
        feed = self._feeds[version.feed]
        entry_id = await self._ledger.refuse(version, error, self._notices.rejected(feed, version, error))
        await self._rejected(feed, entry_id, version, error)

    async def claimed(self, feed: Feed, entry: Entry, error: FileRefused) -> None:
        """Refuse a file that is worked on here. Raises LeaseLost where another node has it by now."""
        notice = self._notices.rejected(feed, entry.version, error)
        if not await self._ledger.rejected(entry.id, error, notice):
            raise LeaseLost(entry.version.path)
        await self._rejected(feed, entry.id, entry.version, error)

    async def set_aside_leftovers(self) -> None:
        """Try once more to move rejected files that could not be moved when they were refused."""
        for feed in [*self._feeds.values()]:
            for entry, reason in await self._ledger.rejected_in_place(feed.name, limit=1000):
                error = FileRefused(entry.version.path, reason, "Mend that, then use `tablefeed retry`")
                await self._set_aside(feed, entry.id, entry.version, error)

    async def _rejected(self, feed: Feed, entry_id: int, version: FileVersion, error: FileRefused) -> None:
        self._outcomes.rejected(feed.name, version.path, error)
        await self._set_aside(feed, entry_id, version, error)

    async def _set_aside(self, feed: Feed, entry_id: int, version: FileVersion, error: FileRefused) -> None:
        self.latest.append((feed.name, version.path, f"{error.reason}. {error.remedy}"))
        names = {"feed": feed.name, "path": version.path, "reason": error.reason, "remedy": error.remedy}
        at = round(self._wall() * 1000)
        try:
            moved = await self._archivers(feed.name).set_aside(feed, entry_id, version, error, at)
        except (DiskTrouble, FeedBlocked, LeaseLost) as trouble:
            log.error("file_rejected", **names, left_in_place=True, trouble=str(trouble))
            return
        await self._ledger.set_aside(Closing(entry_id, moved.destination, moved.left_in_place))
        log.error("file_rejected", **names, destination=moved.destination)
        if moved.stranger:
            self._look(feed.name, version.path)
