"""What the daemon works with: opened at its start, and closed at its end in the right order."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import structlog

from tablefeed.clock import ServerClocks, steady
from tablefeed.config import Settings
from tablefeed.credentials import FileKey
from tablefeed.http import ANY_NUMBER, make_session, tls_context
from tablefeed.joining import member_of, shared_of
from tablefeed.ledger import Ledger
from tablefeed.ledger.reader import Reader
from tablefeed.limit import Limit
from tablefeed.links import Archivers
from tablefeed.means import Means
from tablefeed.metrics import Metrics
from tablefeed.threads import Threads
from tablefeed.throttle import Throttle

log = structlog.get_logger("service")

WEBHOOKS = 16
"""Webhooks that are called at a time."""
_READERS = 32
_CHORES = 2
_CLOSING = 10.0
"""Seconds that moves under way get at the end."""


@asynccontextmanager
async def opened(settings: Settings, keys: Mapping[str, FileKey]) -> AsyncIterator[Means]:
    """All of it; what it holds is put back at the end. `keys` maps `ApiAccess.key_name` to keys.

    Raises Fatal when something cannot be opened.
    """
    context = await asyncio.to_thread(tls_context, settings.upload.ca_file)
    metrics = Metrics()
    ledger = await _open_ledger(settings, metrics)
    readers = Threads(_READERS, "read")
    chores = Threads(_CHORES, "chore")
    archivers = Archivers(ledger.holds)
    shared = shared_of(settings)
    reader = Reader(settings.ledger.url, shared)
    try:
        async with make_session(ANY_NUMBER, context) as session, make_session(WEBHOOKS, context) as webhooks:
            yield Means(
                settings=settings,
                keys=keys,
                ledger=ledger,
                session=session,
                webhooks=webhooks,
                readers=readers,
                chores=chores,
                archivers=archivers,
                shared=shared,
                reader=reader,
                throttle=Throttle(settings.upload.bandwidth, time.time),
                clocks=ServerClocks(time.time, steady),
                metrics=metrics,
                calls=Limit(settings.api.concurrency),
            )
    finally:
        await reader.close()
        metrics.close()
        readers.shutdown(wait=False)
        chores.shutdown(wait=False, cancel_futures=True)
        with suppress(TimeoutError):  # a share that hangs must not keep the daemon from ending
            async with asyncio.timeout(_CLOSING):
                await archivers.close()
        await ledger.close()


async def _open_ledger(settings: Settings, metrics: Metrics) -> Ledger:
    ledger = Ledger(
        settings.ledger.url,
        owner=f"{socket.gethostname()}:{os.getpid()}",
        clock=time.time,
        sleep=asyncio.sleep,
        committed=metrics.committed,
        member=member_of(settings),
    )
    held = await ledger.open()
    if held:
        log.info("ledger_recovered", files=held, effect="what a killed daemon had begun goes on")
    return ledger
