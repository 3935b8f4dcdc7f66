"""What the ledger's changes of a file's row are made of: their items, and the statements that they share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tablefeed.errors import DeliveryError
from tablefeed.ledger.prepared import Prepared
from tablefeed.ledger.schema import files, is_open
from tablefeed.model import Notice, Receipt, State

NO_GRANT: dict[str, Any] = {
    name: sa.null() for name in ("grant_url", "grant_expires_at", "grant_lifetime_ms", "grant_headers")
}


Owner = str | None
"""Who holds a row: the owner that claimed it, None where nobody did."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A row whose content is at the store."""

    entry_id: int
    receipt: Receipt
    target: str | None = None
    """The datatable that has it."""
    duplicate_of: int | None = None
    """The row that delivered it, where this one was not sent itself."""
    notice: Notice | None = None
    """What the feed's webhook is to be told of it."""
    node: str = ""
    """Which node tells; empty: there is no fleet."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed try, and when the next may come."""

    entry_id: int
    error: DeliveryError
    due_at: int
    keep_grant: bool


@dataclass(frozen=True, slots=True)
class Closing:
    """A row that ends: where the file lies now, or that it was left in its drop directory."""

    entry_id: int
    destination: str | None = None
    left_in_place: bool = False


BACK = sa.case((files.c.state == State.UPLOADING.value, State.QUEUED.value), else_=files.c.state)
"""The state of a row that nobody works on any more."""

Transition = Callable[[sa.Connection, int, Any], list[Any]]


def change(
    states: Sequence[State], *names: str, unless: sa.ColumnElement[bool] | None = None, **values: Any
) -> Prepared:
    """Change the row `b_id` if it is in one of these states: columns of these names to parameters of the same names."""
    changed = _change(states, *names, **values)
    return Prepared(changed if unless is None else changed.where(~unless))


def held(states: Sequence[State], *names: str, **values: Any) -> sa.Update:
    """As `change`, if `b_owner` holds the row."""
    return _change(states, *names, **values).where(files.c.owner.is_not_distinct_from(sa.bindparam("b_owner")))


def _change(states: Sequence[State], *names: str, **values: Any) -> sa.Update:
    fits = files.c.state.in_([sa.literal_column(f"'{state.value}'") for state in states])
    given = {name: sa.bindparam(name, type_=files.c[name].type) for name in names}
    return sa.update(files).where(files.c.id == sa.bindparam("b_id"), fits).values(given | values)


def error_values(error: DeliveryError, now: int) -> dict[str, Any]:
    """What a row keeps of an error."""
    return {"error": type(error).__name__, "reason": str(error), "failed_at": now}


def put_back_all(conn: sa.Connection, which: sa.ColumnElement[bool]) -> int:
    """Give up the claims of these open rows, whoever holds them, grants kept; returns how many."""
    return conn.execute(sa.update(files).where(is_open, which).values(state=BACK, owner=None)).rowcount
