import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.daemon import KEY, Site
from support.patience import PATIENCE
from support.postgres import Postgres
from tablefeed.config import load
from tablefeed.errors import Exit, LedgerUnusable
from tablefeed.ledger import Ledger
from tablefeed.sandbox.server import SandboxSettings, running
from tablefeed.service import Service, read_keys


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with running(SandboxSettings(tmp_path / "processmind", KEY)) as sandbox:
        site = Site(tmp_path, sandbox.base_url)
        site.feed("orders")
        settings = load(site.config, {})
        yield Service(settings, {}, read_keys(settings, {}))


async def damaged(*_: object) -> None:
    raise LedgerUnusable("the ledger is damaged", "Move it aside")


async def test_a_ledger_that_breaks_while_the_daemon_runs_ends_it_with_its_own_error(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one task raises reaches the command as it is, so that it becomes one line and an exit code."""
    monkeypatch.setattr(Ledger, "claim", damaged)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(LedgerUnusable, match="damaged"):
            await service.serve()


async def test_a_ledger_that_breaks_during_a_pass_ends_it_with_its_own_error(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for `--once`, whose parts are other ones."""
    monkeypatch.setattr(Ledger, "counts", damaged)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(LedgerUnusable, match="damaged"):
            await service.deliver_once()


async def test_a_pass_cleans_a_shared_archive(tmp_path: Path, postgres: Postgres) -> None:
    """Of nodes that are started by cron alone, no daemon would do it."""
    url = postgres.database()
    async with running(SandboxSettings(tmp_path / "processmind", KEY)) as sandbox:
        site = Site(tmp_path, sandbox.base_url, url=url)
        (site.feed("orders", shared=True, archive_keep="1d") / "a.csv").write_text("1")
        settings = load(site.config, {})
        for archived in ({"a.csv": b"1"}, {}):
            left = await Service(settings, {}, read_keys(settings, {})).deliver_once()
            assert (left.exit_code, site.archived("orders")) == (Exit.DONE, archived)
            postgres.execute(url.rpartition("/")[2], "UPDATE files SET closed_at = 1")


async def test_a_signal_ends_a_daemon_that_has_nothing_to_do(service: Service) -> None:
    """At once, and with the ledger free for the next one."""
    serving = asyncio.create_task(service.serve())
    while not any(task.get_name() == "dispatcher" for task in asyncio.all_tasks()):
        await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        await serving
