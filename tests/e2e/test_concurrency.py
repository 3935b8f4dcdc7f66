"""The number of uploads at a time, found by the real daemon at stores that take only so many well."""

import os
import signal
import statistics
from pathlib import Path

import aiohttp
import pytest

from support.crowded import Answer, Crowd, refusing, slower
from support.daemon import Site, running_daemon
from support.scrape import Scrape
from support.stores import Server, serving

MOST = 8
USUAL = 0.04


async def rate(root: Path, answer: Answer, concurrency: int | str, count: int) -> tuple[float, Crowd]:
    """Deliver so many small files: (files a second, as the store saw it, what the store saw)."""
    root.mkdir()
    crowd = Crowd(MOST, USUAL, answer)
    server = Server(crowd.put)
    async with serving(server) as origin:
        site = Site(root, origin, {"upload": {"concurrency": concurrency}, "log": {"level": "info"}})
        drop = site.feed("orders", dataset_id="dataset-1", settle="0s")
        for number in range(count):
            (drop / f"{number}.csv").write_text(f"content {number}")
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("file_delivered", count)
            assert await daemon.end() == 0
    assert len(server.objects) == count
    return count / crowd.seconds, crowd


@pytest.mark.parametrize("answer", [slower, refusing])
async def test_it_finds_the_number_that_a_store_takes(tmp_path: Path, answer: Answer) -> None:
    """Near it for most of the time, and faster than a number that is too low, and than one that is too high."""
    found, crowd = await rate(tmp_path / "auto", answer, "auto", 350)
    settled = crowd.seen[len(crowd.seen) // 2 :]
    assert MOST / 2 <= statistics.median(settled) <= 2 * MOST
    assert statistics.quantiles(settled, n=10)[-1] <= 2 * MOST
    low, _ = await rate(tmp_path / "low", answer, 1, 25)
    high, many = await rate(tmp_path / "high", answer, 64, 100)
    assert many.refused > MOST or max(many.seen) > 4 * MOST
    assert found > low
    assert found > high


async def test_the_number_is_shown_and_a_reload_changes_it(tmp_path: Path) -> None:
    """In the status, in a metric, and in the log once when it falls; a configured one holds at once."""
    crowd = Crowd(2, 0.02, refusing)
    server = Server(crowd.put)
    async with serving(server) as origin, aiohttp.ClientSession() as session:
        site = Site(tmp_path, origin, {"http": {"listen": "127.0.0.1:0"}})
        drop = site.feed("orders", dataset_id="dataset-1", settle="0s")
        for number in range(60):
            (drop / f"{number}.csv").write_text(f"content {number}")
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("file_archived", 60)
            [fallen] = daemon.named("concurrency_reduced")
            assert fallen["origin"] == origin
            page = f"http://{daemon.named('started')[0]['http']}"
            shown = await (await session.get(f"{page}/api/status")).json()
            assert shown["concurrency_source"] == "auto"
            assert shown["stores"] == [{"origin": origin, "concurrency": shown["concurrency"]}]
            assert 1 <= shown["concurrency"] <= 4
            told = Scrape(await (await session.get(f"{page}/metrics")).text())
            assert told.value("tablefeed_upload_limit") == shown["concurrency"]
            site.sections["upload"] = {"concurrency": 5}
            assert site.config.exists()
            os.kill(daemon.process.pid, signal.SIGHUP)
            await daemon.until_event("reloaded")
            shown = await (await session.get(f"{page}/api/status")).json()
            assert (shown["concurrency"], shown["concurrency_source"], shown["stores"]) == (5, "configuration", [])
            assert await daemon.end() == 0
