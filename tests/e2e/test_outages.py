"""Servers that fail: what passes is waited for, the same object is written again, and nothing is set aside."""

import asyncio
import time
from pathlib import Path
from typing import BinaryIO

import pytest
from aiohttp import web

from support.daemon import Site, contents, running_daemon
from support.stores import Server, serving


def drop(site: Site, count: int = 1) -> Path:
    orders = site.feed("orders", dataset_id="dataset-1")
    for n in range(count):
        (orders / f"{n:02}.csv").write_bytes(b"content %d" % n)
    return orders


async def test_retry_after_is_obeyed(tmp_path: Path) -> None:
    """A server that asks for two seconds is left alone for two seconds."""
    times: list[float] = []

    async def ask_first(server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
        times.append(time.monotonic())
        if len(times) == 1:
            return web.Response(status=429, headers={"Retry-After": "2"})
        return server.take(request, body)

    async with serving(Server(ask_first)) as origin:
        site = Site(tmp_path, origin)
        drop(site)
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("file_archived")
            assert await daemon.end() == 0
    assert times[1] - times[0] >= 2.0


async def test_a_file_that_changes_while_it_is_sent_is_sent_again_whole(tmp_path: Path) -> None:
    """The first delivery does not count; what lies in the archive is what the last object holds."""
    changed = asyncio.Event()

    async def change_first(server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
        if not changed.is_set():
            changed.set()
            with (tmp_path / "drop" / "orders" / "00.csv").open("ab") as file:
                file.write(b" and more")
        return server.take(request, body)

    server = Server(change_first)
    async with serving(server) as origin:
        site = Site(tmp_path, origin)
        drop(site)
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("file_archived")
            assert await daemon.end() == 0
    assert daemon.named("file_changed")
    assert len(daemon.named("file_delivered")) == 1
    assert site.archived("orders") == {"00.csv": b"content 0 and more"}
    assert server.objects["/object/2"] == b"content 0 and more"


async def test_a_file_that_is_touched_while_it_is_sent_goes_to_the_same_object(tmp_path: Path) -> None:
    """A `chmod` makes no other version: it is sent again to be sure, but no second object is made."""
    touched = asyncio.Event()

    async def touch_first(server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
        if not touched.is_set():
            touched.set()
            (tmp_path / "drop" / "orders" / "00.csv").chmod(0o600)
        return server.take(request, body)

    server = Server(touch_first)
    async with serving(server) as origin:
        site = Site(tmp_path, origin)
        drop(site)
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("file_archived")
            assert await daemon.end() == 0
    assert server.puts == ["/object/1", "/object/1"]


async def test_a_damaged_delivery_is_repeated(tmp_path: Path) -> None:
    """The ETag says that other bytes arrived: the file stays, and the next try counts."""

    async def damage_first(server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
        if len(server.puts) == 1:
            return server.take(request, body[:-1] + b"?")
        return server.take(request, body)

    server = Server(damage_first)
    async with serving(server) as origin:
        site = Site(tmp_path, origin)
        drop(site)
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("file_archived")
            assert await daemon.end() == 0
    assert server.objects == {"/object/1": b"content 0"}
    assert "damaged" in daemon.named("file_delayed")[0]["reason"]


async def test_one_file_that_the_store_refuses_is_set_aside_while_the_others_arrive(tmp_path: Path) -> None:
    """What may be the feed's fault or the file's is the file's once others get through: it lands in `failed/`."""

    async def refuse_one(server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
        if body == b"content 3":
            return web.Response(status=400, text="<Error><Code>InvalidArgument</Code></Error>")
        return server.take(request, body)

    server = Server(refuse_one)
    async with serving(server) as origin:
        site = Site(tmp_path, origin)
        orders = drop(site, 6)
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("file_archived", 5)
            n = 6
            while not daemon.named("file_rejected"):
                paused = len(daemon.named("feed_paused"))
                (orders / f"{n:02}.csv").write_bytes(b"content %d" % n)
                n += 1
                await daemon.until(
                    lambda paused=paused: len(daemon.named("feed_paused")) > paused or daemon.named("file_rejected")  # type: ignore[misc]
                )
            assert await daemon.end() == 0
    assert "03.csv" in contents(orders / "failed")
    assert "InvalidArgument" in contents(orders / "failed")["03.csv.error.json"].decode()


async def test_a_share_that_is_away_for_a_while_keeps_its_grants(tmp_path: Path) -> None:
    """The reply was lost and the directory went away: once it is back, the same object is written again."""
    orders = tmp_path / "drop" / "orders"

    async def lose_first(server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
        answer = server.take(request, body)
        if len(server.puts) == 1 and request.transport is not None:
            orders.rename(tmp_path / "away")
            request.transport.abort()
        return answer

    server = Server(lose_first)
    async with serving(server) as origin:
        site = Site(tmp_path, origin)
        drop(site)
        async with running_daemon(site.config) as daemon:
            await daemon.until(lambda: any("mounted" in event["reason"] for event in daemon.named("file_delayed")))
            (tmp_path / "away").rename(orders)
            await daemon.until_event("file_archived")
            assert await daemon.end() == 0
    assert set(server.puts) == {"/object/1"}
    assert server.grants == 1


async def test_a_store_that_says_yes_before_it_has_the_file_is_not_believed(tmp_path: Path) -> None:
    """A 2xx counts only when all bytes have been sent: the file stays where it is."""

    async def hasty(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            url = f"http://{request.host}/o?Expires={round(time.time()) + 3600}"
            return web.json_response({"PreSignedUploadUrl": url})
        return web.Response()

    async def at_once(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=200)

    async with serving(hasty, expect=at_once) as origin:
        site = Site(tmp_path, origin)
        orders = site.feed("orders", dataset_id="dataset-1", archive="delete")
        with (orders / "big.csv").open("wb") as file:
            file.truncate(60 * 2**20)
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("file_delayed", 2)
            assert await daemon.end() == 0
    assert daemon.named("file_delivered") == []
    assert site.dropped("orders") == {"big.csv"}


@pytest.mark.parametrize("archive", ["archive", "delete"])
async def test_what_a_writer_adds_after_it_opened_the_file_again_is_not_lost(tmp_path: Path, archive: str) -> None:
    """A file that is open for writing when it is to be moved stays, and is sent again once it is closed."""
    orders = tmp_path / "drop" / "orders"
    writers: list[BinaryIO] = []

    async def reopen_first(server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
        if not writers:
            writers.append((orders / "00.csv").open("ab"))
        return server.take(request, body)

    server = Server(reopen_first)
    async with serving(server) as origin:
        site = Site(tmp_path, origin)
        drop(site)
        site.feeds["orders"]["archive"] = archive
        async with running_daemon(site.config) as daemon:
            await daemon.until(lambda: any("open for writing" in e["reason"] for e in daemon.named("file_delayed")))
            writers[0].write(b" and more")
            writers[0].close()
            await daemon.until(lambda: b"content 0 and more" in server.objects.values() and not site.dropped("orders"))
            assert await daemon.end() == 0
    if archive == "archive":
        assert b"content 0 and more" in site.archived("orders").values()
