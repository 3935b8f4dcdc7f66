"""`tablefeed ledger copy` as it is typed: what it says, its exit codes, and that no password is seen."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from support.daemon import Site, clean_environ, command, running_daemon
from support.leaks import Search
from support.ledgers import GRANT, RECEIPT, joined, opened, version
from support.patience import PATIENCE
from support.postgres import PASSWORD, Postgres
from support.terminal import on_terminal
from tablefeed.ledger import Closing, Want, engine
from tablefeed.ledger.schema import files
from tablefeed.model import Order

ALL = [Want("orders", Order.OLDEST, 5)]


async def filled(path: Path, waiting: int = 1) -> str:
    """The URL of a ledger with a delivered file, one in flight, and some that wait."""
    async with opened(path) as ledger:
        await ledger.know(["orders"])
        await ledger.enqueue([version("a.csv"), version("b.csv")])
        first, second = await ledger.claim(ALL)
        await ledger.granted(second.id, GRANT)
        await ledger.uploaded(first.id, RECEIPT)
        await ledger.archived(Closing(first.id, "/archive/a.csv"))
        await ledger.enqueue([version(f"{number}.csv", inode=number) for number in range(waiting)])
    change(f"sqlite:///{path}", "UPDATE files SET state = 'uploading', owner = 'me' WHERE path = 'b.csv'")
    return f"sqlite:///{path}"


def change(url: str, statement: str) -> None:
    """Change a ledger past the program."""
    made = engine.make_engine(url)
    with made.begin() as connection:
        connection.exec_driver_sql(statement)
    made.dispose()


def count(url: str) -> int:
    """How many files a ledger has; 0 where it is not made yet."""
    made = engine.make_engine(url)
    try:
        with made.connect() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(files)).scalar_one())
    except sa.exc.DBAPIError:
        return 0
    finally:
        made.dispose()


async def copying(source: str, target: str, *more: str) -> tuple[int, str, str]:
    """Run it with both URLs in the environment."""
    environ = {"TABLEFEED_LEDGER_FROM": source, "TABLEFEED_LEDGER_TO": target}
    return await command("ledger", "copy", *more, environ=environ)


async def test_it_tells_what_it_has_done(tmp_path: Path, postgres: Postgres) -> None:
    """To PostgreSQL and back, and again: counts, checksum, and what to do next; never the password."""
    source, server = await filled(tmp_path / "ledger.db"), postgres.empty_database()
    code, out, err = await copying(source, server, "--node", "plant-7")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    place = engine.describe(server)
    assert lines[0] == f"{tmp_path}/ledger.db is copied to {place}: 4 rows added, 0 were there."
    assert lines[1].startswith("Both hold 3 files (1 archived, 2 queued), 1 feed; checksum ")
    assert lines[2] == "1 file in flight: queued again, to be sent to the same objects."
    assert lines[3].startswith("Set [ledger] url to the new one before a daemon starts again")
    async with joined(server, "plant-7") as ledger:
        await ledger.know(["orders"])
        assert len(await ledger.claim(ALL)) == 2
    said = [out]
    for told in ("4 rows added, 0 were there", "0 rows added, 4 were there"):
        code, out, err = await copying(server, f"sqlite:///{tmp_path}/back.db")
        assert (code, err) == (0, "")
        assert told in out
        said.append(out)
    assert (tmp_path / "back.db").stat().st_mode & 0o777 == 0o600
    assert Search({PASSWORD}).leaks("".join(said)) == []


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("", 2, "Missing option '--from' (env var: 'TABLEFEED_LEDGER_FROM')"),
        ("--from sqlite:///l.db --to sqlite:///{root}/b.db", 2, "--from: must name an SQLite file: use"),
        ("--from mysql://u:s3cret@h/d --to sqlite:///{root}/b.db", 2, "--from: must name an SQLite file: use"),
        ("--from sqlite:///{root}/a.db --to postgresql://u:s3cret@h/d", 2, "give the URL in $TABLEFEED_LEDGER_TO"),
        ("--from postgresql://h/d?password=s3cret --to sqlite:///{root}/a.db", 2, "in $TABLEFEED_LEDGER_FROM"),
        ("--from postgresql://u:s3c/ret@h/d --to sqlite:///{root}/a.db", 2, "percent-encoded"),
        ("--from sqlite:///{root}/a.db --to sqlite:///{root}/./a.db", 2, "it is the ledger of --from"),
        ("--from sqlite:///{root}/a.db --to sqlite:///{root}/b.db --node n", 2, "only a copy between SQLite and"),
        ("--from sqlite:///{root}/a.db --to postgresql://h/d --node /n", 2, "--node: must be letters"),
        ("--from sqlite:///{root}/a.db --to sqlite:///{root}/b.db", 73, "a.db. Name the ledger that the daemon uses"),
        ("--from postgresql://127.0.0.1:1/d --to sqlite:///{root}/b.db", 69, "refused. Start PostgreSQL, or mend"),
    ],
)
async def test_what_cannot_be_done_is_told(tmp_path: Path, words: str, code: int, told: str) -> None:
    """In words, with what is right, without the password that was typed, and nothing is made."""
    found, out, err = await command("ledger", "copy", *words.replace("{root}", str(tmp_path)).split())
    assert told in err
    assert (found, out) == (code, "")
    assert "s3c" not in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


async def test_a_password_that_is_refused_is_told(tmp_path: Path, postgres: Postgres) -> None:
    """With 77, and not with the password; one in $PGPASSWORD is taken."""
    source, server = await filled(tmp_path / "ledger.db"), postgres.empty_database()
    name = server.rpartition("/")[2]
    code, _, err = await copying(source, postgres.url(name, password="wr0ng-password"))
    assert (code, "password authentication failed" in err, "wr0ng" in err) == (77, True, False)
    bare = f"postgresql://tablefeed@127.0.0.1:{postgres.port}/{name}"
    arguments = ("--from", source, "--to", bare)
    code, _, err = await command("ledger", "copy", *arguments, environ={"PGPASSWORD": PASSWORD})
    assert (code, err) == (0, "")


async def test_a_running_daemon_is_told(site: Site) -> None:
    """With 73; and the daemon does not mind the variables."""
    site.feed("orders")
    source, target = f"sqlite:///{site.root}/ledger.db", f"sqlite:///{site.root}/new.db"
    async with running_daemon(site.config, environ={"TABLEFEED_LEDGER_FROM": source}) as daemon:
        await daemon.until_event("started")
        code, _, err = await copying(source, target)
        assert code == 73
        assert f"in use by another tablefeed (process {daemon.process.pid}). Stop the daemons that use it" in err
    assert not (site.root / "new.db").exists()
    assert (await copying(source, target))[0] == 0


async def test_one_that_is_killed_goes_on(tmp_path: Path, postgres: Postgres) -> None:
    """At whatever moment: a daemon refuses the half of it, and the whole is there once it is repeated."""
    source, server = await filled(tmp_path / "ledger.db", waiting=20_000), postgres.empty_database()
    process = await _started("ledger", "copy", environ={"TABLEFEED_LEDGER_FROM": source, "TABLEFEED_LEDGER_TO": server})
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(count, server) > 0:
            await asyncio.sleep(0.01)
    process.kill()
    assert await process.wait() == -signal.SIGKILL
    there = count(server)
    assert 0 < there < 20_002
    site = Site(tmp_path, "http://127.0.0.1:1")
    site.feed("orders")
    for reading in ("run", "history"):
        code, _, err = await command(reading, "--config", str(site.config), environ={"TABLEFEED_LEDGER__URL": server})
        assert "is a copy that was not finished. Repeat `tablefeed ledger copy`" in err
        assert code == 73
    async with asyncio.timeout(PATIENCE):
        while True:
            # PostgreSQL has not noticed yet that the other one is gone.
            code, out, err = await copying(source, server)
            if code != 73:
                break
            assert "is in use" in err
    assert code == 0
    assert f"{20_003 - there} rows added, {there} were there" in out


async def _started(*words: str, environ: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tablefeed", *words, env=clean_environ(**environ), stdout=asyncio.subprocess.DEVNULL
    )


async def test_on_a_terminal_there_is_a_bar(tmp_path: Path) -> None:
    """And the summary remains."""
    source = await filled(tmp_path / "ledger.db")
    words = ("ledger", "copy", "--from", source, "--to", f"sqlite:///{tmp_path}/new.db")
    async with on_terminal(*words) as terminal:
        await terminal.until("copying and comparing")
        await terminal.until("is copied to")
        assert await terminal.ended() == 0
