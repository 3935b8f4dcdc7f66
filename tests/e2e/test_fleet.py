"""Several daemons on one ledger and one shared directory: each file goes once, whatever becomes of a daemon."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from string import ascii_letters
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import psycopg
import pytest

from support.daemon import KEY, Daemon, Site, command, contents, rename_in, running_daemon
from support.patience import PATIENCE
from support.postgres import Postgres
from support.stores import Server, serving
from tablefeed.sandbox.server import RunningSandbox, SandboxSettings, running

NODES = ("north", "south", "west")


@dataclass
class Fleet:
    """Daemons that share a directory and a ledger."""

    root: Path
    sandbox: RunningSandbox
    server: Postgres
    url: str
    sites: dict[str, Site] = field(default_factory=dict)
    daemons: dict[str, Daemon] = field(default_factory=dict)

    @property
    def drop(self) -> Path:
        """The directory that all have."""
        return self.root / "share"

    def site(self, node: str, **feed: Any) -> Site:
        """A node's own configuration."""
        root = self.root / node
        root.mkdir(exist_ok=True)
        site = Site(root, self.sandbox.base_url)
        site.sections = {
            "ledger": {"url": self.url},
            "fleet": {"node": node, "lease": "3s"},
            "upload": {"concurrency": 4},
            "watch": {"rescan": "2s"},
            "log": {"level": "info"},
        }
        site.feed("orders", directory=str(self.drop), shared=True, dataset_id="dataset-1", **feed)
        self.sites[node] = site
        return site

    def put(self, count: int, first: int = 0, size: int = 200) -> None:
        """Drop whole files."""
        for number in range(first, first + count):
            rename_in(self.drop, f"export-{number:05}.csv", b"%05d" % number + os.urandom(size))

    @property
    def objects(self) -> Path:
        """What the store has."""
        return self.root / "processmind" / "objects"

    @property
    def archived(self) -> dict[str, bytes]:
        """What lies in the archive."""
        return contents(self.drop / "archive")

    def ask(self, statement: str) -> str:
        """What the ledger says to SQL."""
        return self.server.execute(self.url.rpartition("/")[2], statement)

    async def until_archived(self, count: int, patience: float = PATIENCE) -> None:
        """Wait until the ledger has so many archived rows."""
        end = asyncio.get_running_loop().time() + patience
        while int(self.ask("SELECT count(*) FROM files WHERE state = 'archived'")) < count:
            if asyncio.get_running_loop().time() > end:
                rows = self.ask("SELECT state, owner, min(path), count(*) FROM files GROUP BY state, owner")
                pytest.fail(f"{rows}\n{self.ask('TABLE nodes')}\n{self.last_words()}")
            await asyncio.sleep(0.1)

    def last_words(self) -> str:
        """What each daemon has logged beyond the way of its files."""
        told = []
        for node, daemon in self.daemons.items():
            lines = [line for line in daemon.lines if '"event":"file_' not in line]
            told += [f"{node}:\n", *lines[-25:]]
        return "".join(told)

    def assert_clean(self, count: int) -> None:
        """Each file has one row, one object and lies once in the archive, with what it had when it was dropped."""
        assert self.ask("SELECT state, count(*) FROM files GROUP BY state") == f"archived|{count}"
        archived = self.archived
        assert sorted(archived) == [f"export-{number:05}.csv" for number in range(count)]
        assert [path.name for path in self.drop.iterdir() if path.is_file()] == []
        objects = Counter(path.read_bytes() for path in self.objects.rglob("*") if path.is_file())
        assert sorted(objects) == sorted(archived.values()), "each file is at the store, whole"
        assert set(objects.values()) == {1}, "none has a second object"


@pytest.fixture
async def fleet(tmp_path: Path, postgres: Postgres) -> AsyncIterator[Fleet]:
    (tmp_path / "share").mkdir()
    async with running(SandboxSettings(tmp_path / "processmind", KEY, strict=True)) as sandbox:
        yield Fleet(tmp_path, sandbox, postgres, postgres.database())


