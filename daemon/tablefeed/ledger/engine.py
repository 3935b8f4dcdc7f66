"""Opening the ledger: file mode, the lock that keeps a second daemon out, pragmas and migrations.

Everything that only SQLite needs is here. All functions block; the ledger calls them on its own thread.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from tablefeed.errors import DiskTrouble, Exit, LedgerUnusable, TablefeedError
from tablefeed.ledger.schema import HEAD

LOCK_SUFFIX = ".lock"
_JOURNAL_PAGES = 4_000
_LOOKS = 10_000
"""How often the lock is tried while others only look at it."""
_WAITING_HELPS = ("full", "disk i/o error", "locked", "unable to open", "readonly")


class Lock:
    """An exclusive `flock` on a file beside the ledger, held until `release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises LedgerUnusable when another process holds it, and names that process.
        """
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LedgerUnusable(
                f"the ledger's lock {path} cannot be opened: {error.strerror}",
                "Let the user that runs tablefeed own it, and its directory",
                Exit.NO_PERMISSION,
            ) from None
        if not _lock(self._fd):
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise LedgerUnusable(
                f"the ledger {path.with_suffix('')} is in use by another tablefeed (process {holder})",
                "Stop that one first, or give this one its own [ledger] url",
            )
        with suppress(OSError):  # it only tells who holds the lock, and the disk may be full
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next daemon in."""
        os.close(self._fd)


def _lock(fd: int) -> bool:
    """Take the lock, unless another daemon has it.

    Who only looks whether it is held, holds it shared for an instant, and that keeps no daemon from starting.
    """
    for _ in range(_LOOKS):
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        os.sched_yield()
    return False


def sqlite_path(url: str) -> Path:
    """The file that an SQLite URL names."""
    return Path(sa.make_url(url).database or "")


def prepare_file(path: Path) -> None:
    """Make the ledger's file and directories when they are missing; only the owner may use what belongs to the ledger.

    Raises LedgerUnusable, naming the path and the remedy.
    """
    try:
        _make(path.parent)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        for suffix in ("", "-wal", "-shm", LOCK_SUFFIX):
            with suppress(FileNotFoundError):
                path.with_name(path.name + suffix).chmod(0o600)
    except PermissionError as error:
        raise LedgerUnusable(
            f"the ledger {path} cannot be written: {error.strerror}",
            f"Let the user that runs tablefeed own {path.parent}, or set [ledger] url to another place",
            Exit.NO_PERMISSION,
        ) from error
    except OSError as error:
        raise LedgerUnusable(
            f"the ledger {path} cannot be created: {error.strerror}",
            "Set [ledger] url to a file on a local disk",
        ) from error


def _make(directory: Path) -> None:
    if not directory.is_dir():
        _make(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)


def connect(url: str) -> sa.Connection:
    """A connection to an up-to-date ledger, for use on the calling thread only.

    Raises LedgerUnusable for a damaged file or one that a newer tablefeed has written.
    """
    engine = sa.create_engine(url, poolclass=StaticPool, connect_args={"timeout": 10.0}, hide_parameters=True)
    with translated(url):
        connection = engine.connect()
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            connection.exec_driver_sql("PRAGMA synchronous=FULL")
            connection.exec_driver_sql("PRAGMA foreign_keys=ON")
            # A grant that was cleared is overwritten: it may be valid for a month yet.
            connection.exec_driver_sql("PRAGMA secure_delete=ON")
            # In pages of 4 KiB. What changes again and again is copied into the database the more seldom.
            connection.exec_driver_sql(f"PRAGMA wal_autocheckpoint={_JOURNAL_PAGES}")
            connection.commit()
            # The journal of a killed daemon holds grants that were cleared since.
            empty_journal(connection)
        _migrate(connection, url)
    return connection


def empty_journal(connection: sa.Connection) -> None:
    """Write SQLite's journal into the database and cut it off, as far as readers allow it now."""
    if connection.engine.dialect.name == "sqlite":
        try:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()
        finally:
            connection.rollback()


def assert_usable(url: str) -> None:
    """Make sure that there is a ledger which this user may use. Raises LedgerUnusable."""
    path = sqlite_path(url)
    if not _is_there(path):
        raise LedgerUnusable(
            f"there is no ledger {path} yet",
            "It is made at the daemon's first start; or name the right configuration with --config",
        )
    _assert_writable(path)


def assert_current(connection: sa.Connection, url: str) -> None:
    """Make sure that the ledger has the form that this program knows. Raises LedgerUnusable."""
    version = _version(connection)
    connection.rollback()
    if version is None:
        raise LedgerUnusable(f"{describe(url)} is no ledger", "Set [ledger] url to the file that the daemon uses")
    if version != HEAD:
        raise LedgerUnusable(
            f"the ledger {describe(url)} was written by another version of tablefeed (schema {version}, not {HEAD})",
            "Use the version that the daemon has; a newer daemon brings the ledger up to date when it starts",
        )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        raise LedgerUnusable(
            f"the ledger {path} cannot be reached: {path.parent} may not be entered by this user",
            "Run this as the user that runs the daemon, or as root",
            Exit.NO_PERMISSION,
        ) from None


def _assert_writable(path: Path) -> None:
    if not os.access(path, os.R_OK | os.W_OK):
        raise LedgerUnusable(
            f"the ledger {path} is not writable for this user",
            "Run this as the user that runs the daemon, or correct the owner",
            Exit.NO_PERMISSION,
        )


def _version(connection: sa.Connection) -> str | None:
    if "alembic_version" not in sa.inspect(connection).get_table_names():
        return None
    version: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return version


def inspect_ledger(url: str) -> str:
    """What can be said of the ledger without changing or locking it, in one line.

    Raises LedgerUnusable when a daemon could not use it.
    """
    path = sqlite_path(url)
    if not _is_there(path):
        parent = next(place for place in path.parents if place.exists())
        if not os.access(parent, os.W_OK | os.X_OK):
            raise LedgerUnusable(
                f"the ledger {path} cannot be made: {parent} is not writable for this user",
                "Make its directory, or set [ledger] url to another place",
                Exit.NO_PERMISSION,
            )
        return f"ledger {path}: made at the first start"
    _assert_writable(path)
    engine = sa.create_engine(f"sqlite:///file:{quote(str(path))}?mode=ro&uri=true", poolclass=StaticPool)
    try:
        with translated(url), engine.connect() as connection:
            known = sa.inspect(connection).get_table_names()
    except DiskTrouble as error:
        raise LedgerUnusable(str(error), "Free space, or set [ledger] url to a file on a local disk") from None
    finally:
        engine.dispose()
    if known and "alembic_version" not in known:
        raise LedgerUnusable(f"{path} is a database of something else", "Set [ledger] url to a new file")
    return f"ledger {path}: {path.stat().st_size} bytes"


def _migrate(connection: sa.Connection, url: str) -> None:
    version = _version(connection)
    connection.rollback()
    if version == HEAD:
        return
    # Imported here because it costs a third of a second and is needed once in a ledger's life.
    from alembic import command, script
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {revision.revision for revision in script.ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise LedgerUnusable(
            f"the ledger {describe(url)} was written by a newer tablefeed (schema {version}, this one knows {HEAD})",
            "Install the newer version again, or set [ledger] url to a new file",
        )
    command.upgrade(config, "head")
    connection.commit()


def describe(url: str) -> str:
    """The URL as it may be shown: a path for SQLite, else without a password."""
    parsed = sa.make_url(url)
    return parsed.database or "" if parsed.get_backend_name() == "sqlite" else parsed.render_as_string()


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn the database's errors into ours: DiskTrouble where waiting helps, LedgerUnusable where it does not."""
    try:
        yield
    except TablefeedError:
        raise
    except sa.exc.DBAPIError as error:
        text = str(error.orig)
        if isinstance(error, sa.exc.OperationalError) and any(hint in text.lower() for hint in _WAITING_HELPS):
            raise DiskTrouble(describe(url), f"the ledger cannot be written: {text}") from None
        raise LedgerUnusable(
            f"the ledger {describe(url)} is damaged or is no ledger: {text}",
            "Move it aside and start again: files that still lie in their directories are queued anew",
        ) from None
