"""Threads for calls that block in the way of a file.

An Executor's call makes two futures with their locks and wakes the event loop once, which together costs more than to
open and read a small file. Here a call makes one future, and calls that end together wake the loop once.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_Job = tuple["asyncio.Future[Any] | Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Threads(Executor):
    """Up to `most` threads, each started when none is free. `call` is for one event loop, `submit` for anybody.

    They are daemon threads: one that hangs in a call to a dead file server does not keep the process from ending.
    """

    def __init__(self, most: int, name: str) -> None:
        """`name` is what the threads are called, with a number."""
        self._most = most
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._open = 0
        """Calls that have not ended; guarded by the lock."""
        self._ended: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._is_told = False
        """The loop has been asked to hand back what has ended."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def call(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Run `function` in a thread; the future has what it returns or raises.

        It runs also when the future is cancelled meanwhile. Raises RuntimeError after `shutdown`.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = self._loop.create_future()
        self._put((future, function, args))
        return future

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As any executor's."""
        future: Future[T] = Future()
        self._put((future, lambda: function(*args, **kwargs), ()))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001 - Executor's
        """Take no more calls; `wait` until those that were made have ended, or begun where they are cancelled."""
        self._closed = True
        with suppress(Empty):
            while cancel_futures and (job := self._jobs.get_nowait()):
                job[0].cancel()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _put(self, job: _Job) -> None:
        if self._closed:
            raise RuntimeError("no call can be made after shutdown")
        with self._lock:
            self._open += 1
            is_short = len(self._threads) < min(self._open, self._most)
        self._jobs.put(job)
        if is_short:
            thread = threading.Thread(target=self._work, name=f"{self._name}_{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function, args = job
            if isinstance(future, Future):
                self._run(future, function)
            else:
                self._call(future, function, args)
            # A thread that waits for its next job shall not keep what the last one made.
            del job, future, function, args
            with self._lock:
                self._open -= 1

    def _run(self, future: Future[Any], function: Callable[..., Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - raised in the caller
            future.set_exception(error)
        else:
            future.set_result(result)

    def _call(self, future: asyncio.Future[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            self._ended.append((future, function(*args), None))
        except BaseException as error:  # noqa: BLE001 - raised in the caller
            self._ended.append((future, None, error))
        if not self._is_told and self._loop is not None:
            self._is_told = True
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._hand_back)

    def _hand_back(self) -> None:
        self._is_told = False
        while self._ended:
            future, result, error = self._ended.popleft()
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