@asynccontextmanager
async def daemons(fleet: Fleet, *nodes: str) -> AsyncIterator[dict[str, Daemon]]:
    """These nodes, running."""
    async with AsyncExitStack() as stack:
        for node in nodes:
            fleet.daemons[node] = await stack.enter_async_context(running_daemon(fleet.site(node).config))
        for node in nodes:
            await fleet.daemons[node].until_event("ready")
        yield fleet.daemons


def over(daemon: Daemon) -> set[str]:
    """The nodes that this one has taken over from."""
    return {node for event in daemon.named("nodes_over") for node in event["nodes"]}


async def test_one_node_delivers_from_a_ledger_on_postgresql(fleet: Fleet) -> None:
    """The whole way of a file."""
    fleet.put(20)
    async with daemons(fleet, "north") as running_nodes:
        await fleet.until_archived(20)
        assert await running_nodes["north"].end() == 0
    fleet.assert_clean(20)


async def test_a_path_that_no_index_takes_stops_only_itself(fleet: Fleet) -> None:
    """It stays where it is, which the log says once; all others go on. Events tell of it, and scans."""
    sign = Random(1)  # no name repeats another: PostgreSQL would compress them
    deep = fleet.drop.joinpath(*("".join(sign.choices(ascii_letters, k=250)) for _ in range(11)))
    async with running_daemon(fleet.site("north", recursive=True).config) as daemon:
        await daemon.until_event("ready")
        deep.mkdir(parents=True)
        rename_in(deep, "long.csv", b"7,x\n")
        fleet.put(3)
        await fleet.until_archived(3)
        await daemon.until_event("not_scanned")
        assert await daemon.end() == 0
    [told] = daemon.named("not_scanned")
    assert (told["path"], "shorten it" in told["reason"]) == (f"{deep.relative_to(fleet.drop)}/long.csv", True)
    assert (deep / "long.csv").exists()
    fleet.assert_clean(3)


async def senders_by_history(site: Site) -> dict[str, str]:
    """Which node sent each file, as `tablefeed history` of a node tells it."""
    code, out, err = await command("history", "--json", "--config", str(site.config))
    assert (code, err) == (0, "")
    return {record["path"]: record["sender"] for record in map(json.loads, out.splitlines())}


async def test_three_nodes_share_the_work(fleet: Fleet) -> None:
    """Each file is delivered and archived once, no share is off by more than a fifth, and all know who sent which."""
    count = 900
    async with daemons(fleet, *NODES) as nodes:
        fleet.put(count)
        await fleet.until_archived(count)
        for daemon in nodes.values():
            assert await daemon.end() == 0
    fleet.assert_clean(count)
    shares = {node: len(daemon.named("file_archived")) for node, daemon in nodes.items()}
    assert sum(shares.values()) == count
    assert all(0.8 <= share / (count / 3) <= 1.2 for share in shares.values()), shares
    told = {node: daemon.named("file_delivered") for node, daemon in nodes.items()}
    assert all({event["node"] for event in events} == {node} for node, events in told.items())
    senders = {event["path"]: node for node, events in told.items() for event in events}
    for node in NODES:
        assert await senders_by_history(fleet.sites[node]) == senders


