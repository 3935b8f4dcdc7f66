"""`/healthz` and `/readyz` of the real daemon: what a restart helps, and what it does not."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from support.ailing_daemon import started
from support.daemon import Daemon, Site, rename_in, running_daemon
from support.disks import Broken, small
from support.patience import PATIENCE
from support.stores import Server, serving, take_all

NO_ANSWER = (0, None)


class Probe:
    """Asks a daemon for its health, as a kubelet does: over a new connection each time."""

    def __init__(self, base: str) -> None:
        self._base = base

    async def __call__(self, path: str, patience: float = 1.0) -> tuple[int, Any]:
        """Status and answer; `NO_ANSWER` when none came within `patience` seconds."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=patience)) as session:
            try:
                async with session.get(self._base + path) as answer:
                    is_json = answer.content_type == "application/json"
                    return answer.status, await (answer.json() if is_json else answer.text())
            except TimeoutError:
                return NO_ANSWER

    async def until(self, path: str, condition: Callable[[int, Any], object]) -> Any:
        """The first answer that fulfils the condition."""
        async with asyncio.timeout(PATIENCE):
            while not condition(*(answer := await self(path, 10.0))):
                await asyncio.sleep(0.02)
        return answer[1]


@asynccontextmanager
async def probed(site: Site, **how: Any) -> AsyncIterator[tuple[Daemon, Probe]]:
    """A daemon that has started, and what asks it."""
    site.sections["http"] = {"listen": "127.0.0.1:0"}
    async with running_daemon(site.config, **how) as daemon:
        await daemon.until_event("started")
        yield daemon, Probe(f"http://{daemon.named('started')[0]['http']}")


async def test_a_stopped_daemon_does_not_answer_and_is_well_when_it_goes_on(site: Site) -> None:
    """However long it was stopped, it is asked at once afterwards and not killed."""
    site.feed("orders")
    async with probed(site) as (daemon, probe):
        await daemon.until_event("ready")
        assert (await probe("/healthz"))[0] == 200
        daemon.process.send_signal(signal.SIGSTOP)
        assert await probe("/healthz") == NO_ANSWER
        daemon.process.send_signal(signal.SIGCONT)
        for _ in range(5):
            assert (await probe("/healthz"))[0] == 200
        assert await daemon.end() == 0


async def test_a_loop_that_is_blocked_again_and_again_is_ill_until_it_turns_again(site: Site, tmp_path: Path) -> None:
    """One block is none; most of the window is one, and is told with its length; then it is well by itself."""
    site.feed("orders")
    async with probed(site, **started(tmp_path / "cue")) as (daemon, probe):
        await daemon.until_event("ready")
        assert await probe.until("/healthz", lambda status, _: status == 200) == "ok\n"
        daemon.process.send_signal(signal.SIGUSR1)
        assert (await probe("/healthz", 5.0))[0] == 200
        ill = None
        for _ in range(40):
            daemon.process.send_signal(signal.SIGUSR1)
            status, said = await probe("/healthz", 5.0)
            if status == 503:
                ill = said
                break
            await asyncio.sleep(0.1)
        assert ill is not None
        assert ill["alive"] is False
        assert "the event loop was blocked" in ill["problems"][0]
        await probe.until("/healthz", lambda status, _: status == 200)
        assert await daemon.end() == 0


async def test_an_intake_that_has_ended_is_told(site: Site, tmp_path: Path) -> None:
    """Nothing else would show that a feed takes no more files in."""
    site.feed("orders")
    cue = tmp_path / "cue"
    async with probed(site, **started(cue)) as (daemon, probe):
        await daemon.until_event("ready")
        assert (await probe("/healthz"))[0] == 200
        cue.touch()
        said = await probe.until("/healthz", lambda status, _: status == 503)
        assert "feed orders" in said["problems"][0]
        assert await daemon.end() == 0


async def test_a_directory_that_is_away_makes_the_daemon_unready_and_not_ill(site: Site) -> None:
    """A restart would not bring it back; when it is there, all is well by itself."""
    drop = site.feed("orders")
    drop.rmdir()
    site.sections["watch"] = {"rescan": "1s"}
    async with probed(site) as (daemon, probe):
        said = await probe.until("/readyz", lambda status, said: status == 503 and "exist" in str(said))
        assert "orders" in said["problems"][0]
        assert (await probe("/healthz"))[0] == 200
        drop.mkdir()
        await probe.until("/readyz", lambda status, _: status == 200)
        assert await daemon.end() == 0


async def test_a_daemon_that_drains_is_not_ready_and_is_not_killed(tmp_path: Path) -> None:
    """Until its uploads have ended it answers both probes."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        if request.method == "PUT":
            arrived.set()
            await go_on.wait()
        return await server(request)

    server = Server(take_all)
    async with serving(slow) as origin:
        site = Site(tmp_path, origin)
        rename_in(site.feed("orders", dataset_id="d"), "a.csv", b"x")
        async with probed(site) as (daemon, probe):
            await arrived.wait()
            await probe.until("/readyz", lambda status, _: status == 200)
            daemon.process.send_signal(signal.SIGTERM)
            await daemon.until_event("draining")
            assert await probe("/readyz") == (503, {"ready": False, "problems": ["the daemon is ending"]})
            assert (await probe("/healthz"))[0] == 200
            go_on.set()
            assert await daemon.death() == 0
    assert len(server.objects) == 1


async def test_a_ledger_that_hangs_or_fails_makes_the_daemon_unready(site: Site, tmp_path: Path) -> None:
    """Its disk answers nothing, or fsync fails: both are told in words, metrics are told all the same, and it mends."""
    site.ledger_directory = tmp_path / "ledger"
    site.ledger_directory.mkdir()
    disk = Broken(site.ledger_directory, tmp_path)
    drop = site.feed("orders")
    async with probed(site, environ=disk.environ) as (daemon, probe):
        await probe.until("/readyz", lambda status, _: status == 200)
        for spoil, words in ((disk.fail, "the ledger cannot be written"), (disk.hang, "the ledger does not answer")):
            spoil()
            rename_in(drop, f"{spoil.__name__}.csv", b"x")
            said = await probe.until("/readyz", lambda status, _: status == 503)
            assert words in said["problems"][0]
            assert (await probe("/healthz"))[0] == 200
            status, text = await probe("/metrics", 10.0)
            assert status == 200
            assert ("tablefeed_ledger_writable 0.0" in text) is (spoil == disk.fail)
            disk.mend()
            await probe.until("/readyz", lambda status, _: status == 200)
        await daemon.until_event("file_archived", 2)
        assert await daemon.end() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk to fill")
async def test_a_full_disk_of_the_ledger_makes_the_daemon_unready(site: Site, tmp_path: Path) -> None:
    """Although what it asks the ledger can still be read."""
    site.ledger_directory = tmp_path / "ledger"
    drop = site.feed("orders")
    with small(site.ledger_directory, 4) as disk:
        async with probed(site) as (daemon, probe):
            await probe.until("/readyz", lambda status, _: status == 200)
            disk.fail()
            rename_in(drop, "a.csv", b"x")
            said = await probe.until("/readyz", lambda status, _: status == 503)
            assert "free space" in said["problems"][0]
            disk.mend()
            await probe.until("/readyz", lambda status, _: status == 200)
            await daemon.until_event("file_archived")
            assert await daemon.end() == 0
