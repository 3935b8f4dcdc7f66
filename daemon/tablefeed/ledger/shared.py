"""The connection on which a node of a fleet both asks and hears, since each is a process of PostgreSQL.

While something is asked, the connection is a thread's. While nothing is, the event loop watches its socket: what other
nodes tell is heard at once, and costs nothing until it comes. PostgreSQL tells nothing within a transaction, so that
what comes during a question is heard at its end.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from tablefeed.errors import LedgerUnusable
from tablefeed.ledger import engine, postgres
from tablefeed.ledger.lines import Lines
from tablefeed.ledger.records import Records, connected
from tablefeed.threads import Threads

if TYPE_CHECKING:
    import psycopg

R = TypeVar("R")

_MOST = 1_000
"""What is kept for who listens."""
_LAST_PATIENCE = 1.0
"""Seconds that a question gets at the end, before its connection is cut off, and then to notice that."""


class SharedConnection:
    """One connection to PostgreSQL and its thread: a source for a Reader, and what a Listener hears by."""

    def __init__(self, url: str, node: str) -> None:
        """The connection is made when it is needed first, and anew when it was lost; `node` is whose it is."""
        self._url = url
        self._name = postgres.session_name(node)
        # A question that nobody answers must not keep the process from ending.
        self._thread = Threads(1, "ledger-reader")
        self._lines = Lines()
        self._stack = ExitStack()
        self._records: Records | None = None
        self._driver: psycopg.Connection[Any] | None = None
        self._news: deque[str | None] = deque(maxlen=_MOST)
        """What nodes have told; None: something may have been missed."""
        self._happened = asyncio.Event()
        """There is news, or the connection is lost."""
        self._calls = 0
        """Those on the thread that have not ended."""
        self._watched: int | None = None
        """The socket, while nothing uses it."""

    async def ask(self, question: Callable[[Records], R]) -> R:
        """What `question` returns, called on the thread with the open ledger. Raises LedgerUnusable."""
        return await self._run(lambda: question(self._connected()))

    async def listen(self, told: Callable[[str | None], None]) -> None:
        """Call `told` with what nodes tell, until the connection is lost; with None where some may have been missed.

        One at a time may listen. Raises LedgerUnusable where the connection cannot be made.
        """
        await self._run(self._connected)
        while self._calls or self._driver is not None:
            self._happened.clear()
            if len(self._news) == _MOST:
                told(None)
            while self._news:
                told(self._news.popleft())
            await self._happened.wait()

    async def close(self) -> None:
        """End the connection, also where it gives no answer."""
        ended = self._run(self._drop)
        await asyncio.wait((ended,), timeout=_LAST_PATIENCE)
        if not ended.done():
            self._lines.cut()
            await asyncio.wait((ended,), timeout=_LAST_PATIENCE)
        self._thread.shutdown(wait=False)

    # On the event loop.

    def _run(self, work: Callable[[], R]) -> asyncio.Future[R]:
        """Call `work` on the thread, which has the connection until all such calls have ended."""
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            self._watched = None
        self._calls += 1
        loop = asyncio.get_running_loop()

        def ended(_: Future[R]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(self._ended)

        future = self._thread.submit(self._settled, work)
        future.add_done_callback(ended)
        return asyncio.wrap_future(future)

    def _ended(self) -> None:
        self._calls -= 1
        if self._news or self._driver is None:
            self._happened.set()
        if not self._calls and self._driver is not None:
            self._watched = self._driver.fileno()
            asyncio.get_running_loop().add_reader(self._watched, self._readable)

    def _readable(self) -> None:
        if self._driver is None or not postgres.hear(self._driver):
            self._run(self._drop)
        elif self._news:
            self._happened.set()

    # On the thread.

    def _settled(self, work: Callable[[], R]) -> R:
        try:
            return work()
        finally:
            # What the driver has read with an answer, the socket does not tell of any more.
            if self._driver is not None and not postgres.hear(self._driver):
                self._drop()

    def _connected(self) -> Records:
        if self._records is None:
            made = engine.make_engine(self._url, self._name)
            self._lines.follow(made)
            with ExitStack() as stack:
                connection = stack.enter_context(connected(self._url, made))
                self._driver = postgres.listen(connection, self._news.append)
                stack.callback(connection.invalidate)  # it may be lost, and has nothing to be rolled back
                self._stack = stack.pop_all()
            self._records = Records(connection, self._url)
            self._news.append(None)
        return self._records

    def _drop(self) -> None:
        self._records = self._driver = None
        with suppress(LedgerUnusable):  # it is broken, so that it cannot be closed politely
            self._stack.close()
