"""A typed client of the ProcessMind API. Sources: the vendor's guide "API calls" and its public examples.

Answers are read leniently, since nothing is promised about them: unknown keys are ignored, missing names are empty.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp
from yarl import URL

from tablefeed.answers import Answer, api_error, retry_after, safe
from tablefeed.clock import ServerClocks
from tablefeed.errors import BadAnswer, DeliveryError, FeedBlocked
from tablefeed.http import ANSWER_TIMEOUT, CALL_TIMEOUT, CONNECT_TIMEOUT, proxy_for, read_body, translated
from tablefeed.model import ApiAccess

_LARGEST_ANSWER = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Named:
    """Something with an id and a name: a tenant, an organization, a datatable."""

    id: str
    display_name: str
    raw: Mapping[str, Any]
    """The whole answer, with what tablefeed does not know."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset; `datatables` only where it was asked for alone."""

    id: str
    display_name: str
    raw: Mapping[str, Any]
    datatables: tuple[Named, ...] = ()


class Key(Protocol):
    """An API key that may be replaced while the daemon runs."""

    @property
    def value(self) -> str:
        """The key as it was read last."""

    async def reread(self) -> str:
        """Read it again from where it is kept; what cannot be read leaves it as it was."""


class ProcessMindApi:
    """The API as one tenant with one key. All methods raise DeliveryErrors (`answers.api_error`)."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        access: ApiAccess,
        key: Key,
        *,
        clocks: ServerClocks,
        wall: Callable[[], float],
        limit: AbstractAsyncContextManager[object],
        timeout: float = CALL_TIMEOUT,
    ) -> None:
        """`key` goes to `access.base_url` only; `limit` bounds the calls at a time, `timeout` each in seconds."""
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT, sock_read=ANSWER_TIMEOUT)
        self.access = access
        self.origin = access.origin
        self._session = session
        self._key = key
        self._clocks = clocks
        self._wall = wall
        self._limit = limit

    async def presigned_upload_url(
        self,
        datatable_id: str,
        *,
        dataset_id: str | None,
        filename: str,
        size: int,
        modified_ms: int,
        lifetime: float | None = None,
    ) -> str:
        """A presigned PUT URL for one file. `modified_ms` in Unix milliseconds, `lifetime` in seconds."""
        query = {"filename": filename, "filesize": str(size), "filelastmodified": str(modified_ms)}
        if dataset_id is not None:
            query["datasetid"] = dataset_id
        if lifetime is not None:
            query["validforseconds"] = str(round(lifetime))
        what = f"datatable {datatable_id}" + (f" in dataset {dataset_id}" if dataset_id else "")
        answer = await self._get(what, "datatable", datatable_id, "uploads", "presignedurl", query=query)
        if isinstance(answer, Mapping):
            for name, value in answer.items():
                if name.lower() == "presigneduploadurl" and isinstance(value, str):
                    return value
        raise BadAnswer(self.origin, "JSON without PreSignedUploadUrl")

    async def tenant(self) -> Named:
        """The tenant: name, created date, plan."""
        return _named(self._mapping(await self._get(f"tenant {self.access.tenant_id}")), self.access.tenant_id)

    async def organization(self) -> Named:
        """The organization that the tenant belongs to."""
        return _named(
            self._mapping(await self._get(f"the organization of tenant {self.access.tenant_id}", "organization"))
        )

    async def datasets(self) -> list[Dataset]:
        """All datasets of the tenant."""
        answer = await self._get(f"the datasets of tenant {self.access.tenant_id}", "datasets")
        return [_dataset(self._mapping(item)) for item in self._list(answer)]

    async def dataset(self, dataset_id: str) -> Dataset:
        """One dataset with its datatables."""
        return _dataset(self._mapping(await self._get(f"dataset {dataset_id}", "datasets", dataset_id)))

    async def datatables(self) -> list[Named]:
        """All datatables of the tenant."""
        answer = await self._get(f"the datatables of tenant {self.access.tenant_id}", "datatables")
        return [_named(self._mapping(item)) for item in self._list(answer)]

    async def datatable(self, datatable_id: str) -> Named:
        """One datatable."""
        answer = await self._get(f"datatable {datatable_id}", "datatable", datatable_id)
        return _named(self._mapping(answer), datatable_id)

    async def find_dataset(self, datatable_id: str) -> str:
        """The id of the dataset that holds a datatable.

        Raises FeedBlocked when none does.
        """
        for dataset in await self.datasets():
            whole = await self.dataset(dataset.id)
            if any(datatable.id == datatable_id for datatable in whole.datatables):
                return dataset.id
        raise FeedBlocked(
            f"no dataset of tenant {self.access.tenant_id} holds the datatable {datatable_id}",
            "Check the feed's datatable_id, or set its dataset_id",
            origin=self.origin,
        )

    async def _get(self, what: str, *parts: str, query: Mapping[str, str] | None = None) -> Any:
        url = _url(self.access.base_url, "tenant", self.access.tenant_id, *parts).with_query(query)
        key = self._key.value
        status, answer = await self._fetch(what, url, key)
        if status in (401, 403) and (replaced := await self._key.reread()) != key:
            status, answer = await self._fetch(what, url, replaced)
        if isinstance(answer, DeliveryError):
            raise answer
        return answer

    async def _fetch(self, what: str, url: URL, key: str) -> tuple[int, Any]:
        """(status, decoded JSON or the error that the answer means)."""
        async with self._limit:
            with translated(self.origin):
                async with self._session.get(
                    url,
                    headers={"x-api-key": key, "Accept": "application/json"},
                    allow_redirects=False,
                    proxy=proxy_for(url),
                    timeout=self._timeout,
                ) as response:
                    self._clocks.observe(self.origin, response.headers.get("Date"))
                    body = await read_body(response, _LARGEST_ANSWER)
        return response.status, self._decoded(what, response, body, key)

    def _decoded(self, what: str, response: aiohttp.ClientResponse, body: bytes, key: str) -> Any:
        text = body[:_LARGEST_ANSWER].decode(errors="replace")
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            data = None
        if 200 <= response.status < 300:
            if data is None:
                return BadAnswer(self.origin, f"{response.content_type} where JSON was expected; is base_url right?")
            return data
        message = data.get("message") if isinstance(data, Mapping) else None
        answer = Answer(
            self.origin,
            response.status,
            message=safe(str(message or ""), key),
            retry_after=retry_after(response.headers, self._wall()),
        )
        # A call for a datatable or a dataset names it; all others depend on the tenant alone.
        settings = "datatable_id and dataset_id" if what.startswith("data") else "tenant_id and base_url"
        return api_error(answer, asked_for=what, key_name=self.access.key_name, settings=settings)

    def _mapping(self, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise BadAnswer(self.origin, "JSON of another form than the API's")
        return value

    def _list(self, value: Any) -> Sequence[Any]:
        if not isinstance(value, list):
            raise BadAnswer(self.origin, "JSON of another form than the API's")
        return value


@lru_cache(maxsize=256)
def _url(base_url: str, *parts: str) -> URL:
    return URL("/".join((base_url.rstrip("/"), *(quote(part, safe="") for part in parts))), encoded=True)


def _named(data: Mapping[str, Any], fallback_id: str = "") -> Named:
    name = data.get("displayName") or data.get("name") or ""
    return Named(safe(str(data.get("id") or fallback_id)), safe(str(name)), data)


def _dataset(data: Mapping[str, Any]) -> Dataset:
    named = _named(data)
    tables = data.get("datatables")
    datatables = tuple(_named(item) for item in tables if isinstance(item, Mapping)) if isinstance(tables, list) else ()
    return Dataset(named.id, named.display_name, data, datatables)
