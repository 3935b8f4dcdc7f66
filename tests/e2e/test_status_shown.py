"""`tablefeed status`: what is going on, from the daemon, or from the ledger where none answers."""

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support.daemon import KEY, Daemon, Site, command, rename_in, running_daemon
from support.ports import free_port
from support.terminal import on_terminal
from tablefeed.sandbox.server import RunningSandbox

HOSTILE = "odd \x1b[31m\nname.csv"


@pytest.fixture
def site(tmp_path: Path, sandbox: RunningSandbox) -> Site:
    site = Site(tmp_path, sandbox.base_url)
    site.feed("orders", expect_every="26h")
    site.sections["http"] = {"listen": f"127.0.0.1:{free_port()}"}
    site.sections["upload"] = {"max_size": "1KiB"}
    return site


async def status(site: Site, *arguments: str, **environ: str) -> tuple[int, str, str]:
    """What it says."""
    return await command("status", *arguments, "--config", str(site.root / "tablefeed.toml"), environ=environ)


async def as_json(site: Site) -> tuple[int, dict[str, Any]]:
    """The exit code and the picture."""
    code, out, err = await status(site, "--json")
    assert err == ""
    picture: dict[str, Any] = json.loads(out)
    return code, picture


PASSING = ("uploads", "hour", "stores", "troubles")
"""Lists that may be empty."""


def shape(value: object) -> object:
    """The keys of a picture, in all depths; lists by what their first element looks like."""
    match value:
        case dict():
            return {
                key: shape(each) for key, each in value.items() if key not in ("uploads", "hour", "stores", "troubles")
            }
        case list():
            return [shape(value[0])] if value else []
        case _:
            return None


async def with_history(site: Site, daemon: Daemon) -> None:
    """One file delivered and one refused, whose name is hostile."""
    rename_in(site.root / "drop" / "orders", "a.csv", b"content")
    rename_in(site.root / "drop" / "orders", HOSTILE, b"x" * 2000)
    await daemon.until_event("file_archived")
    await daemon.until_event("file_rejected")


async def test_with_and_without_the_daemon(site: Site) -> None:
    """The same shape of JSON and the same counts; only the daemon's own answer says that all is well."""
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("ready")
        code, picture = await as_json(site)
        assert (code, picture["ok"], picture["source"], picture["headline"]) == (0, True, "daemon", "all is well")
        await with_history(site, daemon)
        # What the ledger has told is told again for half a second.
        while (told := await as_json(site))[1]["totals"]["refused"] == 0:
            pass
        code, lively = told
        proxies = {"http_proxy": "http://127.0.0.1:9", "all_proxy": "http://127.0.0.1:9"}
        shown = await status(site, **proxies)
        await daemon.end()
    assert (code, lively["daemon"]["process"]) == (0, daemon.process.pid)
    assert shown[0] == 0
    assert shown[1].splitlines()[0] == "1 file refused."
    code, dead = await as_json(site)
    assert (code, dead["ok"], dead["source"], dead["daemon"]["runs"]) == (1, False, "ledger", False)
    assert shape(dead) == shape(lively)
    for name in ("queued", "refused", "delivered_today", "bytes_today", "last_delivery_at"):
        assert dead["totals"][name] == lively["totals"][name], name
    code, out, err = await status(site)
    assert (code, err) == (1, "")
    assert out.startswith("No daemon runs.\nStart it: ")
    assert "delivered last: " in out
    for text in (shown[1], out):
        assert "\x1b" not in text
        assert r"orders/odd \x1b[31m\nname.csv" in text
        assert "tablefeed retry" in text
        assert KEY not in text


async def test_files_that_wait_are_told_with_since_when(site: Site) -> None:
    """A daemon that was killed with work in its queue left it in the ledger."""
    site.base_url = f"http://127.0.0.1:{free_port()}"
    async with running_daemon(site.config) as daemon:
        rename_in(site.root / "drop" / "orders", "a.csv", b"content")
        await daemon.until_event("files_queued")
        await daemon.until(lambda: any("cannot be reached" in line for line in daemon.lines))
        _, out, _ = await status(site)
        assert "cannot be reached" in out
        assert "Next try" in out
        await daemon.end(signal.SIGKILL)
    code, out, _ = await status(site)
    assert code == 1
    assert "1 file in the queue, the first since " in out


async def test_before_the_first_start_it_says_what_to_do(site: Site) -> None:
    """Neither a daemon nor a ledger is there."""
    assert site.config
    code, out, err = await status(site)
    assert (code, err) == (1, "")
    assert out.splitlines()[0] == f"No daemon runs, and there is no ledger {site.ledger} yet."
    assert "`tablefeed run`" in out
    assert (await as_json(site))[0] == 1


async def test_a_daemon_without_http_is_told_from_none(site: Site) -> None:
    """The lock names its process."""
    site.sections["http"] = {"listen": ""}
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("ready")
        code, out, _ = await status(site)
        assert code == 1
        assert f"A daemon runs (process {daemon.process.pid}), but HTTP is turned off" in out
        assert "not run" not in out


async def test_a_daemon_that_hangs_is_told(site: Site) -> None:
    """And the ledger still tells the rest."""
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("ready")
        daemon.process.send_signal(signal.SIGSTOP)
        code, picture = await as_json(site)
        assert (code, picture["source"], picture["daemon"]["runs"]) == (1, "ledger", True)
        assert "within 5 s" in picture["daemon"]["reason"]
        assert "journalctl" in picture["daemon"]["remedy"]
        daemon.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("columns", [20, 80])
async def test_the_live_view_survives_a_restart_and_ends_cleanly(site: Site, columns: int) -> None:
    """It says that the daemon was away, ends with 0 at Ctrl-C, and gives the cursor back."""
    arguments = ["status", "--watch", "--config", str(site.config)]
    async with on_terminal(*arguments, columns=columns) as terminal:
        await terminal.until("No")
        if columns >= 80:
            await terminal.until("Ctrl-C ends this view")
            async with running_daemon(site.config) as daemon:
                await daemon.until_event("ready")
                await terminal.until("All is well.")
                await terminal.until("It answers again since")
                await daemon.end()
            await terminal.until("It stopped answering at")
        terminal.type("\x03")
        assert await terminal.ended() == 0
        rest = await terminal.until("\x1b[?25h")
        assert "Traceback" not in rest + terminal.said


async def test_the_live_view_ends_at_sigterm_too(site: Site) -> None:
    """With the cursor."""
    async with on_terminal("status", "--watch", "--config", str(site.config)) as terminal:
        await terminal.until("Ctrl-C ends this view")
        os.kill(terminal.process.pid, signal.SIGTERM)
        assert await terminal.ended() == 0
        await terminal.until("\x1b[?25h")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--watch"], "--watch: needs a terminal"),
        (["--watch", "--json"], "one of --json, --watch and --alive"),
        (["--alive", "--json"], "one of --json, --watch and --alive"),
    ],
)
async def test_what_cannot_be_is_a_usage_error(site: Site, arguments: list[str], told: str) -> None:
    """Nobody would see a live view without a terminal."""
    assert site.config
    code, _, err = await status(site, *arguments)
    assert code == 2
    assert told in err


@pytest.mark.parametrize(("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
async def test_colours_are_for_terminals_that_want_them(site: Site, environ: Mapping[str, str], coloured: bool) -> None:
    """And only there."""
    async with on_terminal("status", "--config", str(site.config), environ=environ) as terminal:
        assert await terminal.ended() == 1
        await terminal.until("LAST FILE")
        assert ("\x1b[1;31m" in terminal.said or "\x1b[31m" in terminal.said) is coloured
