"""Several daemons on one ledger and one shared directory: each file goes once, whatever becomes of a daemon."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.daemon import KEY, Daemon, Site, contents, rename_in, running_daemon
from support.postgres import Postgres
from tablefeed.sandbox.server import RunningSandbox, SandboxSettings, running

pytestmark = [pytest.mark.timeout(300)]
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

    async def until_archived(self, count: int, patience: float = 60.0) -> None:
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


async def test_three_nodes_share_the_work(fleet: Fleet) -> None:
    """Each file is delivered once and archived once, and none does a fifth more or less than its share."""
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
