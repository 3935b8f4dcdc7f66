"""What the parts of the daemon work with, and those parts that need nothing but that."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import aiohttp

from tablefeed.clock import ServerClocks
from tablefeed.config import Settings
from tablefeed.credentials import FileKey
from tablefeed.duplicates import Contents
from tablefeed.lease import writer_of
from tablefeed.ledger import Ledger
from tablefeed.ledger.reader import Reader
from tablefeed.ledger.shared import SharedConnection
from tablefeed.limit import Limit
from tablefeed.links import Archivers
from tablefeed.metrics import Metrics
from tablefeed.model import ApiAccess, FileVersion
from tablefeed.presign import Presigner
from tablefeed.processmind import ProcessMindApi
from tablefeed.threads import Threads
from tablefeed.throttle import Throttle
from tablefeed.upload import Uploader, digest, grant_headers


@dataclass(frozen=True, slots=True)
class Means:
    """All that is opened at the start and closed at the end, and the settings."""

    settings: Settings
    keys: Mapping[str, FileKey]
    ledger: Ledger
    session: aiohttp.ClientSession
    webhooks: aiohttp.ClientSession
    """For webhooks alone, so that they never take a connection from an upload."""
    readers: Threads
    chores: Threads
    archivers: Archivers
    shared: SharedConnection | None
    """The reader's connection in a fleet, by which other nodes are heard as well."""
    reader: Reader
    throttle: Throttle
    clocks: ServerClocks
    metrics: Metrics
    calls: Limit
    """On calls of the APIs at a time."""

    def presigner(self) -> Presigner:
        """What gets grants, with one limit on calls for all APIs."""
        limit = self.calls

        @cache
        def api(access: ApiAccess) -> ProcessMindApi:
            key = self.keys[access.key_name]
            return ProcessMindApi(self.session, access, key, clocks=self.clocks, wall=time.time, limit=limit)

        return Presigner(
            api,
            self.ledger,
            grant_headers,
            clocks=self.clocks,
            lifetime=self.settings.api.url_lifetime,
            margin=self.settings.upload.refresh_margin,
        )

    def uploader(self) -> Uploader:
        """What sends files."""
        return Uploader(
            self.session,
            self.readers,
            clocks=self.clocks,
            wall=time.time,
            stall_timeout=self.settings.upload.stall_timeout,
            allow_http=self.settings.upload.allow_http,
            writer_of=writer_of,
            admit=self.throttle.admit,
        )

    def contents(self) -> Contents:
        """What knows content that was delivered before."""
        return Contents(self.ledger, self._digest)

    async def _digest(self, directory: Path, version: FileVersion) -> str:
        return await self.readers.call(digest, directory, version, writer_of)
