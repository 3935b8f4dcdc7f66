"""Every command with bad input, on bad terminals, and interrupted: a message that says what to do, and no traceback."""

import asyncio
import shlex
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.daemon import KEY, Site, as_a_user, bound_by_permissions, clean_environ, command
from support.ports import free_port
from support.terminal import on_terminal
from tablefeed.sandbox.server import RunningSandbox


@pytest.fixture
def site(tmp_path: Path, sandbox: RunningSandbox) -> Site:
    site = Site(tmp_path, sandbox.base_url)
    site.feed("orders")
    return site


async def piped(command: str, site: Site, *prefix: str) -> tuple[int, str]:
    """A command line in bash, with `tablefeed` in it: its exit code and all that is printed."""
    line = command.replace("tablefeed", shlex.join([*prefix, sys.executable, "-m", "tablefeed"]))
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", line),
        env=clean_environ(TABLEFEED_CONFIG=str(site.config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode is not None
    assert b"Traceback" not in out, out.decode()
    return process.returncode, out.decode()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ("history --state nonesuch", 2, "'rejected'"),
        ("history --since yesterday", 2, "write it like 2026-03-01"),
        ("history --nonesuch", 2, "No such option: --nonesuch"),
        ("history --feed nonesuch", 73, "there is no ledger"),
        ("retry", 2, "or give --feed FEED, or --all"),
        ("retry 1", 73, "It is made at the daemon's first start"),
        ("retry --feed nonesuch", 2, "no feed nonesuch; it has orders"),
        ("push --feed orders", 2, "Missing argument"),
        ("push a.csv", 2, "Missing option '--feed'"),
        ("push / --feed orders", 1, "is a directory; name the files in it"),
        ("push /dev/null --feed orders", 1, "is no regular file"),
        ("push /nonesuch --feed orders", 1, "/nonesuch: No such file"),
        ("sandbox --listen nonesuch", 2, 'write it as "127.0.0.1:8800"'),
        ("sandbox --listen 127.0.0.1:0 --data /proc/nonesuch", 73, "Name a directory"),
        ("demo --keep /proc/nonesuch", 73, "Name another directory with --keep"),
        ("init --base-url nonesuch --config /tmp/x/y", 2, 'must have the form "https://'),
        ("init --base-url http://example.test --config /tmp/x/y", 2, "use https"),
        ("init", 78, "write over it with --force"),
    ],
)
async def test_bad_options_are_told(site: Site, arguments: str, code: int, told: str) -> None:
    """With what would be right."""
    assert site.config
    found, out = await piped(f"tablefeed {arguments} </dev/null", site)
    assert told in out
    assert found == code


@pytest.mark.parametrize("reading", ["status", "retry 1", "config show", "run"])
async def test_a_configuration_that_is_not_there_is_told_by_all(site: Site, reading: str) -> None:
    """With what names another."""
    code, out = await piped(f"tablefeed {reading} --config /nonesuch.toml", site)
    assert code == 78
    assert "/nonesuch.toml does not exist. Name a file that does with --config" in out
    assert "or write this one with `tablefeed init`" in out


async def test_without_any_configuration_the_way_to_one_is_told(tmp_path: Path) -> None:
    """For those who have just installed it."""
    if Path("/etc/tablefeed/tablefeed.toml").exists():
        pytest.skip("this machine has a configuration")
    code, _, err = await command("check", cwd=tmp_path)
    assert code == 78
    assert "Write one with `tablefeed init`" in err


@as_a_user
@pytest.mark.parametrize("reading", ["status", "history", "check"])
async def test_a_ledger_in_a_closed_directory_is_told(site: Site, reading: str) -> None:
    """By commands that are run as another user than the daemon."""
    site.ledger_directory = site.root / "closed"
    site.ledger_directory.mkdir()
    (site.ledger_directory / "ledger.db").touch()
    site.ledger_directory.chmod(0)
    try:
        code, out = await piped(f"tablefeed {reading}", site, *bound_by_permissions())
    finally:
        site.ledger_directory.chmod(0o700)
    assert code == 77
    assert "ledger.db" in out
    if reading != "check":
        assert "as the user that runs the daemon" in out


@pytest.mark.parametrize("printing", ["config sample", "status", "--help"])
async def test_a_closed_pipe_ends_a_command_in_silence(site: Site, printing: str) -> None:
    """As the shell's own tools end, whatever there was to print."""
    code, out = await piped(f"set -o pipefail; tablefeed {printing} | true", site)
    assert (code, out) == (141, "")


