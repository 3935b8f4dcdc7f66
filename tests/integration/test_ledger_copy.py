"""A ledger moves to another database: nothing is lost, nothing doubled, and nobody uses either side meanwhile."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from support.ledgers import GRANT, RECEIPT, Clock, joined, opened, version
from support.postgres import Postgres
from tablefeed.errors import Exit, FileRefused, LedgerUnusable, Unreachable
from tablefeed.ledger import Closing, Failure, Ledger, Want, engine, exclusive, nodes, postgres, sides
from tablefeed.ledger.copy import Copied, copy_ledger
from tablefeed.ledger.schema import HEAD, announced, datasets, feeds, files, outbox
from tablefeed.ledger.sides import Place, placed
from tablefeed.model import Notice, Order

ODD = "b\udcff\\ö\udc80 'x'.csv"
"""Not UTF-8, with a backslash."""
REFUSED = FileRefused("r.csv", "too large", "Split it")
TABLES = (files, outbox, datasets, feeds, announced)
KINDS = ("sqlite", "postgres")


class Databases:
    """Makes the ledgers of a test."""

    def __init__(self, root: Path, request: pytest.FixtureRequest, server: str = "postgres") -> None:
        """`server`: the fixture of a PostgreSQL."""
        self._root = root
        self._request = request
        self._server = server
        self._count = 0

    def __call__(self, kind: str, *, empty: bool = True) -> str:
        """The URL of a new one, with nothing in it or, where `empty` is false, with tables."""
        if kind == "sqlite":
            self._count += 1
            return f"sqlite:///{self._root}/{self._count}/ledger.db"
        server = self.server
        return server.empty_database() if empty else server.database()

    @property
    def server(self) -> Postgres:
        found = self._request.getfixturevalue(self._server)
        assert isinstance(found, Postgres)
        return found


@pytest.fixture
def database(tmp_path: Path, request: pytest.FixtureRequest) -> Databases:
    return Databases(tmp_path, request)


@pytest.fixture
def own_database(tmp_path: Path, request: pytest.FixtureRequest) -> Databases:
    """On a server that may be ended."""
    return Databases(tmp_path, request, "own_postgres")


@asynccontextmanager
async def daemon(url: str, node: str = "one") -> AsyncIterator[Ledger]:
    """The ledger as a daemon has it."""
    path = engine.sqlite_file(url)
    async with opened(path, Clock()) if path else joined(url, node) as ledger:
        yield ledger


async def fill(ledger: Ledger, more: int = 0) -> None:
    """Files in every state, with all that may stand beside them."""
    await ledger.know(["orders", "left"])
    await ledger.keep_dataset("https://api.example", "tenant", "table-1", "dataset-1")
    notice = Notice("orders", "file.delivered", "id-1", '{"a": "ö"}', ledger.node)
    sent = [version(name, inode=number) for number, name in enumerate(["a.csv", "skip.csv", "r.csv", "gone.csv"])]
    await ledger.enqueue([*sent, version("left.csv", feed="left")])
    entries = {entry.version.path: entry.id for entry in await ledger.claim([_want("orders"), _want("left")])}
    for path in ("a.csv", "left.csv"):
        await ledger.granted(entries[path], GRANT)
        await ledger.uploaded(entries[path], RECEIPT, target="t", notice=notice)
        left = path == "left.csv"
        await ledger.archived(Closing(entries[path], None if left else f"/archive/{ODD}", left_in_place=left))
    await ledger.uploaded(entries["skip.csv"], RECEIPT, target="t", duplicate_of=entries["a.csv"])
    await ledger.archived(Closing(entries["skip.csv"], "/archive/skip.csv"))
    await ledger.rejected(entries["r.csv"], REFUSED)
    await ledger.gone(entries["gone.csv"])
    await ledger.enqueue([version("moves.csv"), version("failed.csv"), version(ODD)])
    entries = {entry.version.path: entry.id for entry in await ledger.claim([_want("orders")])}
    await ledger.uploaded(entries["moves.csv"], RECEIPT, target="t")
    await ledger.failed(Failure(entries["moves.csv"], Unreachable("https://s.example", "refused"), 1, keep_grant=True))
    await ledger.granted(entries["failed.csv"], GRANT)
    await ledger.failed(Failure(entries["failed.csv"], Unreachable("https://s.example", "\udcff"), 1, keep_grant=True))
    await ledger.granted(entries[ODD], GRANT)
    await ledger.enqueue([version(f"{number}.csv", inode=number) for number in range(more)])
    await ledger.outbox.announce("orders", "directory", None)
    await ledger.set_paused("left", 12)


def _want(feed: str, limit: int = 100) -> Want:
    return Want(feed, Order.OLDEST, limit)


async def filled(url: str, more: int = 0) -> None:
    """A ledger that a daemon has left when it was killed while it sent the file with the odd name."""
    async with daemon(url) as ledger:
        await fill(ledger, more)
        owner, lease = _ask(url, sa.select(files.c.owner, files.c.lease_until).where(files.c.path == ODD))[0]
    change(url, sa.update(files).where(files.c.path == ODD).values(state="uploading", owner=owner, lease_until=lease))


def _ask(url: str, query: sa.Select[Any]) -> list[tuple[Any, ...]]:
    made = engine.make_engine(url)
    with made.connect() as connection:
        found = [tuple(row) for row in connection.execute(query)]
    made.dispose()
    return found


def change(url: str, *statements: sa.Executable) -> None:
    """Change a ledger past the program."""
    made = engine.make_engine(url)
    with made.begin() as connection:
        for statement in statements:
            connection.execute(statement)
    made.dispose()


def rows(url: str, table: sa.Table, *without: str) -> list[dict[str, Any]]:
    """All of a table, in order."""
    columns = [column for column in table.c if column.name not in without]
    found = [dict(zip((c.name for c in columns), row, strict=True)) for row in _ask(url, sa.select(*columns))]
    return sorted(found, key=lambda row: [str(row[key.name]).zfill(12) for key in table.primary_key])


def all_rows(url: str) -> dict[str, list[dict[str, Any]]]:
    """All that there is."""
    return {table.name: rows(url, table) for table in TABLES}


async def moved(source: str, target: str, place: Place | None = None, **options: Any) -> Copied:
    """Copy as the command does."""
    usual = placed(
        from_server=engine.sqlite_file(source) is None,
        to_server=engine.sqlite_file(target) is None,
        node=None,
        host="one",
    )
    return await asyncio.to_thread(copy_ledger, source, target, place or usual, **options)


both_ways = pytest.mark.parametrize(
    ("one", "other"), [(one, other) for one in KINDS for other in KINDS], ids=lambda kind: str(kind)
)
across = pytest.mark.parametrize(("one", "other"), [KINDS, KINDS[::-1]], ids=["to_postgres", "to_sqlite"])


@both_ways
async def test_every_row_is_the_same_on_the_other_side(database: Databases, one: str, other: str) -> None:
    """Of all tables, in all states, names that are not UTF-8 among them; but for claims, and whose directory it is."""
    source, target = database(one), database(other)
    await filled(source)
    before = all_rows(source)
    copied = await moved(source, target)
    assert copied.is_whole
    assert all_rows(source) == before, "nothing of the source is changed"
    assert copied.source.rows == {"files": 8, "outbox": 2, "datasets": 1, "feeds": 2, "announced": 1}
    assert copied.added == 14
    assert copied.source.states == {"archived": 2, "skipped": 1, "rejected": 1, "gone": 1, "uploaded": 1, "queued": 2}
    for table in TABLES:
        expected = rows(source, table)
        for row in expected:
            if "node" in row:
                row["node"] = "one" if other == "postgres" else ""
            if table is files:
                row |= {"owner": None, "lease_until": None}
                row["state"] = "queued" if row["state"] == "uploading" else row["state"]
        assert rows(target, table) == expected


async def test_who_sent_a_file_is_known_on_either_side(database: Databases) -> None:
    """On the way to SQLite and back, also where the node has another name by then: it is the name of that time."""
    first, second, third = database("postgres"), database("sqlite"), database("postgres")
    await filled(first)
    await moved(first, second)
    await moved(second, third, placed(from_server=False, to_server=True, node="two", host="one"))
    sent = sa.select(files.c.path, files.c.sender).where(files.c.sender.is_not(None))
    for url in (first, second, third):
        assert {*_ask(url, sent)} == {("a.csv", "one"), ("left.csv", "one"), ("moves.csv", "one")}


@across
async def test_what_was_in_flight_goes_to_the_same_object(database: Databases, one: str, other: str) -> None:
    """It is queued again, with its grant, for the daemon that starts on the other side."""
    source, target = database(one), database(other)
    await filled(source)
    assert (await moved(source, target)).released == 1
    async with daemon(target) as ledger:
        await ledger.know(["orders", "left"])
        entries = {entry.version.path: entry for entry in await ledger.claim([_want("orders")])}
        assert entries[ODD].grant == GRANT
        assert await ledger.unknown([version("left.csv", feed="left"), version("moves.csv"), version("new.csv")]) == [
            version("new.csv")
        ]


@across
async def test_no_id_is_given_twice(database: Databases, one: str, other: str) -> None:
    """Not even that of a row which the source has forgotten since."""
    source, target = database(one), database(other)
    await filled(source)
    last = max(row["id"] for row in rows(source, files))
    change(source, sa.delete(files).where(files.c.id == last), sa.delete(outbox))
    await moved(source, target)
    async with daemon(target) as ledger:
        await ledger.enqueue([version("new.csv")])
        await ledger.outbox.announce("left", "x", Notice("left", "e", "id-9", "{}"))
    assert [row["id"] for row in rows(target, files) if row["path"] == "new.csv"] == [last + 1]
    assert [row["id"] for row in rows(target, outbox)] == [3]


async def test_a_ledger_without_rows_keeps_its_numbers(database: Databases) -> None:
    """All was forgotten since; whoever noted an id finds no other file under it."""
    source, target = database("sqlite"), database("postgres")
    await filled(source)
    change(source, *(sa.delete(table) for table in TABLES))
    assert (await moved(source, target)).is_whole
    async with daemon(target) as ledger:
        await ledger.enqueue([version("new.csv")])
    assert [row["id"] for row in rows(target, files)] == [9]


@across
async def test_repeated_it_changes_nothing(database: Databases, one: str, other: str) -> None:
    """And says that all was there."""
    source, target = database(one), database(other)
    await filled(source)
    await moved(source, target)
    before = all_rows(target)
    copied = await moved(source, target)
    assert (copied.added, copied.is_whole) == (0, True)
    assert all_rows(target) == before


class CutOffError(Exception):
    """Whatever ends a copy."""


@across
async def test_an_interrupted_one_goes_on(
    database: Databases, one: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed is not copied again, and until all is there no daemon takes it for a ledger."""
    monkeypatch.setattr(sides, "BATCH", 10)
    source, target = database(one), database(other)
    await filled(source, more=50)

    def interrupt(done: int, _every: int) -> None:
        if done >= 30:
            raise CutOffError

    with pytest.raises(CutOffError):
        await moved(source, target, told=interrupt)
    assert len(rows(target, files)) == 30
    with pytest.raises(LedgerUnusable, match=r"is a copy that was not finished\. Repeat `tablefeed ledger copy`"):
        async with daemon(target):
            pass
    copied = await moved(source, target)
    assert (copied.added, copied.is_whole) == (58 + 6 - 30, True)
    async with daemon(target) as ledger:
        assert sum((await ledger.counts()).values()) == 53


