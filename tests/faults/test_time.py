"""Short grants, wrong clocks, a machine that slept: no PUT starts with an expired grant, and nothing waits for ever."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.daemon import Daemon, Site, running_daemon
from support.ledgers import Clock, version
from support.patience import until
from support.rogue import Act, Exchange, Rogue, listening_rogue, saying, take
from tablefeed.answers import retry_after
from tablefeed.clock import ServerClocks
from tablefeed.gates import HOST_THRESHOLD, Gates
from tablefeed.model import Entry, Grant, State
from tablefeed.presign import is_fresh
from tablefeed.retry import LONGEST_ASKED
from tablefeed.tries import Tries

FILES = 12
SHORT = 3.0


async def take_slowly(exchange: Exchange) -> None:
    """A store that needs most of a grant's life for one upload."""
    await asyncio.sleep(0.7)
    await take(exchange)


@asynccontextmanager
async def daemon_at(
    root: Path, server: Rogue, *, files: int = FILES, slots: int = 2
) -> AsyncIterator[tuple[Site, Daemon]]:
    site = Site(root, server.origin)
    site.sections["upload"] = {"concurrency": slots}
    site.sections["api"] = {"url_lifetime": "3s"}
    orders = site.feed("orders", dataset_id="dataset-1")
    for n in range(files):
        (orders / f"{n:02}.csv").write_bytes(b"content %d" % n)
    async with running_daemon(site.config) as daemon:
        yield site, daemon


@pytest.mark.parametrize("skew", [0, 600, -600])
async def test_no_put_starts_with_an_expired_grant(tmp_path: Path, skew: int) -> None:
    """Grants of three seconds, two slots, slow uploads, and our clock right, ten minutes slow or ten minutes fast: each
    file is sent once, and no grant is replaced that need not be."""
    async with listening_rogue(Rogue(skew=skew, lifetime=SHORT, store=take_slowly)) as server:
        async with daemon_at(tmp_path, server) as (site, daemon):
            await daemon.until_event("file_archived", FILES)
            assert await daemon.end() == 0
        assert server.late == []
        assert len(server.puts) == FILES
        assert server.grants < 3 * FILES
        assert sorted(server.objects.values()) == sorted(site.archived("orders").values())
        assert daemon.named("file_delayed") == daemon.named("grant_refreshed") == []


async def test_without_a_date_in_any_answer_a_wrong_clock_costs_grants_and_no_file(tmp_path: Path) -> None:
    """The API tells no time and our clock is ten minutes fast, so that every grant looks old: they are tried."""
    async with listening_rogue(Rogue(skew=-600, lifetime=SHORT, dated=False)) as server:
        async with daemon_at(tmp_path, server) as (site, daemon):
            await daemon.until_event("file_archived", FILES)
            assert await daemon.end() == 0
        assert len(site.archived("orders")) == len(server.objects) == FILES


@pytest.mark.parametrize("cut", [False, True])
async def test_a_machine_that_slept_goes_on_with_new_grants(tmp_path: Path, cut: bool) -> None:
    """The process stands still until all its grants are too old, with its connections kept or cut meanwhile: it sends
    nothing with an old one, and delivers all."""
    held = asyncio.Event()
    awake = asyncio.Event()

    async def hold(exchange: Exchange) -> None:
        content = await exchange.body()
        held.set()
        await awake.wait()
        exchange.server.objects[exchange.path] = content
        await exchange.answer(200)

    async with listening_rogue(Rogue(lifetime=SHORT)) as server:
        acts: list[Act] = [hold]
        server.acts["PUT"] = acts
        async with daemon_at(tmp_path, server, files=4, slots=1) as (site, daemon):
            await held.wait()
            await until(lambda: server.grants >= 4)
            daemon.process.send_signal(signal.SIGSTOP)
            if cut:
                await server.down()
                await server.up()
            url = server.url(SHORT)
            await until(lambda: server.is_expired(url))
            awake.set()
            daemon.process.send_signal(signal.SIGCONT)
            await daemon.until_event("file_archived", 4)
            assert await daemon.end() == 0
        assert server.late == []
        assert len(site.archived("orders")) == 4
        assert set(server.objects.values()) == set(site.archived("orders").values())
        assert daemon.named("file_rejected") == []


API, STORE = "https://api.example", "https://store.example"


@given(st.integers(-3600, 3600), st.lists(st.floats(-7200, 7200), max_size=5), st.floats(0, 86_400))
def test_grants_are_judged_the_same_however_the_local_clock_is_set(skew: int, jumps: list[float], slept: float) -> None:
    """Once a server has told its time, only the clock that no one sets counts, and that goes on in sleep."""
    wall, ticks = Clock(), Clock(50.0)
    clocks = ServerClocks(wall, ticks)
    server = datetime.fromtimestamp(round(wall.now) + skew, UTC)
    clocks.observe(API, format_datetime(server, usegmt=True))
    for jump in jumps:
        wall.now += jump
    ticks.now += slept
    now = clocks.now(STORE, API)
    assert abs(now / 1000 - (server.timestamp() + 1 + slept)) < 0.01
    grant = Grant("https://store.example/k", round((server.timestamp() + 3600) * 1000), 3600.0)
    assert is_fresh(grant, now, 60.0) == (slept + 1 < 3540)


def test_after_an_hour_of_sleep_a_failing_host_is_probed_at_once() -> None:
    """The gates count time that passes in sleep, and nothing waits for more than the longest wait."""
    ticks = Clock(0.0)
    gates = Gates(ticks, lambda: 0.99)
    gates.relate("orders", STORE)
    for _ in range(HOST_THRESHOLD):
        gates.host_failed(STORE, "asleep", LONGEST_ASKED * 9, 1)
    assert gates.allowance("orders") == 0
    ticks.now += 3600
    assert gates.allowance("orders") == 1


def test_a_clock_that_is_set_back_blames_no_file_for_its_feeds_trouble() -> None:
    """What was delivered before the file failed is no sign that its feed works, whatever the clock said then."""
    tries = Tries()
    other = Entry(1, version("other.csv"), State.UPLOADING, queued_at=0)
    tries.delivered(other)
    failed_an_hour_earlier = Entry(2, version(), State.UPLOADING, queued_at=0, attempts=1, failed_at=1_700_000_000_500)
    tries.failed(failed_an_hour_earlier)
    assert not tries.feed_works(failed_an_hour_earlier)
    tries.delivered(other)
    assert tries.feed_works(failed_an_hour_earlier)


@pytest.mark.parametrize("skew", [-600, 600])
async def test_retry_after_as_a_date_is_measured_on_the_clock_of_its_sender(tmp_path: Path, skew: int) -> None:
    """Two minutes are two minutes, also for a daemon whose own clock is ten minutes off."""

    async def ask(exchange: Exchange) -> None:
        moment = datetime.fromtimestamp(exchange.server.now(), UTC) + timedelta(seconds=120)
        await saying(429, Retry_After=format_datetime(moment, usegmt=True))(exchange)

    server = Rogue(skew=skew, acts={"PUT": [ask]})
    async with listening_rogue(server), daemon_at(tmp_path, server, files=1) as (_, daemon):
        await daemon.until_event("file_delayed")
        assert await daemon.end() == 0
    assert 118 <= daemon.named("file_delayed")[0]["next_try_in"] <= 122


def test_retry_after_as_a_date_falls_back_on_our_clock() -> None:
    """A server that tells no time is measured by ours."""
    assert retry_after({"Retry-After": "Tue, 14 Nov 2023 22:13:20 GMT"}, 1_699_999_990.0) == 10.0
