"""The stream of pictures, over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from support.panel import FakePanel
from support.patience import PATIENCE, until
from tablefeed.status import FeedState, FeedStatus
from tablefeed.web.events import MOST, Pace
from tablefeed.web.server import make_app, running

PACE = Pace(interval=0.02, heartbeat=0.2, patience=0.5)


@pytest.fixture
def panel() -> FakePanel:
    return FakePanel()


@asynccontextmanager
async def served(panel: FakePanel, pace: Pace = PACE) -> AsyncIterator[str]:
    async with running(make_app(panel, pace=pace), "127.0.0.1:0") as address:
        yield address


Look = Callable[[], Awaitable[dict[str, Any]]]


@asynccontextmanager
async def looking(address: str, **headers: str) -> AsyncIterator[tuple[aiohttp.ClientResponse, Look]]:
    """An open stream, and what gives its next picture (empty at its end)."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
        session.get(f"http://{address}/events", headers=headers) as answer,
    ):

        async def look() -> dict[str, Any]:
            async for line in answer.content:
                if line.startswith(b"data: "):
                    found: dict[str, Any] = json.loads(line[6:])
                    return found
            raise AssertionError("the stream broke off")

        yield answer, look


async def test_a_page_gets_the_picture_at_once_and_again_when_something_moves(panel: FakePanel) -> None:
    """As an event stream that nobody keeps, with the same content as /api/status."""
    async with served(panel) as address, looking(address) as (answer, look):
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        first = await look()
        assert (first["headline"], first["may"]) == ("all is well", {"change": True})
        panel.feeds(FeedStatus("orders", "/o", "t", FeedState.STALE))
        second = await look()
        while not second["feeds"]:
            second = await look()
        assert second["headline"] == "no file for too long: orders"


async def test_what_does_not_change_is_told_as_a_sign_of_life_only(panel: FakePanel) -> None:
    """Looks are taken all the time, and few are sent."""
    async with served(panel) as address, looking(address) as (_, look):
        for _ in range(3):
            await look()
        assert panel.looks >= 8


async def test_many_pages_share_one_look(panel: FakePanel) -> None:
    """The daemon works as much for twenty as for one, and when nobody looks, not at all."""
    async with served(panel) as address:
        async with contexts(address, 20) as looks:
            for _ in range(3):
                assert len({(await look())["now"] for look in looks}) <= 2
            assert panel.looks < 60
        before = -1
        while before != panel.looks:
            before = panel.looks
            await asyncio.sleep(PACE.heartbeat * 2)


@asynccontextmanager
async def contexts(address: str, count: int) -> AsyncIterator[list[Look]]:
    """Several streams."""
    if not count:
        yield []
        return
    async with looking(address) as (_, look), contexts(address, count - 1) as others:
        yield [look, *others]


async def test_who_comes_later_is_shown_nothing_old(panel: FakePanel) -> None:
    """The last picture of an earlier look is not the first of the next."""
    async with served(panel) as address:
        async with looking(address) as (_, look):
            old = (await look())["now"]
        before = -1
        while before != panel.looks:
            before = panel.looks
            await asyncio.sleep(PACE.heartbeat * 2)
        panel.picture = replace(panel.picture, now=100_000_000)
        async with looking(address) as (_, look):
            assert (await look())["now"] > old[:10] + "T10"


async def test_too_many_pages_are_refused_in_words_and_the_next_may_come_when_one_goes(panel: FakePanel) -> None:
    """Nobody can use the daemon up by opening pages."""
    async with served(panel) as address:
        async with contexts(address, MOST) as looks:
            await asyncio.gather(*(look() for look in looks))
            async with looking(address) as (answer, _):
                assert answer.status == 503
                assert answer.headers["Retry-After"] == "5"
                assert f"{MOST} pages are looking already" in (await answer.json())["error"]
        async with looking(address) as (answer, look):
            assert answer.status == 200
            await look()


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}])
async def test_pages_of_other_sites_take_no_place(panel: FakePanel, headers: dict[str, str]) -> None:
    """They could not read it, but they could use up the places."""
    async with served(panel) as address, looking(address, **headers) as (answer, _):
        assert answer.status == 403


async def test_a_page_that_reads_nothing_is_cut_off_and_the_others_are_not_held_up(panel: FakePanel) -> None:
    """And what it did not read is not kept for it."""
    panel.feeds(*(FeedStatus(f"f{n}", "/o" * 2_000, "t", FeedState.OK) for n in range(100)))
    async with served(panel) as address, looking(address) as (_, look):
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # what open_connection gives can be paused
        writer.write(f"GET /events HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
        for number in range(60):
            panel.feeds(*panel.picture.feeds[1:], replace(panel.picture.feeds[0], queued=number))
            await look()
            await asyncio.sleep(0.005)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(PATIENCE):
            read = 0
            while piece := await reader.read(2**20):
                read += len(piece)
        assert read < 6 * 2**20
        writer.close()


async def test_the_stream_ends_with_the_daemon_at_once_and_says_so(panel: FakePanel) -> None:
    """Neither does an open page keep the daemon from ending, nor need it guess why the stream has ended."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE):
        async with served(panel, replace(PACE, interval=5.0)) as address:
            opened = looking(address)
            answer, look = await opened.__aenter__()
            await look()
            began = loop.time()
        assert loop.time() - began < 4
        assert b"event: end" in await answer.content.read()
        await opened.__aexit__(None, None, None)


async def test_a_page_that_goes_away_leaves_its_place(panel: FakePanel) -> None:
    """Also one whose connection is cut in the middle."""
    async with served(panel) as address:
        for _ in range(3 * MOST // 2):
            async with looking(address) as (answer, look):
                await look()
                assert answer.connection is not None
                assert answer.connection.transport is not None
                answer.connection.transport.abort()
        await until(lambda: True)
        async with looking(address) as (answer, _):
            assert answer.status == 200
