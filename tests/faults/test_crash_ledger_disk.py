"""The ledger's disk is full, or does not keep what is written: nothing is lost, and all goes on once it is well."""

import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from random import Random

import aiohttp
import pytest
import sqlalchemy as sa

from faults.books import Books, unfinished
from support.daemon import KEY, Daemon, Site, running_daemon
from support.disks import Broken, Small, small
from tablefeed.errors import Exit
from tablefeed.ledger import engine
from tablefeed.sandbox.objects import StoredObject
from tablefeed.sandbox.server import SandboxSettings, running


@dataclass
class Trouble:
    """A disk that can fail, a site whose ledger lies on it, and what was dropped there."""

    disk: Broken | Small
    site: Site
    books: Books
    environ: dict[str, str]
    work: Path

    def drop(self, name: str, size: int = 3_000) -> None:
        """Another file, note taken."""
        content = Random(name).randbytes(size)
        self.books.note("orders", name, content)
        (self.work / "drop" / "orders" / name).write_bytes(content)

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[Daemon]:
        """The daemon, with that disk."""
        async with running_daemon(self.site.config, environ=self.environ) as daemon:
            yield daemon

    @asynccontextmanager
    async def sandbox(self, fails_at: int = 0) -> AsyncIterator[list[str]]:
        """API and store; the disk fails when the nth object is there. Gives the keys of all PUTs."""
        puts: list[str] = []

        def note(stored: StoredObject) -> None:
            puts.append(stored.key)
            if len(puts) == fails_at:
                self.disk.fail()

        async with running(SandboxSettings(self.work / "processmind", KEY), on_object=note) as sandbox:
            self.site.base_url = sandbox.base_url
            yield puts

    async def deliver_the_rest(self) -> None:
        """A daemon that nothing disturbs, until all has arrived."""
        async with self.daemon() as daemon:
            await daemon.until_event("ready")
            await daemon.until(lambda: not unfinished(self.site))
            assert await daemon.end() == 0

    def audit(self) -> str:
        """What the books say."""
        return str(self.books.audit(self.site, self.work / "processmind" / "objects"))


@pytest.fixture(params=["full", "fsync fails"])
def trouble(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Trouble]:
    site = Site(tmp_path, "")
    site.feed("orders", dataset_id="dataset-1")
    site.ledger_directory = tmp_path / "ledger"
    if request.param == "full":
        with small(site.ledger_directory, 4) as disk:
            yield Trouble(disk, site, Books(), {}, tmp_path)
    else:
        site.ledger_directory.mkdir()
        broken = Broken(site.ledger_directory, tmp_path)
        yield Trouble(broken, site, Books(), broken.environ, tmp_path)


async def test_a_delivery_that_cannot_be_recorded_is_not_moved(trouble: Trouble) -> None:
    """The disk fails after the store's 2xx: the file stays until that is recorded, and is sent once."""
    async with trouble.sandbox(fails_at=3) as puts:
        for n in range(12):
            trouble.drop(f"{n}.csv")
        async with trouble.daemon() as daemon:
            await daemon.until_event("ledger_unwritable")
            archived = len(trouble.site.archived("orders"))
            recorded = trouble.site.rows("SELECT count(*) AS n FROM files WHERE md5 IS NOT NULL")[0]["n"]
            assert archived <= recorded < 12
            trouble.disk.mend()
            await daemon.until_event("file_archived", 12)
            assert await daemon.end() == 0
    assert len(puts) == 12
    assert trouble.audit() == "the books are clean"


async def test_a_broken_ledger_is_told_once(trouble: Trouble) -> None:
    """Files go on coming while it can be read and not written: one line says so, and one that it can be again."""
    trouble.site.sections["http"] = {"listen": "127.0.0.1:0"}
    async with trouble.sandbox(), trouble.daemon() as daemon, aiohttp.ClientSession() as session:
        trouble.drop("before.csv")
        await daemon.until_event("file_archived")
        trouble.disk.fail()
        for n in range(40):
            trouble.drop(f"{n}.csv")
        await daemon.until_event("ledger_unwritable")
        ready = f"http://{daemon.named('started')[0]['http']}/readyz"
        for _ in range(2):  # what is asked there is read from the ledger, which still works
            async with session.get(ready) as response:
                await response.read()
        assert daemon.named("ledger_writable_again") == []
        trouble.disk.mend()
        await daemon.until_event("file_archived", 41)
        assert await daemon.end() == 0
    assert len(daemon.named("ledger_unwritable")) == 1
    assert len(daemon.named("ledger_writable_again")) == 1
    assert trouble.audit() == "the books are clean"


async def test_a_daemon_that_is_killed_while_the_ledger_is_broken_goes_on_later(trouble: Trouble) -> None:
    """A start on a broken disk is refused with the remedy; the next one on a good disk makes no second object."""
    async with trouble.sandbox(fails_at=1):
        for n in range(12):
            trouble.drop(f"{n}.csv")
        async with trouble.daemon() as daemon:
            await daemon.until_event("ledger_unwritable")
            assert await daemon.end(signal.SIGKILL) == -signal.SIGKILL
        async with trouble.daemon() as refused:
            assert await refused.death() == Exit.CANNOT_CREATE, refused.log
        assert "ledger.db" in refused.log
        assert "Traceback" not in refused.log
        trouble.disk.mend()
        await trouble.deliver_the_rest()
    assert trouble.audit() == "the books are clean"


async def test_sigterm_ends_a_daemon_whose_ledger_is_broken(trouble: Trouble) -> None:
    """It cannot record what it has begun, says so, and ends; the next start goes on."""
    trouble.site.sections["service"] = {"shutdown_grace": "1s"}
    async with trouble.sandbox(fails_at=1):
        for n in range(12):
            trouble.drop(f"{n}.csv")
        async with trouble.daemon() as daemon:
            await daemon.until_event("ledger_unwritable")
            assert await daemon.end(patience=30) == 0, daemon.log
        trouble.disk.mend()
        await trouble.deliver_the_rest()
    assert trouble.audit() == "the books are clean"


async def test_a_first_start_on_a_broken_disk_says_why_it_cannot_be(trouble: Trouble) -> None:
    """One line with the ledger's name and the remedy, and the exit code for it; later it starts."""
    trouble.site.sections["log"] = {"level": "warning"}
    trouble.disk.fail()
    async with trouble.sandbox():
        trouble.drop("a.csv")
        async with trouble.daemon() as refused:
            assert await refused.death() == Exit.CANNOT_CREATE, refused.log
        assert refused.log.count("\n") == 1
        assert str(trouble.site.ledger) in refused.log
        trouble.site.sections["log"] = {"level": "info"}
        trouble.disk.mend()
        await trouble.deliver_the_rest()
    assert trouble.audit() == "the books are clean"


def test_a_journal_that_cannot_be_emptied_leaves_the_ledger_usable(tmp_path: Path) -> None:
    """After a checkpoint that failed the next transition begins like any other."""
    with closing(engine.connect(f"sqlite:///{tmp_path / 'ledger.db'}")) as connection:
        raw = connection.connection.dbapi_connection
        assert isinstance(raw, sqlite3.Connection)
        raw.set_authorizer(lambda action, *_: sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_PRAGMA else 0)
        with pytest.raises(sa.exc.DatabaseError):
            engine.empty_journal(connection)
        raw.set_authorizer(None)
        with connection.begin():
            assert connection.execute(sa.text("SELECT 1")).scalar() == 1
