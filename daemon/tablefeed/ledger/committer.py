"""How the ledger is changed and asked: on one thread of its own, and many changes in one commit.

Transitions that arrive while a commit runs are committed together (group commit): those of one kind one after the
other with one statement, all as one transaction. Each caller wakes when its own is durable.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import sqlalchemy as sa

from tablefeed.batch import Batcher, linger
from tablefeed.clock import steady
from tablefeed.errors import Conflict, DiskTrouble, LedgerRefused
from tablefeed.ledger import engine, postgres
from tablefeed.ledger.changes import Transition
from tablefeed.ledger.feeds import happenings
from tablefeed.ledger.lines import Lines
from tablefeed.ledger.outlast import LONGEST_WAIT, Outlast
from tablefeed.ledger.transitions import again

R = TypeVar("R")

_GROUP = 2_000
_CONFLICTS = 5
"""Times that a commit is tried, where other nodes come in between."""
_SILENCE = 10.0
"""Seconds without an answer that are told as trouble."""

_Op = tuple[Transition, Any]
"""A transition and its item."""


class Committer(ABC):
    """One connection and its thread."""

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        committed: Callable[[float, int], None],
        longest_wait: float = LONGEST_WAIT,
    ) -> None:
        """`clock` gives Unix seconds.

        `committed` is called on the ledger's thread with what each commit took and how many transitions it made.
        `longest_wait`: seconds between two tries while the ledger cannot be written, at most.
        """
        self._url = url
        self._clock = clock
        self._committed = committed
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._batcher: Batcher[_Op, Any] = Batcher(
            self._commit, executor=self._executor, max_batch=_GROUP, linger=linger
        )
        self._connection: sa.Connection | None = None
        self._outlast = Outlast(sleep, engine.while_it_waits(url), longest_wait)
        self._lines = Lines()
        self._asked_at: float | None = None
        """Since when the thread waits for the database; None: it does not."""
        self._was_opened = False
        self._left: set[asyncio.Task[Any]] = set()
        """What goes on without its caller."""

    @property
    def trouble(self) -> str:
        """Why what is to be written waits for the disk or the server; empty while nothing does."""
        silent = 0.0 if (since := self._asked_at) is None else steady() - since
        if silent > _SILENCE and not self._outlast.trouble:
            return f"{engine.describe(self._url)}: it has not answered for {silent:.0f} s"
        return self._outlast.trouble

    @property
    def remedy(self) -> str:
        """What to do about `trouble`, in words."""
        return engine.while_it_waits(self._url)

    @abstractmethod
    def _connect(self) -> sa.Connection:
        """A connection that may be used. Runs on the thread, at first and whenever the last one was lost."""

    @property
    def _conn(self) -> sa.Connection:
        if self._connection is None:
            with engine.translated(self._url):
                self._connection = self._connect()
        return self._connection

    def _disconnect(self) -> None:
        """Close the connection. The last one out writes SQLite's journal into the database and removes it, with the
        grants in it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            connection.engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """The connection, in a transaction that is durable at the end. Raises DiskTrouble and LedgerUnusable.

        A connection that a server has ended, or may have, is not used again. Who was let in once may be refused while
        people change something: that is outlasted, since what was sent meanwhile is to be recorded.
        """
        self._asked_at = steady()
        try:
            with engine.translated(self._url), self._conn.begin():
                yield self._conn
        except Conflict:
            raise
        except DiskTrouble:
            self._drop_line()
            raise
        except LedgerRefused as error:
            self._drop_line()
            if not self._was_opened:
                raise
            raise DiskTrouble(engine.describe(self._url), str(error)) from None
        finally:
            self._asked_at = None

    @contextmanager
    def _let_go_after(self, seconds: float) -> Iterator[None]:
        """While this lasts, a connection to a server that has not answered for so long is ended, as often as needed."""
        loop = asyncio.get_running_loop()

        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer
            since = self._asked_at
            silent = 0.0 if since is None else steady() - since
            if silent >= seconds:
                self._lines.cut()
                silent = 0.0
            timer = loop.call_later(seconds - silent, look)

        timer = loop.call_later(seconds, look)
        try:
            yield
        finally:
            timer.cancel()

    def _drop_line(self) -> None:
        if self._connection is not None and postgres.is_postgres(self._connection):
            self._drop()

    def _drop(self) -> None:
        with suppress(sa.exc.SQLAlchemyError):  # it is broken, so that it cannot be closed politely
            self._disconnect()

    async def _do(self, transition: Transition, item: Any) -> Any:
        op = (transition, item)
        try:
            return await self._batcher.submit(op)
        except DiskTrouble as error:
            repeated = (again(transition), item)
            return await self._outlast.after(error, lambda: self._batcher.submit(repeated))

    async def _see_through(self, transition: Transition, item: Any) -> Any:
        """As `_do`, also when the caller is cancelled meanwhile: what has happened already has to be recorded."""
        first, repeated = self._batcher.put((transition, item)), (again(transition), item)
        try:
            # Not a task for each: there are two of these for every file, and hardly one is cancelled.
            return await asyncio.shield(first)
        except DiskTrouble as error:
            return await asyncio.shield(self._keep(self._outlast.after(error, lambda: self._batcher.submit(repeated))))
        except asyncio.CancelledError:
            self._keep(self._outlast(lambda: self._first_or_next(first, repeated)))
            raise

    def _keep(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._left.add(task)
        task.add_done_callback(self._left.discard)
        return task

    async def _first_or_next(self, first: asyncio.Future[Any], repeated: _Op) -> Any:
        """What the first try gave, or else another one."""
        if first.done() and first.exception() is not None:
            return await self._batcher.submit(repeated)
        return await first

    def _commit(self, ops: list[_Op]) -> list[Any]:
        kinds: dict[Transition, list[int]] = {}
        for index, (transition, _) in enumerate(ops):
            kinds.setdefault(transition, []).append(index)
        began = steady()
        results = self._without_conflict(lambda: self._commit_kinds(ops, kinds))
        self._committed(steady() - began, len(ops))
        return results

    def _commit_kinds(self, ops: list[_Op], kinds: dict[Transition, list[int]]) -> list[Any]:
        results: list[Any] = [None] * len(ops)
        now = self._now()
        with self._transaction() as conn, happenings(conn, now):
            for transition, indexes in kinds.items():
                outcome = transition(conn, now, [ops[index][1] for index in indexes])
                for index, result in zip(indexes, outcome, strict=True):
                    results[index] = result
        return results

    def _without_conflict(self, attempt: Callable[[], R]) -> R:
        """What `attempt` returns: where other nodes came in between it is made again at once, a few times."""
        for _ in range(_CONFLICTS - 1):
            with suppress(Conflict):
                return attempt()
        return attempt()

    def _now(self) -> int:
        return round(self._clock() * 1000)

    async def _ask(self, query: Callable[..., R], *args: Any) -> R:
        def run() -> R:
            with self._transaction() as conn:
                return query(conn, *args)

        def attempt() -> Awaitable[R]:
            return asyncio.get_running_loop().run_in_executor(self._executor, self._without_conflict, run)

        return await self._outlast(attempt)
