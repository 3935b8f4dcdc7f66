"""`tablefeed init`: from a key and a tenant to a configuration that works."""

import asyncio
import os
import pty
import stat
import sys
from pathlib import Path

import pytest

from support.daemon import KEY, clean_environ, command
from support.patience import PATIENCE
from tablefeed.config import load
from tablefeed.sandbox.server import RunningSandbox


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    (tmp_path / "exports of orders").mkdir()
    return tmp_path / "exports of orders"


async def init(root: Path, sandbox: RunningSandbox, *arguments: str, key: str = KEY) -> tuple[int, str, str]:
    """Run it without a terminal."""
    (root / "key").write_text(key + "\n")
    where = ["--config", str(root / "etc" / "tablefeed.toml"), "--base-url", sandbox.base_url]
    return await command(
        "init", *where, "--api-key-file", str(root / "key"), *arguments, stdin=asyncio.subprocess.DEVNULL
    )


async def test_with_flags_nothing_is_asked(tmp_path: Path, sandbox: RunningSandbox, drop: Path) -> None:
    """The file is the commented sample with what was found, for its owner alone, and `check` is content with it."""
    arguments = ["--tenant", "tenant-123", "--datatable", "table-456", "--directory", str(drop)]
    code, out, err = await init(tmp_path, sandbox, *arguments)
    assert (code, err) == (0, "")
    file = tmp_path / "etc" / "tablefeed.toml"
    assert f"Wrote {file}" in out
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    [feed] = load(file, {}).feeds
    assert (feed.name, feed.directory, feed.datatable_id, feed.dataset_id) == (
        "exports-of-orders",
        drop,
        "table-456",
        "dataset-1",
    )
    assert "#settle" in file.read_text()
    code, out, _ = await command(
        "check", "--config", str(file), environ={"TABLEFEED_LEDGER__URL": f"sqlite:///{tmp_path}/l.db"}
    )
    assert (code, "All is well." in out) == (0, True)


async def test_a_way_through_a_parent_is_written_straight(tmp_path: Path, sandbox: RunningSandbox, drop: Path) -> None:
    """What the file names holds no "..", and is the place that was meant where that leads through a link."""
    (tmp_path / "far" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "below")
    (tmp_path / "far" / "orders").mkdir()
    arguments = ["--tenant", "tenant-123", "--datatable", "table-456"]
    assert (await init(tmp_path, sandbox, *arguments, "--directory", str(tmp_path / "link" / ".." / "orders")))[0] == 0
    [feed] = load(tmp_path / "etc" / "tablefeed.toml", {}).feeds
    assert feed.directory == tmp_path / "far" / "orders"


async def test_a_configuration_is_not_written_over(tmp_path: Path, sandbox: RunningSandbox, drop: Path) -> None:
    """Unless that is asked for."""
    arguments = ["--tenant", "tenant-123", "--datatable", "table-456", "--directory", str(drop)]
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc" / "tablefeed.toml"
    file.write_text("mine")
    code, _, err = await init(tmp_path, sandbox, *arguments)
    assert code == 78
    assert "is there already" in err
    assert file.read_text() == "mine"
    assert (await init(tmp_path, sandbox, *arguments, "--force"))[0] == 0
    assert "table-456" in file.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--datatable", "table-456"], 2, "--tenant"),
        (["--tenant", "tenant-123"], 2, "--datatable"),
        (["--tenant", "tenant-123", "--datatable", "nonesuch"], 78, "It has table-456"),
        (["--tenant", "nonesuch", "--datatable", "table-456"], 78, "tenant nonesuch"),
    ],
)
async def test_what_is_missing_or_wrong_is_named_and_nothing_is_written(
    tmp_path: Path, sandbox: RunningSandbox, drop: Path, arguments: list[str], code: int, text: str
) -> None:
    """Without a terminal nobody can be asked, so the flag is named."""
    found, _, err = await init(tmp_path, sandbox, *arguments, "--directory", str(drop))
    assert found == code
    assert text in err
    assert "Traceback" not in err
    assert not (tmp_path / "etc").exists()


async def test_a_refused_key_is_told_and_not_shown(tmp_path: Path, sandbox: RunningSandbox, drop: Path) -> None:
    """The remedy is there, the key is not."""
    arguments = ["--tenant", "tenant-123", "--datatable", "table-456", "--directory", str(drop)]
    code, out, err = await init(tmp_path, sandbox, *arguments, key="wr0ng-k3y")
    assert code == 78
    assert "refused" in err
    assert "wr0ng-k3y" not in out + err
    assert "Check the key, and that it belongs to this tenant. Nothing was written" in err
    assert "argument" not in err


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, master: int) -> None:
        self._master = master
        self.said = ""
        asyncio.get_running_loop().add_reader(master, self._read)
        self._news = asyncio.Event()

    def _read(self) -> None:
        try:
            self.said += os.read(self._master, 65536).decode()
        except OSError:
            asyncio.get_running_loop().remove_reader(self._master)
        self._news.set()

    async def answer(self, question: str, text: str) -> None:
        """Type an answer once a question stands there."""
        async with asyncio.timeout(PATIENCE):
            while question not in self.said:
                self._news.clear()
                await self._news.wait()
        self.said = self.said.partition(question)[2]
        os.write(self._master, text.encode() + b"\n")


async def test_on_a_terminal_it_asks_and_shows_what_there_is(
    tmp_path: Path, sandbox: RunningSandbox, drop: Path
) -> None:
    """The key is not shown while it is typed, and is written beside the configuration for its owner alone."""
    file = tmp_path / "tablefeed.toml"
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tablefeed", "init", "--config", str(file), "--base-url", sandbox.base_url),
        stdin=slave, stdout=slave, stderr=slave, env=clean_environ(TERM="dumb"),
    )  # fmt: skip
    os.close(slave)
    terminal = Terminal(master)
    await terminal.answer("(it is not shown): ", KEY)
    await terminal.answer("Tenant id", "tenant-123")
    await terminal.answer("Number of the datatable", "99")
    await terminal.answer("Choose a number", "")
    await terminal.answer("Number of the datatable", "1")
    await terminal.answer("Directory", str(drop))
    await terminal.answer("Name of the feed", "orders")
    assert await process.wait() == 0
    asyncio.get_running_loop().remove_reader(master)
    os.close(master)
    assert KEY not in terminal.said
    [feed] = load(file, {}).feeds
    assert (feed.name, feed.directory) == ("orders", drop)
    assert (tmp_path / "api-key").read_text() == KEY + "\n"
    assert stat.S_IMODE((tmp_path / "api-key").stat().st_mode) == 0o600