async def test_output_that_cannot_be_written_is_told(site: Site) -> None:
    """A full disk is not taken for a bug; who closes the output wants none."""
    code, out = await piped("tablefeed config sample >/dev/full", site)
    assert (code, "No space left on device. Send it to another place" in out) == (73, True)
    assert (await piped("tablefeed config sample >&- 2>&-", site))[0] == 0


@pytest.mark.parametrize("locale", ["LC_ALL=C", "PYTHONIOENCODING=ascii"])
async def test_names_that_the_terminal_cannot_show_are_no_error(site: Site, locale: str) -> None:
    """They are shown as escapes there, on both channels."""
    file = site.root / "€-日本.csv"
    file.write_text("content")
    code, out = await piped(f"{locale} tablefeed push {file} €.csv --feed orders", site)
    assert code == 1
    assert ".csv: 7B delivered" in out
    assert ".csv: No such file or directory" in out
    assert (await piped(f"{locale} tablefeed --help", site))[0] == 0


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """A server that takes every connection and never answers."""

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read(-1)
        writer.close()

    connected = asyncio.Event()
    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["check"], "orders", 130),
        (["push", "{root}/a.csv", "--feed", "orders"], "a.csv", 130),
        (["init", "--config", "{root}/new.toml"], "(it is not shown): ", 130),
        (["run"], "started", 0),
        (["sandbox", "--listen", "127.0.0.1:0", "--data", "{root}/data"], "End it with Ctrl-C", 0),
        (["demo"], "watching", 0),
    ],
)
async def test_ctrl_c_ends_every_command(tmp_path: Path, arguments: Sequence[str], said: str, code: int) -> None:
    """With 130, or with 0 where it is the way to end it, and without a traceback."""
    (tmp_path / "a.csv").write_text("content")
    async with silent_server() as origin:
        site = Site(tmp_path, origin)
        site.feed("orders", dataset_id="d")
        words = [word.replace("{root}", str(tmp_path)) for word in arguments]
        environ = {} if "init" in words else {"TABLEFEED_CONFIG": str(site.config)}
        async with on_terminal(*words, environ=environ) as terminal:
            text = await terminal.until(said)
            terminal.type("\x03")
            assert await terminal.ended() == code
            assert "Traceback" not in text + terminal.said
    assert not (tmp_path / "new.toml").exists()


async def test_end_of_input_ends_init(tmp_path: Path) -> None:
    """Ctrl-D is an answer too, and nothing is left behind, not even the key."""
    async with on_terminal("init", "--config", str(tmp_path / "new.toml")) as terminal:
        await terminal.until("(it is not shown): ")
        terminal.type(f"{KEY}\n")
        await terminal.until("Tenant id")
        terminal.type("\x04")
        assert await terminal.ended() == 130
        await terminal.until("Nothing was written.")
    assert list(tmp_path.iterdir()) == []


async def test_init_asks_again_where_an_answer_does_not_do(tmp_path: Path, sandbox: RunningSandbox) -> None:
    """A name that the configuration would refuse."""
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "drop").mkdir()
    given = ["--tenant", "tenant-123", "--datatable", "table-456", "--directory", str(tmp_path / "drop")]
    given += ["--api-key-file", str(tmp_path / "key"), "--base-url", sandbox.base_url]
    async with on_terminal("init", "--config", str(tmp_path / "new.toml"), *given) as terminal:
        await terminal.until("Name of the feed")
        terminal.type("my orders\n")
        await terminal.until("must begin with a letter or digit")
        await terminal.until("Name of the feed")
        terminal.type("orders\n")
        assert await terminal.ended() == 0
    assert 'name = "orders"' in (tmp_path / "new.toml").read_text()


async def test_init_says_at_once_that_its_file_cannot_be_written(tmp_path: Path) -> None:
    """Before anything is asked."""
    (tmp_path / "file").touch()
    code, _, err = await command("init", "--config", str(tmp_path / "file" / "tablefeed.toml"))
    assert code == 73
    assert "is no directory. Run this as root, or name another place with --config" in err


@pytest.mark.parametrize("arguments", ["status", "check", "--help"])
async def test_a_tiny_terminal_is_no_error(site: Site, arguments: str) -> None:
    """Of a few columns and lines."""
    site.sections["http"] = {"listen": f"127.0.0.1:{free_port()}"}
    environ = {"TABLEFEED_CONFIG": str(site.config)}
    async with on_terminal(*arguments.split(), columns=7, rows=2, environ=environ) as terminal:
        await terminal.ended()
        assert "Traceback" not in terminal.said
