"""Work that is cheaper together: what arrives while one batch runs makes the next one."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

FULL = 16
"""Items with which a batch waits for no more."""
LONGEST_LINGER = 0.005
_LINGER_STEP = 0.001


def linger(last: int) -> float:
    """Seconds for which a batch waits to get fuller, when the last one had so many items.

    Nothing where one caller alone is at work, so that it never waits for company. The more there are, the more come
    within a few milliseconds, and what a batch costs by itself is shared by all of them.
    """
    return min(max(0, last - 1) * _LINGER_STEP, LONGEST_LINGER)


class Batcher(Generic[T, R]):
    """Runs a blocking function over batches, one batch at a time, in the order of arrival.

    It has no task of its own, so that nothing but `close` ends it: a cancelled caller takes back its item if that has
    not begun, and disturbs no other. Everything but the function itself runs on the event loop.
    """

    def __init__(
        self,
        process: Callable[[list[T]], Sequence[R | Exception]],
        *,
        executor: Executor,
        max_batch: int = 1_000,
        linger: Callable[[int], float] = lambda _: 0.0,
    ) -> None:
        """`process` runs in `executor` and returns one result an item, in their order; an exception among them is
        raised in that item's caller alone. What it raises itself is raised in every caller of the batch.

        `linger` gives the seconds for which a batch that is not `FULL` waits for more, by the size of the last one.
        """
        self._process = process
        self._executor = executor
        self._max_batch = max_batch
        self._linger = linger
        self._last = 0
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    async def submit(self, item: T) -> R:
        """The result for `item`, once its batch is done.

        Raises what `process` returned or raised for it, and RuntimeError after `close`.
        """
        return await self.put(item)

    def put(self, item: T) -> asyncio.Future[R]:
        """As `submit`; to cancel the future takes back the item if that has not begun."""
        if self._closed:
            raise RuntimeError("nothing can be submitted after close")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if self._idle.is_set():
            self._idle.clear()
            loop.call_soon(self._prepare)
        elif self._timer is not None and len(self._waiting) >= FULL:
            self._begin_at_once()
        return future

    async def close(self) -> None:
        """Take nothing more, and wait until all that was submitted is done."""
        self._closed = True
        if self._timer is not None:
            self._begin_at_once()
        await self._idle.wait()

    def _prepare(self) -> None:
        """Begin the next batch, now or when it had time to get fuller."""
        seconds = self._linger(self._last)
        if not self._waiting or len(self._waiting) >= FULL or seconds <= 0 or self._closed:
            self._begin()
        else:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._begin)

    def _begin_at_once(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._timer = None
        items: list[T] = []
        futures: list[asyncio.Future[R]] = []
        while self._waiting and len(items) < self._max_batch:
            item, future = self._waiting.popleft()
            if not future.done():
                items.append(item)
                futures.append(future)
        if not items:
            self._idle.set()
            return
        self._last = len(items)
        loop = asyncio.get_running_loop()
        try:
            running = self._executor.submit(self._process, items)
        except RuntimeError as error:
            loop.call_soon(self._end, futures, error)
        else:
            # One call into the loop wakes all callers.
            running.add_done_callback(partial(self._tell, loop, futures))

    def _tell(
        self,
        loop: asyncio.AbstractEventLoop,
        futures: list[asyncio.Future[R]],
        done: Future[Sequence[R | Exception]],
    ) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._end, futures, _outcome(done, len(futures)))

    def _end(self, futures: list[asyncio.Future[R]], outcome: Sequence[R | Exception] | BaseException) -> None:
        if isinstance(outcome, BaseException):
            for future in futures:
                if not future.done():
                    future.set_exception(outcome)
        else:
            for future, result in zip(futures, outcome, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        self._prepare()


def _outcome(done: Future[Sequence[R | Exception]], count: int) -> Sequence[R | Exception] | BaseException:
    if done.cancelled():
        return RuntimeError("the executor was shut down before the batch began")
    error = done.exception()
    if error is not None:
        return error
    results = done.result()
    if len(results) != count:
        return RuntimeError(f"{count} items were processed, but {len(results)} results returned")
    return results
