"""Signals as events: SIGTERM and SIGINT ask to end, in good order at first and at once after that; SIGHUP to reload."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

log = structlog.get_logger("signals")


def keep_reload() -> None:
    """Let SIGHUP wait until it is caught: before that it would end a daemon that is still starting."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])


class Signals:
    """What has been asked for so far."""

    def __init__(self) -> None:
        """Nothing is caught before `caught`."""
        self.drain = asyncio.Event()
        self.end = asyncio.Event()
        self.reload = asyncio.Event()

    @asynccontextmanager
    async def caught(self) -> AsyncIterator[None]:
        """Catch them while the block runs."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._received, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _received(self, number: int) -> None:
        if self.drain.is_set():
            self.end.set()
        self.drain.set()
        log.debug("signal_received", signal=signal.Signals(number).name, again=self.end.is_set())