@across
async def test_a_server_that_goes_away_is_told(
    own_database: Databases, one: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do, and the copy goes on when it is back."""
    monkeypatch.setattr(sides, "BATCH", 10)
    source, target = own_database(one), own_database(other)
    await filled(source, more=30)
    did: list[bool] = []

    def cut(_done: int, _every: int) -> None:
        if not did:
            own_database.server.stop(signal.SIGQUIT)
            own_database.server.start()
            did.append(True)

    with pytest.raises(LedgerUnusable, match=r"PostgreSQL does not answer .*and repeat this") as caught:
        await moved(source, target, told=cut)
    assert caught.value.exit_code is Exit.UNAVAILABLE
    copied = await moved(source, target)
    assert (copied.added, copied.is_whole) == (34, True)


@across
async def test_what_arrives_in_the_target_meanwhile_is_found_out(database: Databases, one: str, other: str) -> None:
    """A row that is not as it was copied: the sides differ, which is told, and no daemon starts there."""
    source, target = database(one), database(other)
    await filled(source)

    def spoil(done: int, _every: int) -> None:
        if done == 14:
            change(target, sa.update(files).where(files.c.path == "a.csv").values(etag="x"))

    copied = await moved(source, target, told=spoil)
    assert not copied.is_whole
    assert copied.source.checksum != copied.target.checksum
    with pytest.raises(LedgerUnusable, match="is a copy that was not finished"):
        async with daemon(target):
            pass
    with pytest.raises(LedgerUnusable, match=r"holds something else than .*: 1 in its table files is not the same"):
        await moved(source, target)


@across
@pytest.mark.parametrize("side", ["source", "target"])
async def test_a_running_daemon_on_either_side_is_told(database: Databases, one: str, other: str, side: str) -> None:
    """Nothing is copied."""
    source, target = database(one), database(other, empty=False)
    await filled(source)
    async with daemon(source if side == "source" else target):
        with pytest.raises(LedgerUnusable, match=r"is in use by .*\. Stop the daemons that use it") as caught:
            await moved(source, target)
        assert caught.value.exit_code is Exit.CANNOT_CREATE
    if side == "source" and other == "sqlite":
        path = engine.sqlite_file(target)
        assert path
        assert not path.exists()
    assert (await moved(source, target)).is_whole


async def test_a_node_that_was_killed_counts_until_its_lease_is_over(database: Databases) -> None:
    """It may be cut off only, and come back."""
    source, target = database("postgres"), database("sqlite")
    await filled(source)
    lease = "UPDATE nodes SET lease_until = (extract(epoch from clock_timestamp()) * 1000)::bigint + {}"
    change(source, sa.text(lease.format(60_000)))
    with pytest.raises(LedgerUnusable, match=r"in use by one.*until its lease is over"):
        await moved(source, target)
    change(source, sa.text(lease.format(-1)))
    assert (await moved(source, target)).is_whole


async def test_a_node_that_hangs_beyond_its_lease_counts(database: Databases) -> None:
    """Its connection still has its name, and nobody has ended it."""
    source, target = database("postgres"), database("sqlite")
    async with joined(source) as ledger:
        await fill(ledger)
        change(source, sa.text("UPDATE nodes SET lease_until = 1"))
        with pytest.raises(LedgerUnusable, match="in use by one"):
            await moved(source, target)


async def test_a_node_that_registers_in_the_last_moment_is_told(
    database: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked for once more when none can come any more."""
    source, target = database("postgres"), database("sqlite")
    await filled(source)
    look, early = nodes.alive, iter([list[str]()])
    async with joined(source, "two"):
        monkeypatch.setattr(nodes, "alive", lambda conn: next(early, look(conn)))
        with pytest.raises(LedgerUnusable, match="is in use by two"):
            await moved(source, target)


async def test_a_target_that_others_may_have_come_to_is_not_finished(database: Databases) -> None:
    """Its lock went with its connection."""
    source, target = database("sqlite"), database("postgres")
    await filled(source)
    mine = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tablefeed ledger copy'"

    def cut(done: int, _every: int) -> None:
        if done == 14:
            change(target, sa.text(f"{mine} AND datname = current_database()"))

    with pytest.raises(LedgerUnusable, match="PostgreSQL does not answer"):
        await moved(source, target, told=cut)
    with pytest.raises(LedgerUnusable, match="is a copy that was not finished"):
        async with daemon(target):
            pass
    assert (await moved(source, target)).is_whole


@across
async def test_nobody_changes_either_side_meanwhile(
    database: Databases, one: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No daemon starts, another copy does not, and the source takes no change from a command either."""
    monkeypatch.setattr(postgres, "_SESSION", ("SET lock_timeout = '100ms'",))
    monkeypatch.setattr(exclusive, "_UNBOUND", ("SET lock_timeout = '100ms'",))
    source, target = database(one), database(other)
    await filled(source)
    refused: list[str] = []

    def intrude(done: int, every: int) -> None:
        if done != 14:
            return
        for url in (source, target):
            refused.append(_refusal(lambda url=url: asyncio.run(_start(url))))  # type: ignore[misc]
            third = database("sqlite")
            refused.append(_refusal(lambda url=url, third=third: copy_ledger(url, third, Place())))  # type: ignore[misc]
        refused.append(_refusal(lambda: _write(source)))

    copied = await moved(source, target, told=intrude)
    assert copied.is_whole
    assert len(refused) == 5
    assert all(refused)


async def _start(url: str) -> None:
    async with daemon(url, "two"):
        pass


def _write(url: str) -> None:
    """As `tablefeed retry` does, without its patience."""
    impatient = "PRAGMA busy_timeout = 10" if engine.sqlite_file(url) else "SET lock_timeout = 10"
    made = engine.make_engine(url)
    try:
        with made.connect() as connection:
            connection.exec_driver_sql(impatient)
            connection.execute(sa.update(files).values(etag="x"))
            connection.commit()
    finally:
        made.dispose()


def _refusal(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except (LedgerUnusable, sa.exc.DBAPIError) as error:
        return str(error)
    return ""


@across
async def test_a_target_with_another_ledger_is_left_alone(database: Databases, one: str, other: str) -> None:
    """Whatever it holds more, less or otherwise."""
    source, target = database(one), database(other)
    await filled(source)
    async with daemon(target) as ledger:
        await ledger.enqueue([version("other.csv")])
    before = all_rows(target)
    with pytest.raises(LedgerUnusable, match=r"holds something else than .*Name an empty database") as caught:
        await moved(source, target)
    assert caught.value.exit_code is Exit.CANNOT_CREATE
    assert all_rows(target) == before
    async with daemon(target):
        pass


@across
async def test_a_target_that_went_on_is_left_alone(database: Databases, one: str, other: str) -> None:
    """After the move, a copy that is repeated by mistake does not bring back what was."""
    source, target = database(one), database(other)
    await filled(source)
    await moved(source, target)
    async with daemon(target) as ledger:
        await ledger.know(["orders", "left"])
        entries = {entry.version.path: entry.id for entry in await ledger.claim([_want("orders")])}
        assert await ledger.gone(entries[ODD])
    before = all_rows(target)
    with pytest.raises(LedgerUnusable, match="used since an earlier copy"):
        await moved(source, target)
    assert all_rows(target) == before


@pytest.mark.parametrize("kind", KINDS)
async def test_a_database_of_something_else_is_left_alone(database: Databases, kind: str) -> None:
    """Not one table is made in it."""
    source, target = database("sqlite"), database(kind)
    await filled(source)
    path = engine.sqlite_file(target)
    if path:
        path.parent.mkdir()
    change(target, sa.text("CREATE TABLE customers (name text)"))
    with pytest.raises(LedgerUnusable, match="is a database of something else: it has the table customers"):
        await moved(source, target)
    made = engine.make_engine(target)
    assert sa.inspect(made).get_table_names() == ["customers"]
    made.dispose()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ("0004", rf"an older tablefeed \(schema 0004, not {HEAD}\)\. Start its daemon once with this version"),
        ("9999", rf"another version of tablefeed \(schema 9999, not {HEAD}\)"),
        (f"{HEAD}-unfinished", "is a copy that was not finished"),
    ],
)
async def test_a_source_of_another_schema_is_told(database: Databases, kind: str, schema: str, told: str) -> None:
    """And left as it is, with no target made."""
    source, target = database(kind), database("sqlite")
    await filled(source)
    change(source, sa.text("UPDATE alembic_version SET version_num = :schema").bindparams(schema=schema))
    with pytest.raises(LedgerUnusable, match=told):
        await moved(source, target)
    assert _ask(source, sa.select(sa.text("version_num from alembic_version"))) == [(schema,)]
    path = engine.sqlite_file(target)
    assert path
    assert not path.exists()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_target_of_another_schema_with_rows_is_left_alone(database: Databases, kind: str) -> None:
    """It is not migrated for this."""
    source, target = database("sqlite"), database(kind)
    await filled(source)
    async with daemon(target) as ledger:
        await ledger.know(["orders"])
    change(target, sa.text("UPDATE alembic_version SET version_num = '0004'"))
    with pytest.raises(LedgerUnusable, match=rf"has rows, and another schema \(0004, not {HEAD}\)"):
        await moved(source, target)


async def test_a_source_that_is_not_there_is_told(database: Databases) -> None:
    """And not made."""
    source, target = database("sqlite"), database("sqlite")
    with pytest.raises(LedgerUnusable, match=r"there is no ledger .*\. Name the ledger that the daemon uses"):
        await moved(source, target)
    with pytest.raises(LedgerUnusable, match="is no ledger"):
        await moved(database("postgres"), target)


async def test_only_one_machines_files_go_into_sqlite(database: Databases) -> None:
    """Others' files would be looked for in its own directories; what all share comes along."""
    source, target = database("postgres"), database("sqlite")
    for node in ("one", "two"):
        async with joined(source, node) as ledger:
            await ledger.know(["orders", "shared"], ["shared"])
            await ledger.enqueue([version(f"{node}.csv"), version(f"{node}.csv", feed="shared")])
    with pytest.raises(LedgerUnusable, match=r"files of several nodes \(one, two\).*Say with --node") as caught:
        await moved(source, target)
    assert caught.value.exit_code is Exit.CANNOT_CREATE
    assert (await moved(source, target, placed(from_server=True, to_server=False, node="two", host=""))).is_whole
    async with daemon(target) as ledger:
        found = [entry.version for entry in await ledger.claim([_want("orders"), _want("shared")])]
    assert sorted((version.feed, version.path) for version in found) == [
        ("orders", "two.csv"),
        ("shared", "one.csv"),
        ("shared", "two.csv"),
    ]


async def test_what_nodes_knew_of_one_feed_is_one_there(database: Databases) -> None:
    """A ledger without nodes has each feed once: with its latest file, and the trouble that was told."""
    source, target = database("postgres"), database("sqlite")
    async with joined(source, "one") as ledger:
        await ledger.know(["orders"], ["orders"])
        await ledger.outbox.announce("orders", "delivery", None)
        await ledger.know(["orders"])
        await ledger.outbox.announce("orders", "delivery", None)
    change(source, sa.update(feeds).where(feeds.c.node == "").values(arrived_at=7, delivered_at=3, known_at=5))
    change(source, sa.update(feeds).where(feeds.c.node == "one").values(arrived_at=6, delivered_at=4, known_at=2))
    assert (await moved(source, target)).is_whole
    assert [
        (row["name"], row["node"], row["known_at"], row["arrived_at"], row["delivered_at"])
        for row in rows(target, feeds)
    ] == [("orders", "", 2, 7, 4)]
    assert [(row["feed"], row["node"]) for row in rows(target, announced)] == [("orders", "")]


async def test_a_node_that_was_never_there_is_told(database: Databases) -> None:
    """A name that is mistyped would leave behind all that waits; one that has no files is none the less known."""
    source, target = database("postgres"), database("sqlite")
    async with joined(source, "one") as ledger:
        await ledger.know(["orders"])
    with pytest.raises(LedgerUnusable, match=r"never seen a node once; it knows one\. Name with --node one") as caught:
        await moved(source, target, placed(from_server=True, to_server=False, node="once", host=""))
    assert caught.value.exit_code is Exit.CANNOT_CREATE
    assert (await moved(source, target, placed(from_server=True, to_server=False, node="one", host=""))).is_whole


async def test_a_feed_that_is_shared_afterwards_knows_its_files_again(database: Databases) -> None:
    """Those that wait, and those that were delivered and stay where they are: none is sent a second time."""
    source, target = database("sqlite"), database("postgres")
    await filled(source)
    await moved(source, target)
    async with joined(target, "one") as ledger:
        await ledger.know(["orders", "left"], ["orders", "left"])
    async with joined(target, "two") as ledger:
        await ledger.know(["orders", "left"], ["orders", "left"])
        assert await ledger.unknown([version("left.csv", feed="left"), version("moves.csv")]) == []


async def test_what_postgres_cannot_store_does_not_end_it(database: Databases) -> None:
    """A NUL that a server's words had."""
    source, target = database("sqlite"), database("postgres")
    await filled(source)
    change(source, sa.update(files).where(files.c.path == "r.csv").values(reason="a\0b"))
    assert (await moved(source, target)).is_whole
    assert _ask(target, sa.select(files.c.reason).where(files.c.path == "r.csv")) == [("a\ufffdb",)]


def test_a_name_is_given_only_where_there_are_nodes_on_one_side() -> None:
    """An SQLite ledger has none."""
    assert placed(from_server=False, to_server=True, node=None, host="h") == Place(becomes="h")
    assert placed(from_server=False, to_server=True, node="n", host="h") == Place(becomes="n")
    assert placed(from_server=True, to_server=False, node=None, host="h") == Place(becomes="")
    assert placed(from_server=True, to_server=True, node=None, host="h") == Place()
    with pytest.raises(ValueError, match="only a copy between SQLite and PostgreSQL"):
        placed(from_server=True, to_server=True, node="n", host="h")
