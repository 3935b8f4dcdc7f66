"""What PostgreSQL says of an error, in our words: by its SQLSTATE, or by its text where the driver gives none."""

import re

import sqlalchemy as sa

from tablefeed.errors import Conflict, DiskTrouble, Exit, LedgerRefused, LedgerUnusable

LOCK_NOT_AVAILABLE = "55P03"
"""A lock was not given in the time for it."""
_NO_RIGHT = "42501"
_REFUSED = {
    "28P01": "Write the right password into [ledger] url, or into .pgpass in the home of the user that runs tablefeed, "
    "or the file that $PGPASSFILE names",
    "28000": "Let this user log in: see pg_hba.conf, and the roles of the database",
    "3D000": "Create the database, or name the right one in [ledger] url",
    _NO_RIGHT: "Grant the user of [ledger] url the right to create tables in its schema, and to use them",
    "3F000": "Create the schema, or set the right search_path",
}
"""By SQLSTATE: what waiting does not mend."""
_SOMETHING_ELSE = ("42P07", "42P01", "42703", "42701", "42710", "42804")
"""What there is and what there is not: the tables are not those of a ledger."""
_CONFLICTS = ("40001", "40P01", "23505")
"""Nothing was done, and the same will go well now: serialization_failure, deadlock_detected, unique_violation."""
_OVERCROWDED = ("53300", "too many c", "remaining connection slots")
_TEXTS = {
    "password authentication failed|no password supplied": "28P01",
    'no pg_hba.conf entry|not permitted to log in|role "[^"]*" does not exist': "28000",
    'database "[^"]*" does not exist': "3D000",
    "permission denied": _NO_RIGHT,
}
"""By a part of its text, for a connection that was refused: the driver gives no SQLSTATE then."""
_SERVER = re.compile(r"^(connection (failed|is bad): )?connection to server .*?(, port \d+| socket .*?) failed: ")
"""How the driver begins what it says of a connection that was not made."""
_BROKEN = ("22", "23", "42")
"""Classes of errors that come again whatever is done: of data, of constraints, of names."""


def state_of(error: sa.exc.DBAPIError) -> str | None:
    """The SQLSTATE of an error; None: the driver gives none, as for a connection that was refused."""
    state: str | None = getattr(error.orig, "sqlstate", None)
    return state


def may_not_create(place: str, user: str) -> LedgerRefused:
    """That a user may make no tables at a place, which is found by asking and not by an error."""
    return LedgerRefused(f"the ledger {place} refuses: {user} may not create tables", _REFUSED[_NO_RIGHT])


def error_of(error: sa.exc.DBAPIError, place: str) -> DiskTrouble | LedgerUnusable:
    """Ours for one of PostgreSQL's: DiskTrouble where waiting helps, as it does for all outages."""
    text = _told(error)
    state = state_of(error) or _state_in(text)
    if state in _REFUSED:
        code = Exit.NO_PERMISSION if state in ("28P01", "28000", _NO_RIGHT) else Exit.CONFIG
        return LedgerRefused(f"the ledger {place} refuses: {text}", _REFUSED[state], code)
    if state in _CONFLICTS:
        return Conflict(place, f"another node came in between: {text}")
    if state in _SOMETHING_ELSE:
        return LedgerUnusable(
            f"the database {place} holds something else, or its tables were changed: {text}",
            "Name a database of its own for tablefeed in [ledger] url",
        )
    if state is None and isinstance(error, sa.exc.ProgrammingError):
        return LedgerUnusable(f"the ledger {place} cannot be reached so: {text}", "Correct [ledger] url", Exit.CONFIG)
    if state is not None and state.startswith(_BROKEN):
        return LedgerUnusable(
            f"the ledger {place} cannot be used: {text}", "Let nobody but tablefeed change its tables"
        )
    return DiskTrouble(place, f"PostgreSQL does not answer as it should: {text}")


def remedy(trouble: str) -> str:
    """What to do about trouble at the start, by the words it was told in."""
    if any(sign in trouble for sign in _OVERCROWDED):
        return "Let PostgreSQL take more connections (max_connections, or the role's own limit), or end some"
    return "Start PostgreSQL, or correct [ledger] url"


def _told(error: sa.exc.DBAPIError) -> str:
    """What it says in one line: where several addresses were tried, each has its own, and the last one counts.

    The server is left out, which is named beside it.
    """
    lines = [stripped for line in str(error.orig).splitlines() if (stripped := _SERVER.sub("", line).strip())]
    refused = [line.rpartition("FATAL:")[2].strip() for line in lines if "FATAL:" in line]
    return refused[-1] if refused else next(iter(lines), type(error.orig).__name__)


def _state_in(text: str) -> str | None:
    return next((state for part, state in _TEXTS.items() if re.search(part, text)), None)
