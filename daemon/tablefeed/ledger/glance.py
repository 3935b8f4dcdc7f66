"""Looking through the history from its end, so far as time allows: the ledger may hold millions of files."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tablefeed.ledger.schema import files, is_open, is_rejected
from tablefeed.model import OPEN_STATES, State

BATCH = 5_000
"""Files that are looked at between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class Glance:
    """The ids that were found, the latest first."""

    ids: list[int]
    next: int | None
    """Before which id to go on; None: there is nothing older."""
    complete: bool
    """False: the time was up before enough were found, and what is older than `next` was not looked at."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look for."""

    feed: str | None = None
    state: State | None = None
    text: str = ""
    """What the path contains, without regard to case; or the id. Nothing in it has a special meaning."""
    before: int | None = None
    """Only ids below this one."""
    node: str | None = None
    """In whose directory the files lie."""


def glance(
    conn: sa.Connection,
    wanted: Wanted,
    limit: int,
    clock: Callable[[], float],
    until: float,
    shown: Callable[[str], str],
) -> Glance:
    """The latest `limit` files that fit, found before `clock` says `until`.

    `shown` gives a path as people see it, which is what they look for.
    """
    text = wanted.text.casefold()
    ids: list[int] = []
    for reached, rows in _batches(conn, wanted):
        for found, path in rows:
            if text and text not in shown(path).casefold() and text != str(found):
                continue
            if len(ids) == limit:
                return Glance(ids, ids[-1], complete=True)
            ids.append(found)
        if reached is not None and clock() >= until:
            return Glance(ids, reached, complete=False)
    return Glance(ids, None, complete=True)


_Batch = tuple[int | None, list[tuple[int, str]]]
"""Files by falling ids, and the id down to which all have been looked at with them; None: that is all."""


def _batches(conn: sa.Connection, wanted: Wanted) -> Iterator[_Batch]:
    index = is_rejected if wanted.state is State.REJECTED else is_open if wanted.state in OPEN_STATES else None
    conditions = []
    if wanted.feed is not None:
        conditions.append(files.c.feed == wanted.feed)
    if wanted.node is not None:
        conditions.append(files.c.node == wanted.node)
    if wanted.state is not None:
        conditions.append(files.c.state == wanted.state.value)
    if index is None:
        return _by_id(conn, wanted.before, conditions)
    return _by_index(conn, wanted.before, [index, *conditions])


def _by_id(conn: sa.Connection, before: int | None, conditions: list[sa.ColumnElement[bool]]) -> Iterator[_Batch]:
    first = conn.execute(sa.select(sa.func.min(files.c.id))).scalar_one()
    last = conn.execute(sa.select(sa.func.max(files.c.id))).scalar_one()
    if first is None or last is None:
        return
    upper = last + 1 if before is None else min(before, last + 1)
    while upper > first:
        lower = max(first, upper - BATCH)
        part = sa.select(files.c.id, files.c.path).where(files.c.id >= lower, files.c.id < upper, *conditions)
        yield lower if lower > first else None, _pairs(conn.execute(part.order_by(files.c.id.desc())).all())
        upper = lower


def _by_index(conn: sa.Connection, before: int | None, conditions: list[sa.ColumnElement[bool]]) -> Iterator[_Batch]:
    """Through the partial index that knows the few of them. The sums keep the search away from the ids of all files."""
    number = files.c.id + 0
    if before is not None:
        conditions = [*conditions, number < before]
    result = conn.execute(sa.select(files.c.id, files.c.path).where(*conditions).order_by(number.desc()))
    rows = _pairs(result.fetchmany(BATCH))
    while rows:
        following = _pairs(result.fetchmany(BATCH))
        yield rows[-1][0] if following else None, rows
        rows = following


def _pairs(rows: Iterable[Any]) -> list[tuple[int, str]]:
    return [(row.id, row.path) for row in rows]
