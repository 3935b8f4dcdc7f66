"""What `/api/status` of the real daemon tells: counts, uploads in flight, and each kind of trouble in words."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from support.daemon import Daemon, Site, command, rename_in, running_daemon
from support.patience import PATIENCE
from support.stores import Server, serving, take_all
from tablefeed.sandbox.server import RunningSandbox


@asynccontextmanager
async def watched(site: Site) -> AsyncIterator[tuple[Daemon, Callable[[], Any]]]:
    """A daemon that is ready, and what asks it for its status."""
    site.sections["http"] = {"listen": "127.0.0.1:0"}
    async with running_daemon(site.config) as daemon, aiohttp.ClientSession() as session:
        await daemon.until_event("ready")
        [started] = daemon.named("started")

        async def status() -> Any:
            async with session.get(f"http://{started['http']}/api/status") as response:
                assert response.status == 200
                return await response.json()

        yield daemon, status


async def eventually(status: Callable[[], Any], condition: Callable[[Any], object]) -> Any:
    """The first status that fulfils the condition."""
    async with asyncio.timeout(PATIENCE):
        while not condition(shown := await status()):
            await asyncio.sleep(0.05)
    return shown


def feed_of(shown: Any, name: str) -> Any:
    return next(feed for feed in shown["feeds"] if feed["name"] == name)


async def test_what_was_delivered_is_counted_also_over_a_restart(site: Site) -> None:
    """Today's files and bytes, the last hour, the last delivery and arrival; nothing twice."""
    drop = site.feed("orders")
    site.feed("idle")
    for n in range(3):
        rename_in(drop, f"{n}.csv", b"x" * 100)
    async with watched(site) as (daemon, status):
        await daemon.until_event("file_archived", 3)
        shown = await eventually(status, lambda it: it["totals"]["archiving"] == 0 and it["totals"]["uploading"] == 0)
        orders = feed_of(shown, "orders")
        assert (orders["delivered_today"], orders["bytes_today"], orders["queued"]) == (3, 300, 0)
        assert orders["last_delivery_at"] >= shown["started_at"]
        assert orders["last_arrival_at"] >= shown["started_at"]
        assert sum(minute["files"] for minute in shown["hour"]) == 3
        assert (shown["ok"], shown["headline"]) == (True, "all is well")
        idle = feed_of(shown, "idle")
        assert (idle["state"], idle["delivered_today"], idle["last_delivery_at"]) == ("ok", 0, None)
        await daemon.end()
    rename_in(drop, "3.csv", b"x" * 100)
    async with watched(site) as (daemon, status):
        await daemon.until_event("file_archived")
        shown = await eventually(status, lambda it: it["totals"]["delivered_today"] >= 4)
        assert shown["totals"] | {"last_delivery_at": None} == {
            "queued": 0, "queued_bytes": 0, "uploading": 0, "archiving": 0, "refused": 0,
            "delivered_today": 4, "bytes_today": 400, "last_delivery_at": None,
        }  # fmt: skip
        assert sum(minute["bytes"] for minute in shown["hour"]) == 400


async def test_an_upload_in_flight_is_shown_with_how_far_and_how_fast_it_is(tmp_path: Path) -> None:
    """And what waits behind it as queued or claimed."""
    half = asyncio.Event()
    go_on = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        if request.method == "PUT":
            await request.content.readexactly(300_000)
            half.set()
            await go_on.wait()
        return await server(request)

    server = Server(take_all)
    async with serving(slow) as origin:
        site = Site(tmp_path, origin)
        drop = site.feed("orders", dataset_id="d", concurrency=1)
        rename_in(drop, "big.csv", b"x" * 50_000_000)
        async with watched(site) as (daemon, status):
            await half.wait()
            shown = await eventually(status, lambda it: it["uploads"] and it["uploads"][0]["sent"])
            [upload] = shown["uploads"]
            assert (upload["feed"], upload["path"], upload["size"]) == ("orders", "big.csv", 50_000_000)
            assert 0 < upload["sent"] < 50_000_000
            assert upload["rate"] > 0
            assert shown["started_at"] <= upload["started_at"] <= shown["now"]
            assert feed_of(shown, "orders")["uploading"] == 1
            go_on.set()
            await daemon.end()


