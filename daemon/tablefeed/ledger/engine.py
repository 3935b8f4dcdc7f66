"""Opening the ledger, whichever database holds it: connections, migrations, and its errors in our words.

What only one of the databases needs is in `sqlite.py` and `postgres.py`. All functions block.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tablefeed.errors import DiskTrouble, Exit, LedgerUnusable, TablefeedError
from tablefeed.ledger import postgres, sqlite, sqlstates
from tablefeed.ledger.lines import Lines
from tablefeed.ledger.schema import HEAD

UNFINISHED = f"{HEAD}-unfinished"
"""What stands for the version of the schema in a ledger that another is being copied to: nobody else may use it."""


def sqlite_file(url: str) -> Path | None:
    """The file of a ledger in SQLite; None: it is on PostgreSQL."""
    parsed = sa.make_url(url)
    return Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None


def make_engine(url: str, name: str = "tablefeed") -> sa.Engine:
    """An engine for use on the calling thread only; `name` is what a database server calls its connections.

    To connect raises LedgerUnusable where the server's database cannot hold each file's name.
    """
    if sqlite_file(url) is not None:
        return sqlite.make_engine(url)
    made = postgres.make_engine(url, name)
    sa.event.listen(made, "connect", lambda connection, _: _assert_unicode(connection, url))
    return made


def _assert_unicode(connection: Any, url: str) -> None:
    """Make sure that a new connection of the driver leads to a database that holds any name. Raises LedgerUnusable."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in (None, "UTF8"):
        connection.close()
        raise LedgerUnusable(
            f"the database {describe(url)} cannot hold every file's name: its encoding is {encoding}, not UTF8",
            "Make another and name it in [ledger] url: createdb --encoding=UTF8 --locale=C --template=template0 …",
            Exit.CONFIG,
        )


def connect(url: str, name: str = "tablefeed", lines: Lines | None = None) -> sa.Connection:
    """A connection to an up-to-date ledger, for use on the calling thread only; one to a server is among `lines`.

    Raises LedgerUnusable for a damaged ledger or one that a newer tablefeed has written, DiskTrouble where waiting
    helps.
    """
    return _connect(url, name, _migrate, lines)


def connect_to_copy(url: str) -> sa.Connection:
    """As `connect`, and also to a ledger that an earlier copy has left unfinished."""

    def migrate(connection: sa.Connection, url: str) -> None:
        version = schema_version(connection)
        connection.rollback()
        if version != UNFINISHED:
            _migrate(connection, url)

    return _connect(url, "tablefeed", migrate)


def mark(connection: sa.Connection, version: str) -> None:
    """Let the ledger say that its schema has this version: `HEAD`, or `UNFINISHED`."""
    connection.execute(sa.text("UPDATE alembic_version SET version_num = :version"), {"version": version})


def last_number(connection: sa.Connection, table: str) -> int:
    """The highest id that a table has ever given; 0: none."""
    on_server = postgres.is_postgres(connection)
    return postgres.last_number(connection, table) if on_server else sqlite.last_number(connection, table)


def raise_last_number(connection: sa.Connection, table: str, number: int) -> None:
    """Let a table give higher ids than this one alone."""
    if number <= last_number(connection, table):
        return
    if postgres.is_postgres(connection):
        postgres.set_last_number(connection, table, number)
    else:
        sqlite.set_last_number(connection, table, number)


def _connect(
    url: str, name: str, migrate: Callable[[sa.Connection, str], None], lines: Lines | None = None
) -> sa.Connection:
    with translated(url):
        made = make_engine(url, name)
        if lines is not None and sqlite_file(url) is None:
            lines.follow(made)
        connection = made.connect()
        try:
            if postgres.is_postgres(connection):
                postgres.set_up(connection)
            else:
                sqlite.set_up(connection)
            migrate(connection, url)
        except BaseException:
            connection.close()
            connection.engine.dispose()
            raise
    return connection


def empty_journal(connection: sa.Connection) -> None:
    """Let nothing that was cleared lie in SQLite's journal, as far as readers allow it now."""
    if not postgres.is_postgres(connection):
        sqlite.empty_journal(connection)


def assert_usable(url: str) -> None:
    """Make sure that there is a ledger which this user may use. Raises LedgerUnusable."""
    path = sqlite_file(url)
    if path is not None:
        sqlite.assert_usable(path)


def assert_current(connection: sa.Connection, url: str) -> None:
    """Make sure that the ledger has the form that this program knows. Raises LedgerUnusable."""
    version = schema_version(connection)
    connection.rollback()
    if version is None:
        raise LedgerUnusable(f"{describe(url)} is no ledger", "Set [ledger] url to what the daemon uses")
    _assert_finished(version, url)
    if version != HEAD:
        raise LedgerUnusable(
            f"the ledger {describe(url)} was written by another version of tablefeed (schema {version}, not {HEAD})",
            "Use the version that the daemon has; a newer daemon brings the ledger up to date when it starts",
        )


