"""Work that is cheaper together: what arrives while one batch runs makes the next one."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Runs a blocking function over batches, one batch at a time, in the order of arrival.

    It has no task of its own, so that nothing but `close` ends it: a cancelled caller takes back its item if that has
    not begun, and disturbs no other. Everything but the function itself runs on the event loop.
    """

    def __init__(
        self, process: Callable[[list[T]], Sequence[R | Exception]], *, executor: Executor, max_batch: int = 1_000
    ) -> None:
        """`process` runs in `executor` and returns one result an item, in their order; an exception among them is
        raised in that item's caller alone. What it raises itself is raised in every caller of the batch.
        """
        self._process = process
        self._executor = executor
        self._max_batch = max_batch
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    async def submit(self, item: T) -> R:
        """The result for `item`, once its batch is done.

        Raises what `process` returned or raised for it, and RuntimeError after `close`.
        """
        if self._closed:
            raise RuntimeError("nothing can be submitted after close")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if self._idle.is_set():
            self._idle.clear()
            loop.call_soon(self._begin)
        return await future

    async def close(self) -> None:
        """Take nothing more, and wait until all that was submitted is done."""
        self._closed = True
        await self._idle.wait()

    def _begin(self) -> None:
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
        loop = asyncio.get_running_loop()
        try:
            running = loop.run_in_executor(self._executor, self._process, items)
        except RuntimeError as error:
            loop.call_soon(self._end, futures, error)
        else:
            running.add_done_callback(lambda done: self._end(futures, _outcome(done, len(items))))

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
        self._begin()


def _outcome(done: asyncio.Future[Sequence[R | Exception]], count: int) -> Sequence[R | Exception] | BaseException:
    if done.cancelled():
        return RuntimeError("the executor was shut down before the batch began")
    error = done.exception()
    if error is not None:
        return error
    results = done.result()
    if len(results) != count:
        return RuntimeError(f"{count} items were processed, but {len(results)} results returned")
    return results
