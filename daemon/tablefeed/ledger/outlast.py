"""Outlasts trouble with the ledger's disk: what fails for it is tried until it is done."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from tablefeed.errors import DiskTrouble

R = TypeVar("R")
log = structlog.get_logger("ledger")

_FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0


class Outlast:
    """Tries until the disk lets it be done, and says once that it does not."""

    def __init__(
        self, sleep: Callable[[float], Awaitable[None]], remedy: str, longest_wait: float = LONGEST_WAIT
    ) -> None:
        """`remedy` is what to do while something waits, in words; `longest_wait` in seconds."""
        self._longest_wait = longest_wait
        self._sleep = sleep
        self._remedy = remedy
        self._in_trouble = False
        self._held_up: dict[object, str] = {}

    @property
    def trouble(self) -> str:
        """Why something waits for the disk now; empty while nothing does."""
        return next(iter(self._held_up.values()), "")

    async def __call__(self, attempt: Callable[[], Awaitable[R]]) -> R:
        """What `attempt` returns when it does not raise DiskTrouble."""
        try:
            return await attempt()
        except DiskTrouble as error:
            return await self.after(error, attempt)

    async def after(self, error: DiskTrouble, attempt: Callable[[], Awaitable[R]]) -> R:
        """What `attempt` returns when it raises DiskTrouble no more, as it did now for the first time."""
        try:
            return await self._until_done(error, attempt)
        finally:
            self._held_up.pop(attempt, None)

    async def _until_done(self, error: DiskTrouble, attempt: Callable[[], Awaitable[R]]) -> R:
        wait = min(_FIRST_WAIT, self._longest_wait)
        while True:
            self._held_up[attempt] = str(error)
            if not self._in_trouble:
                log.error("ledger_unwritable", reason=str(error), remedy=self._remedy)
            self._in_trouble = True
            await self._sleep(wait)
            wait = min(wait * 2, self._longest_wait)
            try:
                result = await attempt()
            except DiskTrouble as again:
                error = again
            else:
                # Only what had failed proves it: what reads, or changes nothing, succeeds on a full disk too.
                if self._in_trouble:
                    self._in_trouble = False
                    log.info("ledger_writable_again")
                return result
