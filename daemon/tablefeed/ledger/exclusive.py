"""A whole ledger held by one command, so that nobody changes it meanwhile: both sides of a copy. Everything blocks."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from tablefeed.errors import DiskTrouble, Exit, LedgerUnusable
from tablefeed.ledger import engine, nodes, sqlite
from tablefeed.ledger.schema import HEAD, metadata
from tablefeed.ledger.schema import nodes as registered
from tablefeed.ledger.sqlstates import LOCK_NOT_AVAILABLE, state_of

_STOP = "Stop the daemons that use it: nobody may while it is copied"
_UNBOUND = (
    "SET idle_in_transaction_session_timeout = 0",
    "SET statement_timeout = 0",
    # Longer than the second after which PostgreSQL ends an autovacuum that is in the way.
    "SET lock_timeout = '5s'",
)
_UNCOUNTED = {"alembic_version", "sqlite_sequence"}


@dataclass(frozen=True, slots=True)
class Held:
    """One ledger and the connection to it."""

    url: str
    connection: sa.Connection
    guard: sa.Connection
    """What keeps others away, for as long as it lives."""

    @property
    def name(self) -> str:
        """As it may be shown."""
        return engine.describe(self.url)

    def assert_held(self) -> None:
        """Make sure that nobody can have come between. Raises LedgerUnusable."""
        with self.asking():
            self.guard.execute(sa.select(1))

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Tell the database's errors as LedgerUnusable, with this ledger's name."""
        with _told(self.url):
            yield


@contextmanager
def source(url: str) -> Iterator[Held]:
    """A ledger that nobody can change, this connection included, until the end: it shows one moment of it.

    Raises LedgerUnusable where there is none, it is in use, or its schema is another than this program's.
    """
    with ExitStack() as stack:
        with _told(url):
            _assert_there(url)
            path = engine.sqlite_file(url)
            if path is not None:
                _lock(stack, path)
            connection = _connected(stack, url)
            _assert_current(connection, url)
            if path is None:
                _hold(connection, url, metadata.sorted_tables)
            else:
                # Beside the daemon's lock: `tablefeed retry` changes a ledger without it.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                connection.exec_driver_sql("PRAGMA query_only=ON")
        yield Held(url, connection, connection)


@contextmanager
def target(url: str) -> Iterator[Held]:
    """A ledger that nobody else uses until the end; one is made where there is nothing.

    Raises LedgerUnusable where it cannot be made, is in use, or has rows in another schema than this program's.
    """
    with ExitStack() as stack:
        with _told(url):
            path = engine.sqlite_file(url)
            if path is not None:
                sqlite.prepare_file(path)
                _lock(stack, path)
            with ExitStack() as first:
                _assert_fit(_connected(first, url), url)
            connection = guard = engine.connect_to_copy(url)
            stack.callback(_close, connection)
            if path is None:
                # What nodes register in. On a connection of its own, since rows are committed meanwhile.
                guard = _connected(stack, url)
                _hold(guard, url, [registered])
        yield Held(url, connection, guard)


def _connected(stack: ExitStack, url: str) -> sa.Connection:
    connection = engine.make_engine(url, "tablefeed ledger copy").connect()
    stack.callback(_close, connection)
    return connection


def _close(connection: sa.Connection) -> None:
    with suppress(sa.exc.DBAPIError):  # it was lost, and whoever used it has told so
        connection.close()
    connection.engine.dispose()


def _assert_there(url: str) -> None:
    try:
        engine.assert_usable(url)
    except LedgerUnusable as error:
        if error.exit_code is not Exit.CANNOT_CREATE:
            raise
        raise LedgerUnusable(error.what.removesuffix(" yet"), "Name the ledger that the daemon uses") from None


def _lock(stack: ExitStack, path: Path) -> None:
    try:
        lock = sqlite.Lock(path.with_name(path.name + sqlite.LOCK_SUFFIX))
    except LedgerUnusable as error:
        if error.exit_code is not Exit.CANNOT_CREATE:
            raise
        raise LedgerUnusable(error.what, _STOP) from None
    stack.callback(lock.release)


def _hold(connection: sa.Connection, url: str, tables: list[sa.Table]) -> None:
    """Let nobody change these tables, nor register as a node, until the connection ends."""
    for statement in _UNBOUND:
        connection.exec_driver_sql(statement)
    _assert_idle(connection, url)
    connection.commit()
    names = ", ".join(table.name for table in tables)
    try:
        connection.exec_driver_sql(f"LOCK TABLE {names} IN EXCLUSIVE MODE")
    except sa.exc.DBAPIError as error:
        if state_of(error) != LOCK_NOT_AVAILABLE:
            raise
        raise LedgerUnusable(f"the ledger {engine.describe(url)} is in use", _STOP) from None
    # A node may have registered before the lock was there.
    _assert_idle(connection, url)


def _assert_idle(connection: sa.Connection, url: str) -> None:
    alive = nodes.alive(connection)
    if alive:
        raise LedgerUnusable(
            f"the ledger {engine.describe(url)} is in use by {', '.join(alive)}",
            f"{_STOP}. One that was killed is taken for alive until its lease is over",
        )


def _assert_current(connection: sa.Connection, url: str) -> None:
    version = engine.schema_version(connection)
    connection.rollback()
    if version is not None and version < HEAD:
        raise LedgerUnusable(
            f"the ledger {engine.describe(url)} was written by an older tablefeed (schema {version}, not {HEAD})",
            "Start its daemon once with this version, which brings it up to date, and stop it again",
        )
    engine.assert_current(connection, url)


def _assert_fit(connection: sa.Connection, url: str) -> None:
    """Make sure that nothing is lost or spoilt by a migration."""
    version = engine.schema_version(connection)
    found = set(sa.inspect(connection).get_table_names()) - _UNCOUNTED
    if version in (HEAD, engine.UNFINISHED):
        return
    if version is None and found:
        raise LedgerUnusable(
            f"{engine.describe(url)} is a database of something else: it has the table {min(found)}",
            "Name an empty database, or one that is not there yet",
        )
    if any(
        connection.execute(sa.select(sa.literal(1)).select_from(sa.table(name)).limit(1)).first() is not None
        for name in found
    ):
        raise LedgerUnusable(
            f"the ledger {engine.describe(url)} has rows, and another schema ({version}, not {HEAD})",
            "Name an empty database, or one that is not there yet",
        )


@contextmanager
def _told(url: str) -> Iterator[None]:
    try:
        with engine.translated(url):
            yield
    except DiskTrouble as error:
        remedy = (
            ("Start PostgreSQL, or mend the way to it, and repeat this", Exit.UNAVAILABLE)
            if engine.sqlite_file(url) is None
            else ("Free space on its disk, and repeat this", Exit.CANNOT_CREATE)
        )
        raise LedgerUnusable(str(error), *remedy) from None
