"""Grants: the stored one while it is valid for long enough, else a fresh one, kept before it is used."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from tablefeed.clock import ServerClocks
from tablefeed.errors import BadAnswer, FeedBlocked, LeaseLost
from tablefeed.expiry import validity
from tablefeed.http import origin_of, parse_url
from tablefeed.model import ApiAccess, Entry, Feed, Grant

_CLOCK_GRAIN = 1_000
"""Milliseconds by which a server's clock may be behind what is thought of it (`clock.ServerClocks`)."""


class UrlSource(Protocol):
    """What grants need of the API; `processmind.ProcessMindApi` is it."""

    @property
    def origin(self) -> str:
        """Scheme, host and port of the API."""

    async def presigned_upload_url(
        self,
        datatable_id: str,
        *,
        dataset_id: str | None,
        filename: str,
        size: int,
        modified_ms: int,
        lifetime: float | None,
    ) -> str:
        """A presigned PUT URL."""

    async def find_dataset(self, datatable_id: str) -> str:
        """The id of the dataset that holds a datatable."""


class GrantStore(Protocol):
    """What grants need of the ledger."""

    async def granted(self, entry_id: int, grant: Grant) -> bool:
        """Keep a grant; False: the file is another node's."""

    async def dataset_of(self, base_url: str, tenant_id: str, datatable_id: str) -> str | None:
        """The dataset that was found for a datatable before."""

    async def keep_dataset(self, base_url: str, tenant_id: str, datatable_id: str, dataset_id: str) -> None:
        """Keep the dataset that was found for a datatable."""


def is_fresh(grant: Grant, now: int, margin: float) -> bool:
    """Whether a grant is valid for longer than `margin` seconds after `now` (milliseconds on the server's clock).

    A grant that lives shorter than twice the margin is fresh during the first half of its life.
    """
    return grant.expires_at - now > min(margin, grant.lifetime / 2) * 1000


class Presigner:
    """Gets grants for entries."""

    def __init__(
        self,
        apis: Callable[[ApiAccess], UrlSource],
        store: GrantStore,
        headers: Callable[[str, str], dict[str, str]],
        *,
        clocks: ServerClocks,
        lifetime: float,
        margin: float,
    ) -> None:
        """`headers(url, name)` gives what a PUT must carry; `lifetime` is asked for, `margin` kept, both in seconds."""
        self._apis = apis
        self._store = store
        self._headers = headers
        self._clocks = clocks
        self._lifetime = lifetime
        self._margin = margin
        self._datasets: dict[tuple[ApiAccess, str], str] = {}
        self._refused: set[tuple[ApiAccess, str]] = set()
        self._looking: dict[tuple[ApiAccess, str], asyncio.Lock] = {}

    async def with_grant(self, feed: Feed, entry: Entry) -> Entry:
        """The entry with a grant that may be used now.

        Raises what the API raises, BadAnswer when that gives what is no URL or one that is too old, and LeaseLost.
        """
        if self._has_fresh(feed, entry):
            return entry
        grant = await self._fetch(feed, entry)
        if self._has_fresh(feed, entry):
            # Nobody but our own clock had said that it was old, and the API has just told what time it is.
            return entry
        if not await self._store.granted(entry.id, grant):
            raise LeaseLost(entry.version.path)
        return replace(entry, grant=grant)

    async def _fetch(self, feed: Feed, entry: Entry) -> Grant:
        api = self._apis(feed.api)
        dataset = feed.dataset_id or await self._dataset(feed, api)
        version = entry.version
        try:
            url = await api.presigned_upload_url(
                feed.datatable_id,
                dataset_id=dataset,
                filename=version.name,
                size=version.size,
                modified_ms=max(0, version.mtime_ns // 1_000_000),
                lifetime=self._lifetime,
            )
        except FeedBlocked:
            self._forget(feed)
            raise
        try:
            origin = origin_of(parse_url(url))
            expires_at, lifetime = validity(url, self._clocks.now(origin, api.origin), self._lifetime)
        except ValueError as error:
            raise BadAnswer(api.origin, f"its PreSignedUploadUrl cannot be used: {error}") from None
        self._check_age(api.origin, origin, expires_at)
        return Grant(url, expires_at, lifetime, self._headers(url, version.name))

    def _check_age(self, api: str, store: str, expires_at: int) -> None:
        """Turn away a URL that is old by the clock of the API itself.

        One that is old by the store's clock alone is tried: what the store told may be wrong, and only an answer of its
        own can mend that. By our own clock nothing is judged, since that may be wrong too.
        """
        if self._clocks.knows(api) and expires_at <= self._clocks.now(api) - _CLOCK_GRAIN:
            raise BadAnswer(api, f"its PreSignedUploadUrl for {store} had expired before it came")
        if expires_at <= self._clocks.now(store, api) - _CLOCK_GRAIN:
            self._clocks.forget(store)

    async def _dataset(self, feed: Feed, api: UrlSource) -> str:
        """Looked up once, kept in the ledger, and looked up again only after it was refused."""
        key = (feed.api, feed.datatable_id)
        async with self._looking.setdefault(key, asyncio.Lock()):
            if key not in self._datasets:
                place = (feed.api.base_url, feed.api.tenant_id, feed.datatable_id)
                kept = await self._store.dataset_of(*place) if key not in self._refused else None
                self._datasets[key] = kept or await api.find_dataset(feed.datatable_id)
                if kept is None:
                    await self._store.keep_dataset(*place, self._datasets[key])
                self._refused.discard(key)
            return self._datasets[key]

    def known_dataset(self, feed: Feed) -> str | None:
        """The dataset of a feed; None while it has not been looked up."""
        return feed.dataset_id or self._datasets.get((feed.api, feed.datatable_id))

    def _forget(self, feed: Feed) -> None:
        key = (feed.api, feed.datatable_id)
        if self._datasets.pop(key, None) is not None:
            self._refused.add(key)

    def _has_fresh(self, feed: Feed, entry: Entry) -> bool:
        if entry.grant is None:
            return False
        now = self._clocks.now(origin_of(parse_url(entry.grant.url)), self._apis(feed.api).origin)
        return is_fresh(entry.grant, now, self._margin)
