"""How many of something may go on at a time, which may change meanwhile."""

import asyncio
from collections import deque
from types import TracebackType


class Limit:
    """As a semaphore, in the order of arrival; `change` sets anew how many may pass."""

    def __init__(self, most: int) -> None:
        """`most`: how many at a time."""
        self._most = most
        self._busy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def most(self) -> int:
        """How many may go on at a time."""
        return self._most

    def change(self, most: int) -> None:
        """Let so many go on from now; those that are more end as they would have."""
        self._most = most
        self._let_in()

    async def __aenter__(self) -> None:
        """Wait until it is this one's turn."""
        if self._busy < self._most and not self._waiting:
            self._busy += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the next one in."""
        self._leave()

    def _leave(self) -> None:
        self._busy -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._busy < self._most and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self._busy += 1
                turn.set_result(None)