async def test_nothing_is_lost_or_doubled_by_a_kill_a_stop_and_a_restart_of_the_database(fleet: Fleet) -> None:
    """One node is killed, one stands still for longer than its lease and goes on, and PostgreSQL is restarted."""
    count = 1_200
    async with daemons(fleet, *NODES) as nodes:
        fleet.put(count)
        await fleet.until_archived(count // 10)
        nodes["south"].process.send_signal(signal.SIGSTOP)
        await nodes["west"].end(signal.SIGKILL)
        await nodes["north"].until(lambda: over(nodes["north"]) == {"south", "west"})
        fleet.server.stop()
        await nodes["north"].until_event("ledger_unwritable")
        fleet.server.start()
        await nodes["north"].until_event("ledger_writable_again")
        await fleet.until_archived(count // 2)
        nodes["south"].process.send_signal(signal.SIGCONT)
        await nodes["south"].until_event("lease_lost")
        await fleet.until_archived(count)
        assert await nodes["south"].end() == 0
        assert await nodes["north"].end() == 0
    fleet.assert_clean(count)


TOKEN = "a-token-that-nobody-guesses"


async def asked(daemon: Daemon, path: str, body: object = None) -> Any:
    """What a node answers over HTTP."""
    url = f"http://{daemon.named('started')[0]['http']}{path}"
    headers = {"Authorization": f"Bearer {TOKEN}"} if body is not None else {}
    method = "GET" if body is None else "POST"
    async with aiohttp.request(method, url, json=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def until_told(daemon: Daemon, condition: Callable[[Any], object]) -> Any:
    """The first status of a node that fulfils the condition."""
    told: Any = None
    try:
        async with asyncio.timeout(30):
            while not condition(told := await asked(daemon, "/api/status")):
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(json.dumps(told, indent=1))
    return told


def feed_of(told: Any, name: str) -> Any:
    return next(feed for feed in told["feeds"] if feed["name"] == name)


def seen_from(site: Site) -> None:
    """Let a node answer over HTTP, and be told what to do there."""
    token = site.root / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    site.sections["http"] = {"listen": "127.0.0.1:0", "token_file": str(token)}
    # What one node does the others hear by NOTIFY: signs of life are too far apart for this.
    site.sections["fleet"]["lease"] = "600s"


async def test_any_node_shows_all_and_pauses_and_retries_for_all(tmp_path: Path, postgres: Postgres) -> None:
    """Who lives and since when, what the other one sends, its feeds; a pause counts on both, a retry names the node."""
    go_on = asyncio.Event()

    async def put(server: Server, request: Any, body: bytes) -> Any:
        await go_on.wait()
        return server.take(request, body)

    (tmp_path / "share").mkdir()
    async with serving(Server(put)) as origin, AsyncExitStack() as stack:
        fleet = Fleet(tmp_path, cast("Any", SimpleNamespace(base_url=origin)), postgres, postgres.database())
        nodes = {}
        for name in ("north", "south"):
            site = fleet.site(name)
            seen_from(site)
            own = site.feed(f"of-{name}", dataset_id="d")
            nodes[name] = await stack.enter_async_context(running_daemon(site.config))
            await nodes[name].until_event("ready")
        rename_in(own, "large.csv", b"x" * 1_000)
        told = await until_told(nodes["north"], lambda it: it["fleet"]["held"])
        [held] = told["fleet"]["held"]
        assert (held["node"], held["feed"], held["path"], held["size"]) == ("south", "of-south", "large.csv", 1_000)
        assert (told["node"], told["ok"], told["uploads"]) == ("north", True, [])
        assert [(node["name"], node["here"], node["living"]) for node in told["fleet"]["nodes"]] == [
            ("north", True, True),
            ("south", False, True),
        ]
        assert [node["uploading"] for node in told["fleet"]["nodes"]] == [0, 1]
        assert all(node["started_at"] <= node["seen_at"] <= told["fleet"]["now"] for node in told["fleet"]["nodes"])
        theirs, common = feed_of(told, "of-south"), feed_of(told, "orders")
        assert (theirs["here"], theirs["nodes"], theirs["uploading"]) == (False, ["south"], 1)
        assert (common["here"], common["nodes"]) == (True, ["north", "south"])
        other = await until_told(nodes["south"], lambda it: it["uploads"])
        assert ([it["path"] for it in other["uploads"]], other["fleet"]["held"]) == (["large.csv"], [])
        go_on.set()
        await nodes["south"].until_event("file_archived")
        await until_told(nodes["north"], lambda it: feed_of(it, "of-south")["delivered_today"] == 1)

        await asked(nodes["north"], "/api/feeds/orders/pause", {})
        await nodes["south"].until_event("feed_paused_elsewhere")
        fleet.put(3)
        told = await until_told(nodes["south"], lambda it: feed_of(it, "orders")["queued"] == 3)
        assert feed_of(told, "orders")["state"] == "paused"
        await asked(nodes["south"], "/api/feeds/orders/resume", {})
        await fleet.until_archived(4)
        files = (await asked(nodes["north"], "/api/files"))["files"]
        assert {it["sender"] for it in files if it["path"] == "large.csv"} == {"south"}
        assert {it["sender"] for it in files} <= {"north", "south"}

        rename_in(own, "odd\udcff.csv", b"x")
        refused = (await until_told(nodes["north"], lambda it: it["files"]))["files"][0]
        answer = await asked(nodes["north"], "/api/retry", {"ids": [refused["id"]]})
        [left] = answer["not_put_back"]
        assert "lies on node south" in left["problem"]
        assert f"tablefeed retry {refused['id']}" in left["problem"]
        answer = await asked(nodes["south"], "/api/retry", {"ids": [refused["id"]]})
        assert [it["id"] for it in answer["put_back"]] == [refused["id"]]

        await nodes["south"].end(signal.SIGTERM)
        told = await until_told(nodes["north"], lambda it: it["fleet"]["over"] == 1)
        assert told["fleet"]["living"] == 1
        fleet.server.stop()
        try:
            told = await until_told(nodes["north"], lambda it: it["ledger_problem"])
            assert "Start PostgreSQL" in told["ledger_problem"]
            assert not told["ok"]
            assert [node["name"] for node in told["fleet"]["nodes"]] == ["north", "south"], "what was known last"
        finally:
            fleet.server.start()
        await until_told(nodes["north"], lambda it: not it["ledger_problem"])


@dataclass
class Witness:
    """Who is connected to a database, besides itself."""

    connection: psycopg.Connection[tuple[str]]
    seen: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def look(self) -> tuple[str, ...]:
        """The names of all connections, which are counted."""
        clients = "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
        others = f"{clients} AND backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY 1"
        names = tuple(name for (name,) in self.connection.execute(others.encode()))
        self.seen[names] += 1
        return names

    def pids(self) -> list[str]:
        """Of the connections that hold no advisory lock: those for changes hold their node's name."""
        free = "SELECT pid::text FROM pg_stat_activity WHERE application_name LIKE 'tablefeed %'"
        rows = f"{free} AND pid NOT IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')"  # noqa: S608
        return [pid for (pid,) in self.connection.execute(rows.encode())]

    async def until_two(self, besides: list[str]) -> None:
        """Wait until there are two connections, and the one that is asked is none of those."""
        async with asyncio.timeout(30):
            while len(self.look()) != 2 or len(self.pids()) != 1 or self.pids() == besides:
                await asyncio.sleep(0.05)
        self.seen.clear()


@asynccontextmanager
async def watched_over_http(daemon: Daemon) -> AsyncIterator[None]:
    """Page, status, history and metrics are asked for again and again."""
    ended = asyncio.Event()

    async def ask() -> None:
        async with aiohttp.ClientSession(f"http://{daemon.named('started')[0]['http']}") as session:
            while not ended.is_set():
                for path in ("/", "/api/status", "/api/files", "/metrics"):
                    async with session.get(path) as answer:
                        assert answer.status == 200

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ask())
        yield
        ended.set()


async def test_a_node_holds_two_connections_whatever_it_does(fleet: Fleet) -> None:
    """While it delivers, shows page, status, history and metrics, and hears others; also after one of the two ended."""
    seen_from(fleet.site("north"))

    async def pause(times: int) -> None:
        """As another node does; signs of life are too far apart to tell of it."""
        for at, told in ((77, "feed_paused_elsewhere"), ("NULL", "feed_resumed_elsewhere")):
            fleet.ask(f"UPDATE feeds SET paused_at = {at}")  # noqa: S608 - from the line before
            fleet.ask("""NOTIFY tablefeed, '{"changed": "pauses"}'""")
            await daemon.until_event(told, times)

    with closing(psycopg.connect(fleet.url.replace("+psycopg", ""), autocommit=True)) as connection:
        witness = Witness(connection)
        async with running_daemon(fleet.sites["north"].config) as daemon:
            await daemon.until_event("ready")
            await witness.until_two([])
            for round_ in (1, 2):
                async with watched_over_http(daemon):
                    fleet.put(150, first=150 * (round_ - 1))
                    while len(daemon.named("file_archived")) < 150 * round_:
                        witness.look()
                        await asyncio.sleep(0.01)
                    await pause(round_)
                assert {*witness.seen} == {("tablefeed north",) * 2}
                [ended] = witness.pids()
                fleet.ask(f"SELECT pg_terminate_backend({ended})")
                await witness.until_two([ended])
            assert await daemon.end() == 0
    fleet.assert_clean(300)
