"""What is asked and kept beside a file's way: of closed rows, of datatables, of feeds."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from tablefeed.ledger import feeds, muster, queries, schema, upkeep
from tablefeed.ledger.committer import Committer
from tablefeed.ledger.feeds import FeedRecord
from tablefeed.ledger.queries import Cursor, Kept
from tablefeed.ledger.upkeep import Purge
from tablefeed.model import Entry, FileVersion, Notice, State


class Books(Committer):
    """A part of the ledger. Each method is durable when it returns."""

    _places: tuple[str, ...] = ()
    """In whose directories files lie that may be touched here; none: everywhere."""
    _nodes: Mapping[str, str] = MappingProxyType({})
    """On which node the directory of each feed is; empty: on all."""

    def _whose(self, feed: str) -> str:
        """On which node the feed's directory is; empty: on all, or there is no fleet."""
        return self._nodes.get(feed, "")

    def can_hold(self, feed: str) -> Callable[[str], bool] | None:
        """What tells, on any thread, which paths of a feed can have a row; None: all."""
        return partial(schema.can_hold, self._places[-1], feed) if self._places else None

    async def purge(self, order: Purge) -> int:
        """Delete old closed rows that nobody needs; returns how many."""
        count: int = await self._do(upkeep.purge, replace(order, places=self._places))
        return count

    async def removed(self, entry_id: int) -> None:
        """Record that an archived file is gone from the archive."""
        await self._do(upkeep.removed, entry_id)

    async def vanished(self, entry_id: int) -> None:
        """Record that a file which was left where it was dropped is gone from there."""
        await self._do(upkeep.vanished, entry_id)

    async def counts(self) -> Mapping[tuple[str, State], int]:
        """How many open rows each feed has in each state."""
        return await self._ask(queries.counts, self._places)

    async def orphans(self, served: Collection[str]) -> Mapping[str, int]:
        """How many open rows there are, by feed, of feeds that neither this daemon nor another that lives serves."""
        return await self._ask(muster.orphans, self._places, served)

    async def open_entries(self, feeds: Collection[str], limit: int) -> list[tuple[Entry, str | None]]:
        """Open rows of these feeds with their last error in words, the longest waiting first."""
        return await self._ask(queries.open_entries, self._places, feeds, limit)

    async def rejected_in_place(self, feed: str, limit: int) -> list[tuple[Entry, str]]:
        """Rejected rows whose file could not be moved to `failed/` yet."""
        return await self._ask(queries.rejected_in_place, self._whose(feed), feed, limit)

    async def last_found(self, feed: str) -> FileVersion | None:
        """The version of a feed that was found last; None where that is long ago."""
        return await self._ask(queries.last_found, self._whose(feed), feed)

    async def has_delivered(self, feed: str, target: str, size: int) -> bool:
        """Whether the feed has delivered a file of this size to the datatable."""
        return await self._ask(queries.has_delivered, feed, target, size)

    async def delivery_of(self, feed: str, target: str, size: int, md5: str) -> Entry | None:
        """The last row of the feed that delivered this content to the datatable."""
        return await self._ask(queries.delivery_of, feed, target, size, md5)

    async def archived_before(self, feed: str, before: int, after: Cursor, limit: int) -> list[Kept]:
        """Files of a feed that were archived before a time and have not been removed."""
        return await self._ask(queries.archived_before, self._places, feed, before, after, limit)

    async def left_before(self, before: int, after: Cursor, limit: int) -> list[Kept]:
        """Files that were left where they were dropped, and closed before a time."""
        return await self._ask(queries.left_before, self._places, before, after, limit)

    async def dataset_of(self, base_url: str, tenant_id: str, datatable_id: str) -> str | None:
        """The dataset that was found for a datatable before."""
        return await self._ask(queries.dataset_of, base_url, tenant_id, datatable_id)

    async def keep_dataset(self, base_url: str, tenant_id: str, datatable_id: str, dataset_id: str) -> None:
        """Keep the dataset that was found for a datatable."""
        await self._do(upkeep.keep_dataset, (base_url, tenant_id, datatable_id, dataset_id))

    async def feed_records(self) -> list[FeedRecord]:
        """What is kept of this daemon's feeds, and of those that it served once."""
        records = await self._ask(feeds.feed_records, self._places)
        return [record for record in records if record.node == self._whose(record.name)]

    async def paused(self) -> Mapping[str, int]:
        """The feeds that somebody has paused on any node, each with since when, in Unix milliseconds."""
        return await self._ask(feeds.paused)

    async def set_stale(self, feed: str, since: int | None, notice: Notice | None = None) -> None:
        """Keep that it was told that no files arrive in a feed; None: that they do again."""
        await self._do(feeds.set_stale, ((self._whose(feed), feed), since, notice))
