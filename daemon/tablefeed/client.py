"""ProcessMind for Python programs: the API and the upload, without daemon, queue or archive.

For example:

    async with ProcessMindClient(api_key=key, tenant_id="tenant-123") as client:
        for dataset in await client.get_datasets():
            print(dataset.id, dataset.display_name)
        receipt = await client.upload_file("orders.csv", datatable_id="table-456")
        print(receipt.md5, receipt.status)
"""

import asyncio
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tablefeed.clock import ServerClocks, steady
from tablefeed.expiry import validity
from tablefeed.http import is_plain_to_afar, make_session, tls_context
from tablefeed.model import ApiAccess, FileVersion, Grant, Receipt
from tablefeed.processmind import Dataset, Named, ProcessMindApi
from tablefeed.threads import Threads
from tablefeed.upload import Progress, Uploader, grant_headers

_CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class _FixedKey:
    value: str = field(repr=False)

    async def reread(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Prepared:
    """A file as it was when its presigned URL was fetched."""

    directory: Path
    version: FileVersion
    grant: Grant


class ProcessMindClient:
    """An asynchronous context manager. Nothing is retried: each method is one try and raises a DeliveryError.

    `Transient` errors are worth another try later; see `tablefeed.errors` for the others.
    """

    def __init__(
        self,
        api_key: str,
        tenant_id: str,
        *,
        base_url: str = "https://api.processmind.com",
        ca_file: Path | None = None,
        stall_timeout: float = 60.0,
        allow_http: bool = False,
        key_name: str = "the api_key argument",
    ) -> None:
        """The key goes to `base_url` only. `ca_file` holds the authorities to trust instead of the system's.

        `key_name` is what errors say of where the key comes from.

        An upload that moves no byte for `stall_timeout` seconds is given up. Raises ValueError for plain http to
        another machine, unless `allow_http` is set.
        """
        if is_plain_to_afar(base_url) and not allow_http:
            raise ValueError(f"base_url {base_url} would send the key in the clear; use https")
        self._key = api_key
        self._access = ApiAccess(base_url, tenant_id, key_name)
        self._ca_file = ca_file
        self._stall_timeout = stall_timeout
        self._allow_http = allow_http

    async def __aenter__(self) -> Self:
        """Open the connections."""
        clocks = ServerClocks(time.time, steady)
        self._clocks = clocks
        self._threads = Threads(4, "tablefeed-client")
        self._session = make_session(_CONNECTIONS, await asyncio.to_thread(tls_context, self._ca_file))
        self._api = ProcessMindApi(
            self._session,
            self._access,
            _FixedKey(self._key),
            clocks=clocks,
            wall=time.time,
            limit=asyncio.Semaphore(_CONNECTIONS),
        )
        self._uploader = Uploader(
            self._session,
            self._threads,
            clocks=clocks,
            wall=time.time,
            stall_timeout=self._stall_timeout,
            allow_http=self._allow_http,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._session.close()
        self._threads.shutdown(wait=False)

    async def get_tenant(self) -> Named:
        """The tenant of the key."""
        return await self._api.tenant()

    async def get_organization(self) -> Named:
        """The organization that the tenant belongs to."""
        return await self._api.organization()

    async def get_datasets(self) -> list[Dataset]:
        """All datasets, without their datatables."""
        return await self._api.datasets()

    async def get_dataset(self, dataset_id: str) -> Dataset:
        """One dataset with its datatables."""
        return await self._api.dataset(dataset_id)

    async def get_presigned_upload_url(
        self,
        datatable_id: str,
        *,
        filename: str,
        filesize: int,
        filelastmodified: int,
        dataset_id: str | None = None,
        validforseconds: float | None = None,
    ) -> str:
        """A URL for one PUT, which is a secret until it expires.

        `filesize` in bytes, `filelastmodified` in Unix milliseconds; without `dataset_id` the dataset is looked up.
        """
        return await self._api.presigned_upload_url(
            datatable_id,
            dataset_id=dataset_id or await self._api.find_dataset(datatable_id),
            filename=filename,
            size=filesize,
            modified_ms=filelastmodified,
            lifetime=validforseconds,
        )

    async def prepare(
        self, path: str | os.PathLike[str], datatable_id: str, *, dataset_id: str | None = None
    ) -> Prepared:
        """A file with a presigned URL for it, to be sent as often as it takes: always to the same object.

        Raises OSError when the file cannot be looked at.
        """
        file = await asyncio.to_thread(Path(path).resolve)
        stat = await asyncio.to_thread(file.stat)
        asked = 3600.0
        url = await self.get_presigned_upload_url(
            datatable_id,
            filename=file.name,
            filesize=stat.st_size,
            filelastmodified=stat.st_mtime_ns // 1_000_000,
            dataset_id=dataset_id,
            validforseconds=asked,
        )
        expires_at, lifetime = validity(url, self._clocks.now(self._access.origin), asked)
        grant = Grant(url, expires_at, lifetime, grant_headers(url, file.name))
        return Prepared(file.parent, FileVersion.of("", file.name, stat), grant)

    async def send(self, prepared: Prepared, progress: Progress | None = None) -> Receipt:
        """Send a prepared file and return the proof of its delivery. `progress` is kept up to date meanwhile."""
        progress = progress or Progress(prepared.version.size)
        return await self._uploader.upload(prepared.directory, prepared.version, prepared.grant, progress)

    async def upload_file(
        self, path: str | os.PathLike[str], datatable_id: str, *, dataset_id: str | None = None
    ) -> Receipt:
        """Send one file and return the proof of its delivery. The file is only read.

        Raises OSError when it cannot be looked at.
        """
        return await self.send(await self.prepare(path, datatable_id, dataset_id=dataset_id))
