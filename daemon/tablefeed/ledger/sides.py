"""The two sides of a copy: the rows of a ledger as they are to be in another, and those that are there. Blocks."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tablefeed.errors import LedgerUnusable
from tablefeed.ledger import engine
from tablefeed.ledger.exclusive import Held
from tablefeed.ledger.prepared import add_all
from tablefeed.ledger.schema import HEAD, announced, datasets, feeds, files, is_left, is_open, nodes, outbox
from tablefeed.model import State

TABLES = (files, outbox, datasets, feeds, announced)
BATCH = 2_000
"""Rows that are read, and committed, at a time."""
_NAMED = 20
"""Nodes that are named where none of them was meant."""
_CLAIMS = {"owner", "lease_until"}

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """In whose directories files lie, on both sides."""

    only: str | None = None
    """Copy what is this node's or everybody's; None: all."""
    becomes: str | None = None
    """What the target calls it; None: what the source does."""


def placed(*, from_server: bool, to_server: bool, node: str | None, host: str) -> Place:
    """How nodes are told apart, by where a ledger is copied from and to.

    `node`: as it was asked for. A ledger in SQLite is that of one machine, which has no name there; `host` names it
    where nobody did. Raises ValueError where no name is wanted.
    """
    if from_server and not to_server:
        return Place(only=node, becomes="")
    if to_server and not from_server:
        return Place(becomes=node or host)
    if node is not None:
        raise ValueError("only a copy between SQLite and PostgreSQL gives a node's name, or takes it away")
    return Place()


class Side:
    """The rows of one ledger, without claims."""

    def __init__(self, held: Held) -> None:
        self.held = held

    def count(self) -> int:
        """How many rows there are."""
        counts = (sa.select(sa.func.count()).select_from(self._all(table).subquery()) for table in TABLES)
        return sum(self._ask(query)[0][0] for query in counts)

    def batches(self, table: sa.Table) -> Iterator[list[Row]]:
        """All rows, in the order of their keys. What has no number is as few as the feeds are, and comes at once."""
        if not _is_numbered(table):
            # Databases disagree about the order of texts.
            yield sorted(self._ask(self._all(table)), key=lambda row: _key(table, row))
            return
        following = self._all(table).order_by(table.c.id).limit(BATCH)
        rows = self._ask(following)
        while rows:
            yield rows
            rows = self._ask(following.where(table.c.id > rows[-1][0]))

    def find(self, table: sa.Table, keys: Collection[Row]) -> dict[Row, Row]:
        """The rows that have these keys, and where there are no numbers all, by their keys."""
        some = self._all(table)
        if _is_numbered(table):
            some = some.where(table.c.id.in_([number for (number,) in keys]))
        return {_key(table, row): row for row in self._ask(some)}

    def _all(self, table: sa.Table) -> sa.Select[Any]:
        return self._of(table, *(self._value(column) for column in columns_of(table)))

    def _of(self, table: sa.Table, *values: sa.ColumnElement[Any]) -> sa.Select[Any]:
        return sa.select(*values).select_from(table)

    def _value(self, column: sa.Column[Any]) -> sa.ColumnElement[Any]:
        return column

    def _ask(self, query: sa.Select[Any]) -> list[Row]:
        with self.held.asking():
            return [tuple(row) for row in self.held.connection.execute(query)]


class Source(Side):
    """What is to be copied, as it is to be in the target."""

    def __init__(self, held: Held, place: Place) -> None:
        super().__init__(held)
        self._place = place

    def assert_one_machine(self) -> None:
        """Make sure that a ledger without nodes can hold it. Raises LedgerUnusable."""
        if self._place.becomes != "":
            return
        self._assert_known()
        waiting = (self._of(files, files.c.node).where(is_open | is_left), self._of(outbox, outbox.c.node))
        found = sorted({node for query in waiting for (node,) in self._ask(query.distinct()) if node})
        if len(found) > 1:
            raise LedgerUnusable(
                f"the ledger {self.held.name} holds files of several nodes ({', '.join(found)}), and one in SQLite is "
                "that of one machine",
                "Say with --node whose are to be copied",
            )
        same = self._of(files, files.c.feed).where(is_open).group_by(files.c.feed, files.c.path)
        twice = self._ask(same.having(sa.func.count() > 1).limit(1))
        if twice:
            raise LedgerUnusable(
                f"the feed {twice[0][0]} in {self.held.name} has a file that waits both on a node and on all",
                "Start a daemon on it until that file is delivered, and repeat this",
            )

    def _assert_known(self) -> None:
        if self._place.only is None:
            return
        named = (sa.select(files.c.node).distinct(), sa.select(outbox.c.node).distinct(), sa.select(nodes.c.name))
        known = sorted({name for query in named for (name,) in self._ask(query) if name})
        if self._place.only not in known:
            some = ", ".join(known[:_NAMED]) + (f" and {len(known) - _NAMED} more" if len(known) > _NAMED else "")
            raise LedgerUnusable(
                f"the ledger {self.held.name} has never seen a node {self._place.only}; it knows {some or 'none'}",
                "Name with --node one that it knows",
            )

    def count_held(self) -> int:
        """How many files are in flight."""
        held = files.c.owner.is_not(None) | (files.c.state == State.UPLOADING.value)
        return int(self._ask(self._of(files, sa.func.count()).where(is_open, held))[0][0])

    def _all(self, table: sa.Table) -> sa.Select[Any]:
        query = super()._all(table)
        if self._place.becomes != "":
            return query
        # What several nodes know of one feed becomes what the one machine knows of it.
        return query.group_by(feeds.c.name) if table is feeds else query.distinct() if table is announced else query

    def _of(self, table: sa.Table, *values: sa.ColumnElement[Any]) -> sa.Select[Any]:
        query = super()._of(table, *values)
        if self._place.only is None or "node" not in table.c:
            return query
        return query.where(table.c.node.in_(["", self._place.only]))

    def _value(self, column: sa.Column[Any]) -> sa.ColumnElement[Any]:
        if column is files.c.state:
            released = (column == State.UPLOADING.value, sa.literal(State.QUEUED.value))
            return sa.case(released, else_=column).label(column.name)
        if column.name == "node" and self._place.becomes is not None:
            return sa.literal(self._place.becomes, column.type).label(column.name)
        if column.table is feeds and self._place.becomes == "" and column is not feeds.c.name:
            return (sa.func.min if column is feeds.c.known_at else sa.func.max)(column).label(column.name)
        return column

    def _ask(self, query: sa.Select[Any]) -> list[Row]:
        rows = super()._ask(query)
        return [_storable(row) for row in rows] if self._place.becomes else rows


class Target(Side):
    """What is there by now."""

    def assert_part_of(self, source: Source) -> None:
        """Make sure that nothing is there but what an earlier copy has brought. Raises LedgerUnusable."""
        for table in TABLES:
            for rows in self.batches(table):
                wanted = source.find(table, [_key(table, row) for row in rows])
                for row in rows:
                    if wanted.get(_key(table, row)) != row:
                        raise self._another(table, _key(table, row), source)

    def _another(self, table: sa.Table, key: Row, source: Source) -> LedgerUnusable:
        which = " ".join(str(part) for part in key)
        return LedgerUnusable(
            f"the ledger {self.held.name} holds something else than {source.held.name}: {which} in its table "
            f"{table.name} is not the same there; one of them may have been used since an earlier copy",
            "Name an empty database, or one that is not there yet",
        )

    def begin(self) -> None:
        """Let nobody use it before all is there."""
        with self.held.asking():
            engine.mark(self.held.connection, engine.UNFINISHED)
            self.held.connection.commit()

    def raise_numbers(self, source: Source) -> None:
        """Let no id be given again that the source has ever given."""
        with self.held.asking():
            for table in filter(_is_numbered, TABLES):
                with source.held.asking():
                    last = engine.last_number(source.held.connection, table.name)
                engine.raise_last_number(self.held.connection, table.name, last)
            self.held.connection.commit()

    def add(self, table: sa.Table, rows: Collection[Row]) -> int:
        """Add those that are not there, for good; returns how many that were."""
        known = self.find(table, [_key(table, row) for row in rows])
        names = [column.name for column in columns_of(table)]
        missing = [row for row in rows if _key(table, row) not in known]
        with self.held.asking():
            if missing:
                add_all(self.held.connection, table, names, missing)
            self.held.connection.commit()
        return len(missing)

    def finish(self) -> None:
        """Let it be used."""
        self.held.assert_held()
        with self.held.asking():
            engine.mark(self.held.connection, HEAD)
            self.held.connection.commit()
            engine.empty_journal(self.held.connection)


def _is_numbered(table: sa.Table) -> bool:
    return "id" in table.c


def columns_of(table: sa.Table) -> list[sa.Column[Any]]:
    """What rows consist of here, in this order."""
    return [column for column in table.c if column.name not in _CLAIMS]


def _key(table: sa.Table, row: Row) -> Row:
    """What identifies a row: the columns of the primary key are the first ones of each table."""
    return row[: len(table.primary_key)]


def _storable(row: Row) -> Row:
    """PostgreSQL stores no NUL, which a server's words in a reason may have."""
    return tuple(value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in row)
