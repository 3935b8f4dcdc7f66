"""What only an SQLite ledger needs: its file and its mode, the lock that keeps a second daemon out, its pragmas.

All functions block; the ledger calls them on its own thread.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from tablefeed.errors import DiskTrouble, Exit, LedgerUnusable

LOCK_SUFFIX = ".lock"
_JOURNAL_PAGES = 4_000
_LOOKS = 10_000
"""How often the lock is tried while others only look at it."""
_MAGIC = b"SQLite format 3\0"
"""What every database of SQLite begins with."""
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


def _assert_database(path: Path) -> None:
    """Make sure that a file is SQLite's, before anything of it is changed; one that is missing is made."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        begin = os.pread(fd, len(_MAGIC), 0)
    finally:
        os.close(fd)
    if begin and begin != _MAGIC:
        raise _no_ledger(str(path), "file is not a database")


def prepare_file(path: Path) -> None:
    """Make the ledger's file and directories when they are missing; only the owner may use what belongs to the ledger.

    Raises LedgerUnusable, naming the path and the remedy.
    """
    try:
        _make(path.parent)
        _assert_database(path)
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


def make_engine(url: str) -> sa.Engine:
    """An engine with one connection, for use on the calling thread only."""
    return sa.create_engine(url, poolclass=StaticPool, connect_args={"timeout": 10.0}, hide_parameters=True)


def set_up(connection: sa.Connection) -> None:
    """Let a new connection write durably, and leave no grants of a killed daemon behind."""
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


def empty_journal(connection: sa.Connection) -> None:
    """Write SQLite's journal into the database and cut it off, as far as readers allow it now."""
    try:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()
    finally:
        connection.rollback()


def error_of(error: sa.exc.DBAPIError, path: str) -> DiskTrouble | LedgerUnusable:
    """Ours for one of SQLite's: DiskTrouble where waiting helps."""
    text = str(error.orig)
    if isinstance(error, sa.exc.OperationalError) and any(hint in text.lower() for hint in _WAITING_HELPS):
        return DiskTrouble(path, f"the ledger cannot be written: {text}")
    return _no_ledger(path, text)


def _no_ledger(path: str, why: str) -> LedgerUnusable:
    return LedgerUnusable(
        f"the ledger {path} is damaged or is no ledger: {why}",
        "Move it aside and start again: files that still lie in their directories are queued anew. "
        "Or correct [ledger] url, if it names something else",
    )


def assert_usable(path: Path) -> None:
    """Make sure that there is a ledger which this user may use. Raises LedgerUnusable."""
    if not _is_there(path):
        raise LedgerUnusable(
            f"there is no ledger {path} yet",
            "It is made at the daemon's first start; or name the right configuration with --config",
        )
    _assert_writable(path)


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


def inspect(path: Path) -> str:
    """What can be said of the ledger without changing or locking it, in one line.

    Raises LedgerUnusable when a daemon could not use it.
    """
    if not _is_there(path):
        parent = next(place for place in path.parents if place.exists())
        if not os.access(parent, os.W_OK | os.X_OK):
            raise LedgerUnusable(
                f"the ledger {path} cannot be made: {parent} is not writable for this user",
                f"Let there be {path.parent}, owned by the user that runs it, or set [ledger] url to another place",
                Exit.NO_PERMISSION,
            )
        return f"ledger {path}: made at the first start"
    _assert_writable(path)
    engine = sa.create_engine(f"sqlite:///file:{quote(str(path))}?mode=ro&uri=true", poolclass=StaticPool)
    try:
        with engine.connect() as connection:
            known = sa.inspect(connection).get_table_names()
    except sa.exc.DBAPIError as error:
        trouble = error_of(error, str(path))
        if isinstance(trouble, DiskTrouble):
            raise LedgerUnusable(str(trouble), "Free space, or set [ledger] url to a file on a local disk") from None
        raise trouble from None
    finally:
        engine.dispose()
    if known and "alembic_version" not in known:
        raise LedgerUnusable(f"{path} is a database of something else", "Set [ledger] url to a new file")
    return f"ledger {path}: {path.stat().st_size} bytes"


_NUMBERS = sa.table("sqlite_sequence", sa.column("name", sa.Text), sa.column("seq", sa.Integer))


def last_number(connection: sa.Connection, table: str) -> int:
    """The highest id that a table has ever given; 0: none."""
    number: int | None = connection.execute(sa.select(_NUMBERS.c.seq).where(_NUMBERS.c.name == table)).scalar()
    return number or 0


def set_last_number(connection: sa.Connection, table: str, number: int) -> None:
    """Let a table's next id be the one after this."""
    connection.execute(sa.delete(_NUMBERS).where(_NUMBERS.c.name == table))
    connection.execute(sa.insert(_NUMBERS).values(name=table, seq=number))
