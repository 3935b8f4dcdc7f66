"""The commands beside a fleet: they see all of it from any node, also from one whose daemon does not run."""

import asyncio
import json
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from support.daemon import KEY, Daemon, Site, command, rename_in, running_daemon
from support.patience import PATIENCE
from support.ports import free_port
from support.postgres import PASSWORD, Postgres
from support.stores import Server, serving, take_all
from tablefeed.errors import Exit
from tablefeed.sandbox.server import RunningSandbox

NODES = ("north", "south", "west")


def node(root: Path, sandbox: RunningSandbox, url: str, name: str) -> Site:
    """A node with a directory of its own, and one that all have."""
    (root / name).mkdir()
    site = Site(root / name, sandbox.base_url)
    site.sections = {"ledger": {"url": url}, "fleet": {"node": name, "lease": "60s"}, "upload": {"max_size": "10B"}}
    (root / "share").mkdir(exist_ok=True)
    site.feed("common", directory=str(root / "share"), shared=True)
    return site


async def until_refused(daemon: Daemon, server: Postgres, url: str, count: int) -> dict[str, int]:
    """Wait for so many, all of which are set aside; the latest row of each path."""
    await daemon.until_event("file_rejected", count)
    rows = server.execute(url.rpartition("/")[2], "SELECT path, max(id) FROM files GROUP BY path")
    return {path: int(number) for path, number in (line.split("|") for line in rows.splitlines())}


async def run(site: Site, *arguments: str) -> tuple[int, str, str]:
    """A command of a node; the password is in none of what it says."""
    code, out, err = await command(*arguments, "--config", str(site.config))
    assert PASSWORD not in out + err
    return code, out, err


async def test_commands_see_the_fleet_from_a_node_whose_daemon_does_not_run(
    tmp_path: Path, sandbox: RunningSandbox, postgres: Postgres
) -> None:
    """What runs elsewhere is told, what lies elsewhere is left to that node, what is shared is anybody's to retry."""
    url = postgres.database()
    north, south = (node(tmp_path, sandbox, url, name) for name in ("north", "south"))
    own = south.feed("of-south")
    async with running_daemon(south.config) as daemon:
        await daemon.until_event("ready")
        rename_in(own, "small.csv", b"x")
        rename_in(tmp_path / "share", "tiny.csv", b"x")
        await daemon.until_event("file_archived", 2)
        rename_in(own, "large.csv", b"much too large")
        rename_in(tmp_path / "share", "huge.csv", b"much too large")
        ids = await until_refused(daemon, postgres, url, 2)

        assert await run(south, "status", "--alive") == (0, "", "")
        code, _, err = await run(north, "status", "--alive")
        assert (code, err) == (1, "tablefeed: no daemon runs: node north gives no sign of life in its ledger\n")

        code, out, _ = await run(north, "status")
        assert (code, out.splitlines()[0]) == (
            1,
            "No daemon runs as node north; 1 other node of its fleet at work.",
        )
        assert "of-south on south" in out
        [line] = [line for line in out.splitlines() if line.startswith("south ")]
        assert line.split()[1] == "living"
        code, out, _ = await run(south, "status", "--json")
        told = json.loads(out)
        assert (code, told["source"], told["daemon"]["runs"], told["node"]) == (1, "ledger", True, "south")
        assert [(it["name"], it["here"]) for it in told["fleet"]["nodes"]] == [("south", True)]

        code, out, _ = await run(north, "history", "--node", "south", "--json")
        assert {(it["path"], it["node"], it["sender"]) for it in map(json.loads, out.splitlines())} == {
            ("small.csv", "south", "south"),
            ("large.csv", "south", None),
        }
        code, out, _ = await run(north, "history")
        assert out.splitlines()[0].split()[:4] == ["ID", "WHEN", "NODE", "SENDER"]
        assert any("shared" in line and "huge.csv" in line for line in out.splitlines())
        [line] = [line for line in out.splitlines() if "tiny.csv" in line]
        assert line.split()[3:6] == ["shared", "south", "common"]

        code, out, err = await run(north, "retry", "--all")
        assert (code, out.splitlines()[-1]) == (1, "1 file put back.")
        assert f"{ids['huge.csv']}: common/huge.csv is tried again" in out
        assert f"of-south/large.csv lies on node south: run `tablefeed retry {ids['large.csv']}` there" in err
        code, out, _ = await run(south, "retry", str(ids["large.csv"]))
        assert (code, out.splitlines()[-1]) == (0, "1 file put back.")
        await until_refused(daemon, postgres, url, 4)
        assert await daemon.end() == 0

    code, _, err = await run(south, "status", "--alive")
    assert (code, "node south gives no sign of life" in err) == (1, True)


