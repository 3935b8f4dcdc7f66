"""What only a ledger on PostgreSQL needs: its connections and its locks.

All functions block, but for `hear`; they are called on a thread of the ledger.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from tablefeed.errors import Exit, LedgerUnusable
from tablefeed.ledger.sqlstates import LOCK_NOT_AVAILABLE, may_not_create, state_of

if TYPE_CHECKING:
    import psycopg

_NAME_BYTES = 63
CHANNEL = "tablefeed"
"""Where nodes tell each other that there is something to do."""
_NODE, _SCAN, _ORDER, _SCHEMA = 0x7466_0001, 0x7466_0002, 0x7466_0003, 0x7466_0004
"""What an advisory lock is for: the first of its two numbers."""
_PARAMETERS = {
    "connect_timeout": 10,
    "client_encoding": "UTF8",  # else a database without an encoding gives bytes for text
    # A cut cable is noticed within half a minute, not after the kernel's two hours.
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_SESSION = (
    "SET synchronous_commit = on",
    "SET lock_timeout = '20s'",
    "SET statement_timeout = '60s'",
    # A node that stops in the middle of a transaction holds up no other for longer than this.
    "SET idle_in_transaction_session_timeout = '30s'",
    # The server, too, notices a cut cable or a machine that lost its power, and lets go of the node's name.
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
)
_MIGRATING = ("SET statement_timeout = 0", "SET lock_timeout = '10min'")
"""Another node may be at it, with a large ledger."""


def make_engine(url: str, name: str = "tablefeed") -> sa.Engine:
    """An engine that keeps no connections; they are called `name` in pg_stat_activity.

    Raises LedgerUnusable where the driver is missing.
    """
    parameters = {**_PARAMETERS, "application_name": name}
    try:
        return sa.create_engine(url, poolclass=NullPool, connect_args=parameters, hide_parameters=True)
    except ImportError as error:
        # Also where psycopg is there, but libpq is not.
        lacks = "is not installed" if isinstance(error, ModuleNotFoundError) else "cannot be used: libpq is missing"
        raise LedgerUnusable(
            f"the ledger is on PostgreSQL, but its driver, psycopg, {lacks}",
            "Install it: pip install 'tablefeed[postgres]'",
            Exit.CONFIG,
        ) from None


def set_up(connection: sa.Connection) -> None:
    """Let a new connection write durably, and wait for nothing for ever."""
    for statement in _SESSION:
        connection.exec_driver_sql(statement)
    connection.commit()


def _number(text: str) -> int:
    """The second number of an advisory lock: 32 bits with a sign."""
    number = zlib.crc32(text.encode())
    return number - 2**32 if number >= 2**31 else number


def lock_node(connection: sa.Connection, node: str) -> bool:
    """Take a node's name for as long as this connection lives; returns whether nobody has it.

    A connection that has just been closed keeps it for a moment yet, so that this waits for a few seconds.
    """
    try:
        with connection.begin():
            connection.exec_driver_sql("SET LOCAL lock_timeout = '5s'")
            connection.execute(sa.select(sa.func.pg_advisory_lock(_NODE, _number(node))))
    except sa.exc.DBAPIError as error:
        if state_of(error) == LOCK_NOT_AVAILABLE:
            return False
        raise
    return True


def holds_name(connection: sa.Connection, node: str) -> bool:
    """Whether a connection lives that has taken a node's name."""
    held = sa.text(
        "SELECT 1 FROM pg_locks JOIN pg_database ON pg_database.oid = database WHERE datname = current_database()"
        " AND locktype = 'advisory' AND granted AND classid = :kind AND objid = :number"
    )
    return connection.execute(held, {"kind": _NODE, "number": _number(node) % 2**32}).first() is not None


def lock_scan(connection: sa.Connection, feed: str) -> bool:
    """Take the scans of a shared feed for as long as this connection lives; returns whether no other node has them.

    To be asked once: locks of a connection are counted.
    """
    take = sa.select(sa.func.pg_try_advisory_lock(_SCAN, _number(feed)))
    locked: bool = connection.execute(take).scalar_one()
    return locked


def unlock_scan(connection: sa.Connection, feed: str) -> None:
    """Let another node scan a shared feed."""
    connection.execute(sa.select(sa.func.pg_advisory_unlock(_SCAN, _number(feed))))