async def test_each_kind_of_trouble_says_why_since_when_and_what_to_do(site: Site, sandbox: RunningSandbox) -> None:
    """A datatable that nobody knows, a directory that is away, files that stay out, a file that was refused."""
    rename_in(site.feed("lost", datatable_id="no-such-table"), "a.csv", b"x")
    away = site.feed("away")
    away.rmdir()
    site.feed("silent", expect_every="500ms")
    site.sections["upload"] = {"max_size": "10B"}
    rename_in(site.feed("large"), "large.csv", b"x" * 11)
    async with watched(site) as (_, status):
        shown = await eventually(
            status,
            lambda it: (
                feed_of(it, "lost")["state"] == "blocked"
                and feed_of(it, "silent")["state"] == "stale"
                and feed_of(it, "large")["refused"] == 1
            ),
        )
        assert not shown["ok"]
        assert shown["headline"] == (
            "directory unusable: away; blocked: lost; no file for too long: silent; 1 file refused"
        )
        [lost] = feed_of(shown, "lost")["troubles"]
        assert lost["kind"] == "delivery"
        assert "no-such-table" in lost["reason"] or "datatable" in lost["reason"]
        assert lost["remedy"]
        assert shown["started_at"] <= lost["since"] <= shown["now"]
        [gone] = feed_of(shown, "away")["troubles"]
        assert str(away) in gone["reason"]
        assert (gone["kind"], bool(gone["remedy"])) == ("directory", True)
        [stale] = feed_of(shown, "silent")["troubles"]
        assert (stale["kind"], "expect_every (500ms)" in stale["reason"]) == ("stale", True)
        assert feed_of(shown, "silent")["expect_every"] == 0.5
        by_name = {file["path"]: file for file in shown["files"]}
        assert by_name["large.csv"]["state"] == "rejected"
        assert "max_size" in by_name["large.csv"]["reason"]
        assert by_name["large.csv"]["next_try_at"] is None
        assert by_name["a.csv"]["next_try_at"] is not None


async def test_a_server_that_fails_is_shown_with_the_feeds_that_wait_for_it(tmp_path: Path) -> None:
    """And what becomes of it when it works again."""
    up = False

    async def sometimes(request: web.Request) -> web.StreamResponse:
        return await server(request) if up else web.Response(status=503, text="maintenance")

    server = Server(take_all)
    async with serving(sometimes) as origin:
        site = Site(tmp_path, origin)
        drop = site.feed("orders", dataset_id="d")
        for n in range(4):
            rename_in(drop, f"{n}.csv", b"x")
        async with watched(site) as (daemon, status):
            shown = await eventually(status, lambda it: it["servers"])
            [failing] = shown["servers"]
            assert (failing["origin"], failing["feeds"]) == (origin, ["orders"])
            assert "503" in failing["reason"]
            orders = feed_of(shown, "orders")
            assert (orders["state"], orders["troubles"][0]["kind"]) == ("waiting", "server")
            up = True
            await daemon.until_event("file_archived", 4)
            shown = await eventually(status, lambda it: it["ok"])
            assert (shown["servers"], feed_of(shown, "orders")["troubles"]) == ([], [])


async def test_a_paused_feed_takes_files_in_and_sends_none_until_it_goes_on(site: Site) -> None:
    """The pause outlasts a restart, and `--once` says why it left the files."""
    drop, other = site.feed("orders"), site.feed("other")
    async with watched(site) as (daemon, _):
        await daemon.end()
    with closing(sqlite3.connect(site.ledger)) as ledger, ledger:
        ledger.execute("UPDATE feeds SET paused_at = ? WHERE name = 'orders'", (round(time.time() * 1000),))
    rename_in(drop, "a.csv", b"x")
    rename_in(other, "b.csv", b"x")
    async with watched(site) as (daemon, status):
        await daemon.until_event("file_archived")
        shown = await eventually(status, lambda it: feed_of(it, "orders")["queued"] == 1)
        assert (feed_of(shown, "orders")["state"], shown["ok"]) == ("paused", True)
        assert feed_of(shown, "orders")["paused_at"]
        assert [event["feed"] for event in daemon.named("feed_still_paused")] == ["orders"]
        await daemon.end()
    code, _, log = await command("run", "--once", "--config", str(site.config))
    assert code == 1
    assert "somebody has paused its feed" in log
    assert site.dropped("orders") == {"a.csv"}
    with closing(sqlite3.connect(site.ledger)) as ledger, ledger:
        ledger.execute("UPDATE feeds SET paused_at = NULL")
    code, _, _ = await command("run", "--once", "--config", str(site.config))
    assert code == 0
    assert list(site.archived("orders")) == ["a.csv"]
