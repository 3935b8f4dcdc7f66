"""The event loop's heartbeat: how late it is, and whether only a restart can help it."""

from collections import deque
from collections.abc import Awaitable, Callable

BEAT = 0.5
"""Seconds between two beats."""
WINDOW = 60.0
"""Seconds over which blocks are added up."""
SLOW = 2.0
"""Seconds by which a beat is late at least to count as a block."""
FEWEST = 3
"""Blocks within the window that make a problem at least: a process that was stopped, or a machine that slept, is
blocked once, for however long, and well again."""
MOST = 0.5
"""The part of the window that must have been lost to blocks."""
OVERDUE = 10.0
"""Seconds without a beat, while other work goes on, after which the heart counts as dead."""


class Pulse:
    """Beats on the event loop. `clock` gives seconds that only grow."""

    def __init__(
        self,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        tell: Callable[[float], None],
    ) -> None:
        """`tell` gets by how many seconds each beat was late."""
        self._clock = clock
        self._sleep = sleep
        self._tell = tell
        self._beaten_at: float | None = None
        self._blocks: deque[tuple[float, float]] = deque()
        """When each block was over, and its seconds."""

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            self._beaten_at = began = self._clock()
            await self._sleep(BEAT)
            self._beat(max(0.0, self._clock() - began - BEAT))

    def _beat(self, late: float) -> None:
        self._tell(late)
        self._forget()
        if late >= SLOW:
            self._blocks.append((self._clock(), late))

    def _forget(self) -> None:
        while self._blocks and self._blocks[0][0] < self._clock() - WINDOW:
            self._blocks.popleft()

    async def problem(self) -> str:
        """Why only a restart helps, in words; empty: nothing is wrong, or it mends itself.

        Takes a beat's time where the last one is overdue: after a block, who asks may come before the heart.
        """
        if self._overdue() > OVERDUE:
            await self._sleep(BEAT)
        if (overdue := self._overdue()) > OVERDUE:
            return f"the heartbeat has stopped: the last one was {overdue:.0f} s ago"
        self._forget()
        lost = sum(seconds for _, seconds in self._blocks)
        if len(self._blocks) >= FEWEST and lost >= MOST * WINDOW:
            count = len(self._blocks)
            return f"the event loop was blocked {count} times in the last {WINDOW:g} s, for {lost:.0f} s in all"
        return ""

    def _overdue(self) -> float:
        return 0.0 if self._beaten_at is None else self._clock() - self._beaten_at - BEAT