def lock_order(connection: sa.Connection, feed: str) -> None:
    """Let no other node claim of a feed until this transaction ends."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ORDER, _number(feed))))


def assert_may_create(connection: sa.Connection, place: str) -> None:
    """Make sure that this user may make tables. Raises LedgerRefused."""
    may = sa.text("SELECT current_user, has_schema_privilege(current_schema(), 'CREATE')")
    user, allowed = connection.execute(may).one()
    if not allowed:
        raise may_not_create(place, user)


@contextmanager
def migrating(connection: sa.Connection) -> Iterator[None]:
    """Let no other node change the schema meanwhile; where that fails, the connection is not to be used again."""
    for statement in _MIGRATING:
        connection.exec_driver_sql(statement)
    connection.execute(sa.select(sa.func.pg_advisory_lock(_SCHEMA, 0)))
    connection.commit()
    yield
    connection.execute(sa.select(sa.func.pg_advisory_unlock(_SCHEMA, 0)))
    set_up(connection)


def notify(connection: sa.Connection, payload: str) -> None:
    """Tell all nodes, once this transaction is durable."""
    connection.execute(sa.select(sa.func.pg_notify(CHANNEL, payload)))


def end_sessions(connection: sa.Connection, name: str) -> int:
    """End the connections of a node that is over, so that it holds no lock any more; returns how many there were."""
    mine = sa.text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = :name AND usename = current_user AND pid <> pg_backend_pid()"
    )
    ended: int = connection.execute(mine, {"name": name}).scalar_one()
    return ended


@dataclass(frozen=True, slots=True)
class Session:
    """What the server knows a connection by. Numbers alone are given out again, also after a restart."""

    number: int
    began: str


def end_session(connection: sa.Connection, session: Session) -> bool:
    """End an earlier connection of ours that the server takes for alive yet; returns whether it does."""
    that = sa.text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = :number AND backend_start::text = :began"
    )
    ended = connection.execute(that, {"number": session.number, "began": session.began}).first() is not None
    connection.commit()
    return ended


def session_of(connection: sa.Connection) -> Session:
    """This connection, as the server knows it."""
    this = sa.text("SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()")
    session = Session(*connection.execute(this).one())
    connection.commit()
    return session


def session_name(node: str) -> str:
    """What a node's connections are called, in the 63 bytes that PostgreSQL keeps: long names differ at their end."""
    name = f"tablefeed {node}"
    return name if len(name) <= _NAME_BYTES else f"{name[: _NAME_BYTES - 9]}-{zlib.crc32(node.encode()):08x}"


def is_postgres(connection: sa.Connection) -> bool:
    """Whether a connection leads to PostgreSQL."""
    return connection.dialect.name == "postgresql"


def listen(connection: sa.Connection, heard: Callable[[str], None]) -> "psycopg.Connection[Any]":
    """Give `heard` what nodes tell each other from now on, as it comes; returns the driver's connection, for `hear`."""
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    driver.add_notify_handler(lambda notify: heard(notify.payload))
    connection.exec_driver_sql(f"LISTEN {CHANNEL}")
    connection.commit()
    return driver


def hear(driver: "psycopg.Connection[Any]") -> bool:
    """Take in what has come while no statement runs; returns whether the connection lives. Waits for nothing."""
    if driver.closed:
        return False
    try:
        driver.pgconn.consume_input()
    except driver.OperationalError:
        return False
    while (told := driver.pgconn.notifies()) and driver.pgconn.notify_handler:
        driver.pgconn.notify_handler(told)
    return True


def last_number(connection: sa.Connection, table: str) -> int:
    """The highest id that a table has ever given; 0: none."""
    asked = sa.text("SELECT pg_sequence_last_value(CAST(pg_get_serial_sequence(:table, 'id') AS regclass))")
    number: int | None = connection.execute(asked, {"table": table}).scalar()
    return number or 0


def set_last_number(connection: sa.Connection, table: str, number: int) -> None:
    """Let a table's next id be the one after this; not undone with the transaction."""
    change = sa.text("SELECT setval(pg_get_serial_sequence(:table, 'id'), :number)")
    connection.execute(change, {"table": table, "number": number})
