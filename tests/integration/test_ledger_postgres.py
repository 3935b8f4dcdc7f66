"""What a PostgreSQL that cannot be used is told as: one line that names the place and the remedy, and the exit code."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import quote

import pytest

from support.ledgers import joined, upgraded, version
from support.postgres import PASSWORD, Postgres
from tablefeed.errors import Exit, LedgerUnusable
from tablefeed.ledger import engine
from tablefeed.ledger.engine import inspect_ledger
from tablefeed.ledger.reader import Reader
from tablefeed.ledger.records import Search, opened
from tablefeed.ledger.schema import HEAD, metadata

ROLE, ODD = "somebody", "p@ss/w?rd#%:é that-nobody-may-see"


@pytest.fixture
def role(postgres: Postgres) -> Iterator[str]:
    """A user without any right but to log in, as a URL of a new ledger has it."""
    url = postgres.database()
    postgres.execute("postgres", f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
    yield url.replace("//tablefeed:", f"//{ROLE}:")
    name = url.rpartition("/")[2]
    postgres.execute(name, f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


def name_of(url: str) -> str:
    return url.rpartition("/")[2].partition("?")[0]


def run(url: str) -> None:
    """As `tablefeed run` opens it."""

    async def main() -> None:
        async with joined(url, "one"):
            pass

    asyncio.run(main())


def history(url: str) -> None:
    """As `tablefeed history`, `status` and `retry` open it."""
    with opened(url) as records:
        records.find(Search())


def check(url: str) -> None:
    """As `tablefeed check` looks at it."""
    inspect_ledger(url)


ALL = (run, history, check)


def refused(url: str, *by: Callable[[str], None]) -> tuple[str, Exit]:
    """What each of these says, which is the same, on one line and without the password."""
    told = set()
    for way in by or ALL:
        with pytest.raises(LedgerUnusable) as error:
            way(url)
        told.add((str(error.value), error.value.exit_code))
    [(text, code)] = told
    assert "\n" not in text
    assert PASSWORD not in text
    assert "password@" not in text
    return text, code


def test_a_wrong_password(postgres: Postgres) -> None:
    """It is named by its user, and never shown, whatever signs it has."""
    url = postgres.database()
    text, code = refused(url.replace(PASSWORD, "another-password"))
    assert code == Exit.NO_PERMISSION
    assert 'password authentication failed for user "tablefeed"' in text
    assert text.endswith("or the file that $PGPASSFILE names")
    assert "Write the right password into [ledger] url" in text
    assert "another-password" not in text


def test_a_password_that_was_left_out(postgres: Postgres) -> None:
    """The same remedy."""
    text, code = refused(postgres.database().replace(f":{PASSWORD}", ""))
    assert (code, "no password supplied" in text) == (Exit.NO_PERMISSION, True)


def test_a_password_with_odd_signs(postgres: Postgres) -> None:
    """Percent-encoded in the URL it is what PostgreSQL gets."""
    name = name_of(postgres.database())
    postgres.execute("postgres", f"CREATE ROLE odd SUPERUSER LOGIN PASSWORD '{ODD}'")
    try:
        run(postgres.url(name, user="odd", password=quote(ODD, safe="")))
    finally:
        postgres.execute("postgres", "DROP ROLE odd")


def test_a_database_that_is_not_there(postgres: Postgres) -> None:
    """Nothing makes it but people."""
    text, code = refused(postgres.url("nowhere"))
    assert (code, 'database "nowhere" does not exist' in text) == (Exit.CONFIG, True)
    assert text.endswith("Create the database, or name the right one in [ledger] url")


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_name(postgres: Postgres, encoding: str) -> None:
    """As one is made where the machine's locale is C, or an old one; what it says to do makes one that will do."""
    as_template = f"--encoding={encoding} --locale=C --template=template0"
    name = f"encoded_{encoding.lower()}"
    postgres.create(name, *as_template.split())
    text, code = refused(postgres.url(name))
    assert (code, f"its encoding is {encoding}, not UTF8" in text) == (Exit.CONFIG, True)
    options = text.partition("createdb ")[2].removesuffix(" …").split()
    postgres.create(f"{name}_mended", *options)
    run(postgres.url(f"{name}_mended"))


def test_a_user_who_may_not_log_in(postgres: Postgres) -> None:
    """A role of a group, taken for a user."""
    name = name_of(postgres.database())
    postgres.execute("postgres", f"CREATE ROLE nologin NOLOGIN PASSWORD '{PASSWORD}'")
    try:
        text, code = refused(postgres.url(name, user="nologin"))
    finally:
        postgres.execute("postgres", "DROP ROLE nologin")
    assert (code, "not permitted to log in" in text) == (Exit.NO_PERMISSION, True)