def inspect_ledger(url: str) -> str:
    """What can be said of the ledger without changing or locking it, in one line.

    Raises LedgerUnusable when a daemon could not use it.
    """
    path = sqlite_file(url)
    return _inspect_server(url) if path is None else sqlite.inspect(path)


def _inspect_server(url: str) -> str:
    made = make_engine(url)
    try:
        with translated(url), made.connect() as connection:
            version = schema_version(connection)
            if version != UNFINISHED:
                _assert_not_newer(version, url)
                if version != HEAD:
                    postgres.assert_may_create(connection, describe(url))
            size = connection.execute(sa.select(sa.func.pg_database_size(sa.func.current_database()))).scalar_one()
    except DiskTrouble as error:
        raise LedgerUnusable(str(error), *remedy(url, str(error))) from None
    finally:
        made.dispose()
    if version is None:
        return f"ledger {describe(url)}: its tables are made at the first start"
    _assert_finished(version, url)
    if version != HEAD:
        return f"ledger {describe(url)}: {size} bytes, of an older version, which the next start brings up to date"
    return f"ledger {describe(url)}: {size} bytes"


def schema_version(connection: sa.Connection) -> str | None:
    """Which version of the schema a ledger has; None: it has none, since it is no ledger yet."""
    if "alembic_version" not in sa.inspect(connection).get_table_names():
        return None
    version: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return version


def _assert_finished(version: str | None, url: str) -> None:
    if version is not None and version.endswith("-unfinished"):
        raise LedgerUnusable(
            f"the ledger {describe(url)} is a copy that was not finished",
            "Repeat `tablefeed ledger copy`, which goes on with it, or set [ledger] url to another",
        )


def _migrate(connection: sa.Connection, url: str) -> None:
    if _is_current(connection):
        return
    if not postgres.is_postgres(connection):
        _upgrade(connection, url)
        return
    with postgres.migrating(connection):
        # Another node may have done it meanwhile.
        if not _is_current(connection):
            _upgrade(connection, url)


def _is_current(connection: sa.Connection) -> bool:
    version = schema_version(connection)
    connection.rollback()
    return version == HEAD


def _upgrade(connection: sa.Connection, url: str) -> None:
    # Imported here because it costs a third of a second and is needed once in a ledger's life.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    version = schema_version(connection)
    connection.rollback()
    _assert_finished(version, url)
    _assert_not_newer(version, url)
    if not postgres.is_postgres(connection):
        # The driver begins a transaction with the first row that is changed, and not with a table that is dropped.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    command.upgrade(config, "head")
    connection.commit()


def _assert_not_newer(version: str | None, url: str) -> None:
    """Make sure that this program can bring a ledger up to date. Raises LedgerUnusable."""
    numbered = version is None or re.fullmatch("[0-9]{4}", version)  # as all our revisions are
    if numbered and (version or HEAD) <= HEAD:
        return
    if not numbered and sqlite_file(url) is None:
        raise LedgerUnusable(
            f"the database {describe(url)} is another program's (its table alembic_version says {version})",
            "Name a database of its own for tablefeed in [ledger] url",
        )
    raise LedgerUnusable(
        f"the ledger {describe(url)} was written by a newer tablefeed (schema {version}, this one knows {HEAD})",
        "Install the newer version again, or give this one a ledger of its own in [ledger] url",
    )


def describe(url: str) -> str:
    """The URL as it may be shown: a path for SQLite, else host and database, without user and password."""
    path = sqlite_file(url)
    if path is not None:
        return str(path)
    parsed = sa.make_url(url)
    host = parsed.host or parsed.query.get("host") or "localhost"
    port = f":{parsed.port}" if parsed.port else ""
    return f"postgresql://{host}{port}/{parsed.database or parsed.username or ''}"


def while_it_waits(url: str) -> str:
    """What to do while the ledger cannot be written, in words."""
    return "start PostgreSQL, or mend the way to it" if sqlite_file(url) is None else "free space on the ledger's disk"


def remedy(url: str, trouble: str = "") -> tuple[str, Exit]:
    """What to do where the ledger cannot be opened now, for what is told as `trouble`, and the exit code of that."""
    if sqlite_file(url) is None:
        return sqlstates.remedy(trouble), Exit.UNAVAILABLE
    return "Free space, or set [ledger] url to a file on a local disk", Exit.CANNOT_CREATE


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn the database's errors into ours: DiskTrouble where waiting helps, LedgerUnusable where it does not."""
    try:
        yield
    except TablefeedError:
        raise
    except sa.exc.DBAPIError as error:
        ours = sqlite.error_of if sqlite_file(url) is not None else sqlstates.error_of
        raise ours(error, describe(url)) from None
