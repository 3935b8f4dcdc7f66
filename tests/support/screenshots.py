"""Pictures of the page for the documentation: the real daemon in front of a store that takes its time.

`make screenshots` runs this. What is of this machine alone, its name and its directories, is shown under other names.
"""

import asyncio
import json
import random
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from playwright.async_api import Browser, Page, expect

from support.browser import CHROMIUM, opened, started
from support.daemon import Site, running_daemon
from support.stores import serving

DOCS = Path(__file__).parents[2] / "docs"
WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 360, "height": 1120}
_RATES = {"goods-receipts": 1.3e6, "invoices": 0.9e6, "purchase-orders": 0.6e6}
"""Bytes a second that the store takes of each file, by feed."""


class SlowStore:
    """API and store in one, which takes each feed's files at a pace of their own."""

    def __init__(self) -> None:
        self._names: list[str] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            if "/datatable/nonesuch/" in request.path:
                return web.json_response({"message": "there is no such datatable"}, status=404)
            self._names.append(request.query["filename"])
            url = f"http://{request.host}/object/{len(self._names)}?Expires={round(time.time()) + 3600}&Signature=s1g"
            return web.json_response({"PreSignedUploadUrl": url})
        name = self._names[int(request.path.rpartition("/")[2]) - 1]
        rate = next((rate for feed, rate in _RATES.items() if name.startswith(feed)), 1e6)
        async for piece in request.content.iter_chunked(2**16):
            await asyncio.sleep(len(piece) / rate)
        return web.Response()


def export(path: Path, size: int) -> None:
    """A file of nothing, which takes no room."""
    with path.open("wb") as file:
        file.truncate(size)


def remember(site: Site, now: float) -> None:
    """Deliveries of the last hour and of today, as if the daemon had made them."""
    chance = random.Random(7)
    rows = []
    feeds = ["purchase-orders", "invoices", "goods-receipts"]
    for number in range(64):
        at = now - 3590 + number * 55 + chance.uniform(0, 20)
        if 1500 < now - at < 2000:
            continue
        feed = chance.choices(feeds, (3, 2, 1))[0]
        stamp = time.strftime("%Y-%m-%d-%H%M", time.localtime(at))
        size = round(chance.lognormvariate(14.2, 0.9))
        rows.append(
            (feed, f"{feed}-{stamp}.csv", number + 1, size, round(at * 1000), f"{chance.getrandbits(128):032x}")
        )
    with sqlite3.connect(site.ledger) as raw:
        raw.executemany(
            "INSERT INTO files (feed, path, device, inode, size, mtime_ns, state, queued_at, due_at, closed_at, "
            "attempts, left_in_place, md5, etag, verified, status, request_id, origin, started_at, finished_at, "
            "destination) VALUES (:1, :2, 1, :3, :4, :3, 'archived', :5, :5, :5 + 900, 0, 0, :6, '\"' || :6 || '\"', "
            "1, 200, '4f1d9a', 'https://store.example', :5 + 20, :5 + 870, '/srv/exports/' || :1 || '/archive/' || :2)",
            [{str(n): value for n, value in enumerate(row, 1)} for row in rows],
        )
        raw.execute(
            "UPDATE feeds SET arrived_at = (SELECT max(queued_at) FROM files WHERE feed = name), "
            "delivered_at = (SELECT max(finished_at) FROM files WHERE feed = name)"
        )