def test_a_host_that_is_not_there() -> None:
    """By name, or by a port that nobody listens on."""
    text, code = refused(f"postgresql+psycopg://me:{PASSWORD}@no-such-host.invalid/x")
    assert (code, "no-such-host.invalid" in text) == (Exit.UNAVAILABLE, True)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        text, code = refused(f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1:{bound.getsockname()[1]}/x", run, check)
    assert code == Exit.UNAVAILABLE
    assert text.endswith(
        "/x: PostgreSQL does not answer as it should: Connection refused. Start PostgreSQL, or correct [ledger] url"
    )


def test_what_the_driver_does_not_understand(postgres: Postgres) -> None:
    """An option that there is not."""
    text, code = refused(postgres.database() + "?no_such_option=1")
    assert (code, "no_such_option" in text) == (Exit.CONFIG, True)


def test_no_right_to_make_tables(postgres: Postgres, role: str) -> None:
    """The user and the right are named, before anything is made."""
    empty = postgres.empty_database()
    url = postgres.url(name_of(empty), user=ROLE)
    for by in (run, check):
        text, code = refused(url, by)
        assert code == Exit.NO_PERMISSION
        assert "Grant the user of [ledger] url the right to create tables" in text
    assert postgres.execute(name_of(empty), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == "0"


def test_no_right_to_use_the_tables(role: str) -> None:
    """They are another user's."""
    for by in (run, history):
        text, code = refused(role, by)
        assert (code, "permission denied for table" in text) == (Exit.NO_PERMISSION, True)


def test_a_database_of_something_else(postgres: Postgres) -> None:
    """Its tables are left alone, whatever they are called; also those of another program that uses Alembic."""
    url = postgres.empty_database()
    postgres.execute(name_of(url), "CREATE TABLE files (name text); INSERT INTO files VALUES ('mine')")
    text, code = refused(url, run)
    assert (code, "Name a database of its own for tablefeed in [ledger] url" in text) == (Exit.CANNOT_CREATE, True)
    assert "is no ledger" in refused(url, history)[0]
    postgres.execute(name_of(url), "CREATE TABLE alembic_version (version_num text)")
    postgres.execute(name_of(url), "INSERT INTO alembic_version VALUES ('ae1027a6acf')")
    text, code = refused(url, run, check)
    assert "another program's (its table alembic_version says ae1027a6acf)" in text
    tables = "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'"
    assert postgres.execute(name_of(url), tables) == "alembic_version files"
    assert postgres.execute(name_of(url), "TABLE files") == "mine"


def test_a_newer_ledger_is_left_to_its_own_version(postgres: Postgres) -> None:
    """And says which version that is."""
    url = postgres.database()
    postgres.execute(name_of(url), "UPDATE alembic_version SET version_num = '9999'")
    text, code = refused(url, run, check)
    assert (code, f"written by a newer tablefeed (schema 9999, this one knows {HEAD})" in text) == (73, True)
    text, code = refused(url, history)
    assert (code, f"another version of tablefeed (schema 9999, not {HEAD})" in text) == (73, True)


def test_an_older_ledger_is_brought_up_to_date_by_one_of_two(postgres: Postgres) -> None:
    """The other waits; before that a command says what the ledger is, and `check` what will become of it."""
    url = postgres.empty_database()
    upgraded(url, "0001")
    text, code = refused(url, history)
    assert (code, f"another version of tablefeed (schema 0001, not {HEAD})" in text) == (73, True)
    assert "which the next start brings up to date" in inspect_ledger(url)
    with ThreadPoolExecutor(4) as pool:
        connections = [*pool.map(lambda _: engine.connect(url), range(4))]
    for connection in connections:
        connection.close()
    assert postgres.execute(name_of(url), "TABLE alembic_version") == HEAD
    made = set(postgres.execute(name_of(url), "SELECT tablename FROM pg_tables WHERE schemaname = 'public'").split())
    assert made == {*metadata.tables, "alembic_version"}
    history(url)


def test_who_waits_for_a_migration_waits_longer_than_for_a_lock(postgres: Postgres) -> None:
    """A large ledger takes its time, and what is set for it is unset afterwards."""
    url = postgres.empty_database()
    connection = engine.connect(url)
    shown = [connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in ("lock_timeout", "statement_timeout")]
    connection.close()
    assert shown == ["20s", "1min"]


def test_too_many_connections(postgres: Postgres, role: str) -> None:
    """At the start, with what to do about it."""
    postgres.execute("postgres", f"ALTER ROLE {ROLE} CONNECTION LIMIT 0")
    text, code = refused(role)
    assert (code, "too many connections for role" in text) == (Exit.UNAVAILABLE, True)
    assert "Let PostgreSQL take more connections" in text


DRIVERLESS = """
import sys
sys.modules["psycopg"] = None
from tablefeed.errors import LedgerUnusable
from tablefeed.ledger import engine
try:
    engine.connect(sys.argv[1])
except LedgerUnusable as error:
    print(int(error.exit_code), error)
"""


def test_a_missing_driver() -> None:
    """What to install is said, and not that a module is missing."""
    url = f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1/x"
    done = subprocess.run([sys.executable, "-c", DRIVERLESS, url], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (
        "78 the ledger is on PostgreSQL, but its driver, psycopg, is not installed. "
        "Install it: pip install 'tablefeed[postgres]'"
    )
    assert done.stderr == ""


async def test_a_reader_finds_its_way_back(postgres: Postgres) -> None:
    """What people ask is answered again once PostgreSQL is back, and in clear words before."""
    url = postgres.database()
    async with joined(url, "one") as ledger:
        await ledger.enqueue([version()])
        reader = Reader(url)
        assert len(await reader.find(Search(), 10)) == 1
        others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database()"
        postgres.execute(name_of(url), f"{others} AND pid <> pg_backend_pid()")
        with suppress(LedgerUnusable):
            await reader.find(Search(), 10)
        assert len(await reader.find(Search(), 10)) == 1
        await reader.close()
