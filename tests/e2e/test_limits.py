"""The limits that the whole daemon keeps: uploads at a time, and bytes a second."""

import asyncio
import math
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from support.daemon import Site, contents, running_daemon
from support.patience import PATIENCE
from support.stores import Server, serving, take_all

MIB = 2**20


class Counting(Server):
    """A store that knows what is under way, and keeps all of it waiting until it is opened."""

    def __init__(self) -> None:
        super().__init__(take_all)
        self.now: Counter[str] = Counter()
        self.peaks: Counter[str] = Counter()
        self.news = asyncio.Event()
        self.open = asyncio.Event()

    async def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Wait until something holds after a request. Raises TimeoutError."""
        async with asyncio.timeout(patience):
            while not condition():
                self.news.clear()
                await self.news.wait()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            self.news.set()
            return await super().__call__(request)
        feed = self.names[int(request.path.rpartition("/")[2]) - 1].partition("-")[0]
        for name in (feed, "all"):
            self.now[name] += 1
            self.peaks[name] = max(self.peaks[name], self.now[name])
        self.news.set()
        try:
            await self.open.wait()
            return await super().__call__(request)
        finally:
            for name in (feed, "all"):
                self.now[name] -= 1


class Metering(Server):
    """A store that notes when bytes come."""

    def __init__(self) -> None:
        super().__init__(take_all)
        self.arrivals: list[tuple[float, int]] = []
        self.news = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return await super().__call__(request)
        body = bytearray()
        async for piece in request.content.iter_any():
            body += piece
            self.arrivals.append((time.monotonic(), len(piece)))
            self.news.set()
        return self.take(request, bytes(body))

    def since(self, moment: float, seconds: float = math.inf) -> int:
        """Bytes that came within so many seconds after a moment."""
        return sum(size for at, size in self.arrivals if moment <= at < moment + seconds)

    async def until(self, received: int, since: float = 0.0) -> None:
        """Wait until so many bytes have come since a moment."""
        async with asyncio.timeout(PATIENCE):
            while self.since(since) < received:
                self.news.clear()
                await self.news.wait()

    async def until_passed(self, moment: float) -> None:
        """Wait until bytes come after a moment."""
        async with asyncio.timeout(PATIENCE):
            while not self.arrivals or self.arrivals[-1][0] < moment:
                self.news.clear()
                await self.news.wait()


async def test_the_store_never_sees_more_uploads_than_the_limits_allow(tmp_path: Path) -> None:
    """The limit of all feeds and that of one hold at the server, while further files have their URLs already."""
    store = Counting()
    async with serving(store) as origin:
        site = Site(tmp_path, origin)
        site.sections["upload"] = {"concurrency": 4}
        one, many = (site.feed(name, dataset_id="dataset-1", concurrency=n) for name, n in (("one", 1), ("many", 0)))
        for number in range(8):
            (one / f"one-{number}.csv").write_text(f"one {number}")
        async with running_daemon(site.config) as daemon:
            await store.until(lambda: store.grants >= 2 and store.now["one"] >= 1)
            for number in range(8):
                (many / f"many-{number}.csv").write_text(f"many {number}")
            await store.until(lambda: store.now["all"] >= 4)
            with pytest.raises(TimeoutError):
                await store.until(lambda: store.now["all"] > 4 or store.now["one"] > 1, patience=0.5)
            store.open.set()
            await daemon.until_event("file_archived", 16)
            assert await daemon.end() == 0
    assert store.peaks["all"] == 4
    assert store.peaks["one"] == 1
    assert len(store.objects) == 16


async def reload(site: Site, process: asyncio.subprocess.Process, bandwidth: object) -> float:
    """Write another bandwidth and have it read; when that was asked for."""
    site.sections["upload"]["bandwidth"] = bandwidth
    assert site.config.exists()
    process.send_signal(signal.SIGHUP)
    return time.monotonic()


@pytest.mark.alone
async def test_a_reload_changes_the_bandwidth_of_uploads_under_way(tmp_path: Path) -> None:
    """Within a second of SIGHUP they go at the new rate, faster and slower; no restart is asked for."""
    store = Metering()
    async with serving(store) as origin:
        site = Site(tmp_path, origin)
        site.sections["upload"] = {"bandwidth": "64KiB/s"}
        orders = site.feed("orders", dataset_id="dataset-1")
        for number in range(4):
            (orders / f"{number}.csv").write_bytes(b"%d" % number * (6 * MIB))
        async with running_daemon(site.config) as daemon:
            await store.until(received=64 * 2**10)
            assert store.since(0) < MIB / 2
            asked = await reload(site, daemon.process, "6MiB/s")
            await store.until_passed(asked + 3)
            assert 0.5 < store.since(asked + 1, seconds=2) / (12 * MIB) < 1.1
            slower = await reload(site, daemon.process, [["00:00", "128KiB/s"], ["12:00", "128KiB/s"]])
            await store.until_passed(slower + 2)
            assert store.since(slower + 1, seconds=1) < 0.25 * MIB
            await reload(site, daemon.process, "")
            await daemon.until_event("file_archived", 4)
            assert await daemon.end() == 0
        assert daemon.named("reload_partial") == []
        limits = [event["limit"] for event in daemon.named("bandwidth_limit")]
        assert limits == ["64KiB/s", "6MiB/s", "128KiB/s", "none"]
        assert sorted(site.archived("orders").values()) == [body for _, body in store.sent()]


async def test_uploads_that_the_limit_holds_back_do_not_hold_up_the_end(tmp_path: Path) -> None:
    """After the grace they are cut off at once, and a restart without the limit delivers them."""
    store = Metering()
    async with serving(store) as origin:
        site = Site(tmp_path, origin)
        site.sections |= {"upload": {}, "service": {"shutdown_grace": "200ms"}}
        orders = site.feed("orders", dataset_id="dataset-1")
        for number in range(6):
            (orders / f"{number}.csv").write_bytes(b"%d" % number * MIB)
        environ = {"TABLEFEED_UPLOAD__BANDWIDTH": '[["00:00", "4KiB/s"], ["12:00", "4KiB/s"]]'}
        async with running_daemon(site.config, environ=environ) as daemon:
            await store.until(received=4 * 2**10)
            assert await daemon.end() == 0
            assert len(daemon.named("uploads_cut_off")) == 1
        async with running_daemon(site.config, "--once") as daemon:
            assert await daemon.death() == 0
    assert contents(orders / "archive") == dict(store.sent())