async def until_told(address: str, condition: Callable[[Any], object]) -> Any:
    """The first status of a node that fulfils the condition."""
    told: Any = None
    try:
        async with asyncio.timeout(PATIENCE):
            while not (told and condition(told)):
                async with aiohttp.request("GET", f"http://{address}/api/status") as answer:
                    told = await answer.json()
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(json.dumps(told, indent=1))
    return told


def troubles_of(told: Any, node: str) -> list[Any]:
    """What a node has told of its troubles."""
    return next(list(it["troubles"]) for it in told["fleet"]["nodes"] if it["name"] == node)


async def test_trouble_on_one_node_is_told_by_all_until_it_is_mended_or_the_node_is_over(
    tmp_path: Path, postgres: Postgres
) -> None:
    """With its reason, what to do and since when; over HTTP, at a terminal and in the exit code."""
    server = Server(take_all)
    url = postgres.database()
    async with serving(server) as origin, AsyncExitStack() as stack:
        sites = {name: node(tmp_path, cast("Any", SimpleNamespace(base_url=origin)), url, name) for name in NODES}
        for site in sites.values():
            site.sections["fleet"]["lease"] = "3s"
            site.sections["http"] = {"listen": f"127.0.0.1:{free_port()}"}
        drop = sites["south"].feed("of-south", datatable_id="table-9", dataset_id="d")
        daemons = {}
        for name in ("north", "south"):
            daemons[name] = await stack.enter_async_context(running_daemon(sites[name].config))
            await daemons[name].until_event("ready")
        north = sites["north"].sections["http"]["listen"]
        await until_told(north, lambda it: it["ok"] and it["fleet"]["living"] == 2)

        server.unknown = "table-9"
        rename_in(drop, "a.csv", b"x")
        told = await until_told(north, lambda it: troubles_of(it, "south"))
        [trouble] = troubles_of(told, "south")
        assert (trouble["feed"], trouble["kind"]) == ("of-south", "delivery")
        assert "table-9" in trouble["reason"]
        assert trouble["remedy"]
        assert told["started_at"] < trouble["since"] <= told["now"]
        [there] = (await until_told(sites["south"].sections["http"]["listen"], lambda it: not it["ok"]))["feeds"][1:]
        assert there["troubles"][0]["reason"] == trouble["reason"]
        [feed] = [it for it in told["feeds"] if it["name"] == "of-south"]
        assert (feed["state"], [it["node"] for it in feed["troubles"]]) == ("blocked", ["south"])
        assert (told["ok"], told["headline"]) == (False, "blocked: of-south on south")
        assert KEY not in json.dumps(told)

        (code, out, _), shown, beside = await asyncio.gather(
            run(sites["north"], "status", "--json"), run(sites["north"], "status"), run(sites["west"], "status")
        )
        assert (code, troubles_of(json.loads(out), "south")) == (1, [trouble])
        code, out, _ = shown
        assert (code, out.splitlines()[0]) == (1, "Blocked: of-south on south.")
        whole = " ".join(out.split())
        assert "of-south on south: its files cannot be delivered since" in whole
        assert " ".join(trouble["reason"].split()) in whole
        code, out, _ = beside
        assert (code, " ".join(out.split()).partition(" Start it")[0]) == (
            1,
            "No daemon runs as node west; 2 other nodes of its fleet at work; blocked: of-south on south.",
        )

        server.unknown = ""
        told = await until_told(north, lambda it: it["ok"])
        assert (troubles_of(told, "south"), told["headline"]) == ([], "all is well")
        assert (await run(sites["north"], "status"))[0] == 0

        server.unknown = "table-9"
        rename_in(drop, "b.csv", b"x")
        await until_told(north, lambda it: troubles_of(it, "south"))
        await daemons["south"].end(signal.SIGKILL)
        told = await until_told(north, lambda it: it["fleet"]["over"] == 1)
        assert (troubles_of(told, "south"), told["headline"]) == ([], "files wait for a node that is away: south")
        [feed] = [it for it in told["feeds"] if it["name"] == "of-south"]
        assert (feed["state"], feed["troubles"]) == ("ok", [])
        assert await daemons["north"].end() == 0


async def test_commands_say_that_the_database_is_away(
    tmp_path: Path, sandbox: RunningSandbox, postgres: Postgres
) -> None:
    """In one line, with what to do, and with the exit code for what cannot be had now."""
    north = node(tmp_path, sandbox, postgres.url("ledger", port=1), "north")
    for arguments in (("status",), ("history",), ("retry", "--all")):
        code, out, err = await run(north, *arguments)
        assert (code, out, err.count("\n")) == (Exit.UNAVAILABLE, "", 1), err
        assert "Start PostgreSQL" in err
    code, _, err = await run(north, "status", "--alive")
    assert (code, err.count("\n"), "cannot be told" in err) == (1, 1, True)