@asynccontextmanager
async def scene(directory: Path, *, trouble: bool) -> AsyncIterator[str]:
    """A daemon at work, with trouble or without; gives its address."""
    async with serving(SlowStore()) as origin:
        site = Site(directory, origin)
        token = directory / "token"
        token.write_text("a-token-that-nobody-guesses")
        token.chmod(0o600)
        site.sections["http"] = {"listen": "127.0.0.1:0", "token_file": str(token)}
        site.sections["upload"] = {"max_size": "200MiB"}
        ids = {"dataset_id": "dataset-1"}
        drops = {
            "purchase-orders": site.feed("purchase-orders", concurrency=2, **ids),
            "invoices": site.feed("invoices", datatable_id="table-457", expect_every="26h", **ids),
            "goods-receipts": site.feed("goods-receipts", datatable_id="table-458", **ids),
        }
        if trouble:
            drops["payments"] = site.feed("payments", datatable_id="nonesuch", **ids)
            drops["vendors"] = site.feed("vendors", datatable_id="table-459", expect_every="1h", **ids)
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("ready")
            assert await daemon.end() == 0
        remember(site, time.time())
        if trouble:
            with sqlite3.connect(site.ledger) as raw:
                late = round((time.time() - 3 * 3600) * 1000)
                raw.execute("UPDATE feeds SET arrived_at = ?, delivered_at = ? WHERE name = 'vendors'", (late, late))
        stamp = time.strftime("%Y-%m-%d")
        for feed, count in (("purchase-orders", 3), ("invoices", 1), ("goods-receipts", 1)):
            for number in range(count):
                export(drops[feed] / f"{feed}-{stamp}-{number + 41:03}.csv", (96 + 23 * number) * 2**20)
        if trouble:
            (drops["payments"] / f"payments-{stamp}-001.csv").write_bytes(b"x" * 210_000)
            export(drops["purchase-orders"] / f"purchase-orders-{stamp}-full-year.csv", 412 * 2**20)
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("ready")
            if trouble:
                await daemon.until_event("file_rejected")
                await daemon.until_event("feed_paused")
                await daemon.until_event("feed_stale")
            yield daemon.named("started")[0]["http"]
            daemon.process.kill()


def disguise(directory: Path) -> str:
    """A script that shows this machine's names as others."""
    names = {
        str(directory / "drop"): "/srv/exports",
        f'"{socket.gethostname()}"': '"etl-01"',
        "127.0.0.1": "store.example",
    }
    return f"""
        const names = {json.dumps(names)};
        const parse = JSON.parse;
        JSON.parse = (text) => parse(Object.entries(names).reduce((all, [from, to]) => all.replaceAll(from, to), text));
        Response.prototype.json = async function () {{ return JSON.parse(await this.text()); }};
    """


async def picture(browser: Browser, address: str, directory: Path, name: str, **context: Any) -> None:
    """One picture."""
    async with opened(browser, address, **context) as page:
        await page.add_init_script(disguise(directory))
        await page.reload()
        await settled(page)
        path = DOCS / f"{name}.png"
        await page.screenshot(path=path)
        sys.stdout.write(f"docs/{path.name}: {path.stat().st_size // 1024} KiB\n")


async def settled(page: Page) -> None:
    """The uploads are as far as they get, and the history is there."""
    await expect(page.locator("#uploads li")).to_have_count(4)
    await expect(page.locator("#records tr.record").first).to_be_visible()
    await expect(page.locator("#uploads li").filter(has_text="left")).to_have_count(4, timeout=20_000)


async def main() -> None:
    """Make them all."""
    if CHROMIUM is None:
        sys.exit("Screenshots need Chromium. On Debian and Ubuntu: apt install chromium")
    DOCS.mkdir(exist_ok=True)
    async with started() as browser:
        for trouble in (False, True):
            with tempfile.TemporaryDirectory(prefix="tablefeed-") as made:
                directory = Path(made)
                async with scene(directory, trouble=trouble) as address:
                    name = "page-trouble" if trouble else "page"
                    for scheme, suffix in (("light", ""), ("dark", "-dark")):
                        await picture(browser, address, directory, name + suffix, viewport=WIDE, color_scheme=scheme)
                    scheme = "dark" if trouble else "light"
                    await picture(browser, address, directory, f"{name}-narrow", viewport=NARROW, color_scheme=scheme)


if __name__ == "__main__":
    asyncio.run(main())
