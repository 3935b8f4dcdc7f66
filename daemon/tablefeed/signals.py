"""SIGTERM and SIGINT as events: the first asks to end in good order, the second to end at once."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

log = structlog.get_logger("signals")


class Signals:
    """What has been asked for so far."""

    def __init__(self) -> None:
        """Nothing is caught before `caught`."""
        self.drain = asyncio.Event()
        self.end = asyncio.Event()

    @asynccontextmanager
    async def caught(self) -> AsyncIterator[None]:
        """Catch both while the block runs."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._received, number)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _hung_up(self) -> None:
        log.warning("reload_not_available", remedy="restart the daemon for a changed configuration")

    def _received(self, number: int) -> None:
        if self.drain.is_set():
            self.end.set()
        self.drain.set()
        log.debug("signal_received", signal=signal.Signals(number).name, again=self.end.is_set())
