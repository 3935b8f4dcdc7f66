"""API keys and webhooks' secrets, as they are now: each is read again when it was refused or may have changed."""

import asyncio

import structlog

from tablefeed.config import KeySource
from tablefeed.errors import Fatal

log = structlog.get_logger("service")


class FileKey:
    """An API key, or a webhook's secret, with the place that it comes from."""

    def __init__(self, source: KeySource) -> None:
        """Read it for the first time. Raises Fatal when it cannot be read."""
        self._source = source
        self.value = source.read()

    async def reread(self) -> str:
        """Read it again; what cannot be read leaves it as it was."""
        try:
            self.value = await asyncio.to_thread(self._source.read)
        except Fatal as error:
            log.warning("key_unreadable", source=self._source.name, reason=str(error))
        return self.value
