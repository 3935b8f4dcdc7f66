"""Statements that are compiled once and then go to the driver as text.

SQLAlchemy's own work for a statement takes several times as long as the database does for one row, and the ledger's
thread shares the interpreter with all else. What is compiled is SQLAlchemy Core, so that any of its databases may
serve.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

Values = Mapping[str, Any]
"""The statement's parameters by name."""
_Process = Callable[[Any], Any]


class Prepared:
    """One statement. Its methods run inside the caller's transaction and raise SQLAlchemy's errors."""

    def __init__(self, statement: sa.Select[Any] | sa.Insert | sa.Update | sa.Delete) -> None:
        """Parameters are those of `bindparam`; what else varies would be fixed to its first value."""
        self._statement = statement
        self._forms: dict[str, _Form] = {}

    def all(self, conn: sa.Connection, values: Values) -> list[Any]:
        """The rows that it gives, as tuples."""
        form = self._form(conn)
        with _Cursor(conn, form.text) as cursor:
            cursor.execute(form.text, form.bound(values))
            rows = cursor.fetchall()
        return [tuple(processed(row, form.results)) for row in rows] if form.results else rows

    def each(self, conn: sa.Connection, rows: Iterable[Values]) -> list[bool]:
        """Run it for each of these; returns whether it changed something."""
        form = self._form(conn)
        text, bound, changed = form.text, form.bound, []
        with _Cursor(conn, text) as cursor:
            for values in rows:
                cursor.execute(text, bound(values))
                changed.append(cursor.rowcount > 0)
        return changed

    def each_told(self, conn: sa.Connection, rows: Iterable[Values]) -> list[Any]:
        """Run it, which returns one row at most, for each of these; returns those rows, None where there is none."""
        form = self._form(conn)
        text, bound, told = form.text, form.bound, []
        with _Cursor(conn, text) as cursor:
            for values in rows:
                cursor.execute(text, bound(values))
                told.append(next(iter(cursor.fetchall()), None))
        return told

    def _form(self, conn: sa.Connection) -> "_Form":
        name = conn.dialect.name
        if name not in self._forms:
            self._forms[name] = _Form(self._statement, conn.dialect)
        return self._forms[name]


class _Form:
    """The statement as one kind of database has it."""

    def __init__(self, statement: sa.Select[Any] | sa.Insert | sa.Update | sa.Delete, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.text = str(compiled)
        fixed = {name: bind.effective_value for name, bind in compiled.binds.items() if not bind.required}
        processors = {
            name: process
            for name, bind in compiled.binds.items()
            if (process := bind.type.dialect_impl(dialect).bind_processor(dialect)) is not None
        }
        self.bound = _binder(compiled.positiontup, fixed, processors)
        self.results = _result_processors(statement, dialect)


def _binder(names: Sequence[str] | None, fixed: Values, processors: Mapping[str, _Process]) -> Callable[[Values], Any]:
    """What makes the driver's parameters of a statement's; `names`: their order, None where they go by name."""

    def by_name(values: Values) -> dict[str, Any]:
        given = {**fixed, **values}
        return {name: processors[name](value) if name in processors else value for name, value in given.items()}

    if names is None:
        return by_name
    if len(names) < 2:
        return lambda values: [by_name(values)[name] for name in names]
    pick = itemgetter(*names)
    where = [(index, processors[name]) for index, name in enumerate(names) if name in processors]

    def by_position(values: Values) -> Sequence[Any]:
        given: Sequence[Any] = pick({**fixed, **values} if fixed else values)
        return processed(given, where) if where else given

    return by_position


def processed(row: Sequence[Any], where: Sequence[tuple[int, _Process]]) -> list[Any]:
    """The row with what these make of the values at their places."""
    values = [*row]
    for index, process in where:
        values[index] = process(values[index])
    return values


def _result_processors(statement: Any, dialect: Dialect) -> list[tuple[int, _Process]]:
    if isinstance(statement, sa.Select):
        kinds = [column.type for column in statement.selected_columns]
    else:
        kinds = [column["type"] for column in statement.returning_column_descriptions]
    found = [(index, kind.dialect_impl(dialect).result_processor(dialect, None)) for index, kind in enumerate(kinds)]
    return [(index, process) for index, process in found if process is not None]


def add_all(conn: sa.Connection, table: sa.Table, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Insert many rows, which give these columns in this order, in the way that is the quickest for the database."""
    if conn.dialect.name != "postgresql":
        conn.execute(sa.insert(table), [dict(zip(names, row, strict=True)) for row in rows])
        return
    kinds = [table.c[name].type.dialect_impl(conn.dialect).bind_processor(conn.dialect) for name in names]
    where = [(index, process) for index, process in enumerate(kinds) if process is not None]
    text = f"COPY {table.name} ({', '.join(names)}) FROM STDIN"
    with _Cursor(conn, text) as cursor, cursor.copy(text) as copy:
        for row in rows:
            copy.write_row(processed(row, where))


class _Cursor:
    """A cursor of the driver, whose errors are told as SQLAlchemy tells them."""

    def __init__(self, conn: sa.Connection, text: str) -> None:
        self._dialect = conn.dialect
        self._text = text
        self._cursor = conn.connection.cursor()

    def __enter__(self) -> Any:
        return self._cursor

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._cursor.close()
        base = self._dialect.loaded_dbapi.Error
        if isinstance(error, base):
            raise sa.exc.DBAPIError.instance(
                self._text, None, error, base, hide_parameters=True, dialect=self._dialect
            ) from None
