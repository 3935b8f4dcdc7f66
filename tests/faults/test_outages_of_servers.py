"""Outages of the API, of the store, of both, of DNS; keys that are refused: nothing is set aside, and all arrives."""

import asyncio
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.daemon import KEY, Daemon, Site, contents, running_daemon
from support.rogue import Act, Exchange, Rogue, error, give_url, listening_rogue, saying, take

FEEDS = ("north", "south", "west")
EACH = 20


def site_of(root: Path, api: Rogue, *, drop: bool = True) -> Site:
    """Three feeds of one API; with files, unless they come later."""
    site = Site(root, api.origin)
    site.sections["upload"] = {"stall_timeout": "2s", "concurrency": 8}
    for feed in FEEDS:
        site.feed(feed, dataset_id="dataset-1")
    if drop:
        fill(site)
    return site


def fill(site: Site, feeds: Sequence[str] = FEEDS) -> None:
    """Files for each feed."""
    for feed in feeds:
        for n in range(EACH):
            path = Path(site.feeds[feed]["directory"]) / f"{n:02}.csv"
            if not path.exists():
                path.write_bytes(f"{feed} {n}".encode())


def assert_all_arrived(site: Site, store: Rogue, daemon: Daemon, *, feeds: Sequence[str] = FEEDS) -> None:
    """Every file archived, one object each, nothing set aside, and no secret told."""
    for feed in feeds:
        assert len(site.archived(feed)) == EACH
        assert site.dropped(feed) == set()
        assert contents(Path(site.feeds[feed]["directory"]) / "failed") == {}
    whole = sorted(content for feed in feeds for content in site.archived(feed).values())
    assert sorted(store.objects.values()) == whole
    assert daemon.named("file_rejected") == []
    assert KEY not in daemon.log


@pytest.mark.parametrize("away", ["api", "store", "both"])
async def test_an_outage_from_the_start_costs_time_and_no_file(tmp_path: Path, away: str) -> None:
    """Connections are refused, retries come with pauses that differ, and all is delivered once the servers are back."""
    async with listening_rogue(Rogue()) as store, listening_rogue(Rogue(stores_at=store)) as api:
        lost = [server for name, server in (("api", api), ("store", store)) if away in (name, "both")]
        for server in lost:
            await server.down()
        site = site_of(tmp_path, api)
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("host_failing")
            await daemon.until_event("file_delayed", 20)
            assert daemon.named("file_archived") == []
            for server in lost:
                await server.up()
            await daemon.until_event("file_archived", 3 * EACH, patience=100)
            assert await daemon.end() == 0
        assert_all_arrived(site, store, daemon)
    waits = {event["next_try_in"] for event in daemon.named("file_delayed") if event["failures"] == 1}
    assert len(waits) > 3
    assert daemon.named("host_reachable_again")
    told = daemon.named("host_failing")
    assert {event["origin"] for event in told} <= {server.origin for server in lost}
    assert len(told) == len({event["origin"] for event in told})


@pytest.mark.parametrize("away", ["api", "store"])
async def test_an_outage_that_begins_in_mid_work_costs_no_file_and_no_second_object(tmp_path: Path, away: str) -> None:
    """Connections are cut while uploads run; what may have arrived is written to the same object again."""
    async with listening_rogue(Rogue()) as store, listening_rogue(Rogue(stores_at=store)) as api:
        lost = api if away == "api" else store
        begun = asyncio.Event()

        async def hold(exchange: Exchange) -> None:
            exchange.server.objects[exchange.path] = await exchange.body()
            begun.set()
            await exchange.server.hang()

        acts: list[Act] = [take] * 10
        store.acts["PUT"] = [*acts, hold, hold]
        site = site_of(tmp_path, api)
        async with running_daemon(site.config) as daemon:
            await begun.wait()
            await lost.down()
            await daemon.until_event("host_failing")
            await lost.up()
            await daemon.until_event("file_archived", 3 * EACH, patience=100)
            assert await daemon.end() == 0
        assert_all_arrived(site, store, daemon)


def slowly(status: int) -> Act:
    """Refuse after a while, so that requests that overlap are seen to; nobody is back before all were refused."""

    async def act(exchange: Exchange) -> None:
        await exchange.body()
        await asyncio.sleep(0.2)
        await exchange.answer(status, Retry_After="1")

    return act


async def close_off(site: Site, daemon: Daemon, fail: Callable[[], Awaitable[None]]) -> None:
    """Deliver a file of each feed, let a server fail, let three files fail at it, and drop all the others."""
    drops = [Path(site.feeds[feed]["directory"]) for feed in FEEDS]
    for drop in drops:
        (drop / "first.csv").write_bytes(b"delivered before the outage")
    await daemon.until_event("file_archived", 3)
    await fail()
    for n in range(3):
        (drops[0] / f"{n:02}.csv").write_bytes(f"{FEEDS[0]} {n}".encode())
    await daemon.until_event("host_failing")
    await daemon.until_event("file_delayed", 3)
    fill(site)


@pytest.mark.parametrize("failing", ["api", "store"])
async def test_a_failing_server_gets_one_probe_at_a_time_from_all_feeds_together(tmp_path: Path, failing: str) -> None:
    """Sixty files of three feeds wait for one server, and it is asked by one of them at a time, less and less often."""
    async with listening_rogue(Rogue()) as store, listening_rogue(Rogue(stores_at=store)) as api:
        site = site_of(tmp_path, api, drop=False)
        server, method = (api, "GET") if failing == "api" else (store, "PUT")

        async def fail() -> None:
            api.api = slowly(503) if failing == "api" else give_url
            store.store = take if failing == "api" else slowly(503)

        async with running_daemon(site.config) as daemon:
            await close_off(site, daemon, fail)
            await daemon.until(lambda: len(server.of(method)) >= 3 + 3 + 3)
            assert [one.beside for one in server.of(method)[6:]] == [1, 1, 1]
            api.api, store.store = give_url, take
            await daemon.until_event("file_archived", 3 + 3 * EACH, patience=100)
            assert await daemon.end() == 0
        assert len(server.of(method)) < 3 + 3 * EACH + 12


async def test_a_store_that_calls_every_grant_expired_is_probed_like_one_that_fails(tmp_path: Path) -> None:
    """Another grant does not help, so that its files wait as in any outage: few of them try."""
    async with listening_rogue(Rogue(store=saying(403, error("AccessDenied", "Request has expired")))) as server:
        site = site_of(tmp_path, server)
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("file_delayed", 22)
            assert daemon.named("host_failing")
            assert await daemon.end() == 0


async def test_a_store_that_calls_every_grant_expired_is_not_asked_without_end(tmp_path: Path) -> None:
    """Its clock is wrong, say: each try costs three grants at most, and files wait."""
    async with listening_rogue(Rogue(store=saying(403, error("AccessDenied", "Request has expired")))) as server:
        site = site_of(tmp_path, server)
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("file_delayed", 40)
            assert server.grants <= 3 * (len(daemon.named("file_delayed")) + 34)
            server.store = take
            await daemon.until_event("file_archived", 3 * EACH, patience=100)
            assert await daemon.end() == 0
        assert_all_arrived(site, server, daemon)


@pytest.mark.parametrize("wrong", ["http://127.0.0.1:1/o", "https://store.invalid/o"])
async def test_a_grant_that_names_a_wrong_host_is_replaced_once_the_api_gives_a_right_one(
    tmp_path: Path, wrong: str
) -> None:
    """A host that refuses or does not exist has made no object: after a few tries the API is asked again."""
    async with listening_rogue(Rogue()) as server:
        bad = f'{{"PreSignedUploadUrl": "{wrong}?Expires=99999999999"}}'.encode()
        server.acts["GET"] = [saying(200, bad, Content_Type="application/json")]
        site = Site(tmp_path, server.origin)
        (site.feed("north", dataset_id="dataset-1") / "a.csv").write_bytes(b"a")
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("file_archived")
            assert await daemon.end() == 0
        assert list(server.objects.values()) == [b"a"]
        assert len(server.of("GET")) == 2


async def test_an_outage_of_the_store_costs_the_api_no_more_than_the_probes(tmp_path: Path) -> None:
    """Each try of a store that is away takes a grant, and the gate keeps the tries few, however many files wait."""
    async with listening_rogue(Rogue()) as store, listening_rogue(Rogue(stores_at=store)) as api:
        site = site_of(tmp_path, api, drop=False)
        async with running_daemon(site.config) as daemon:
            await close_off(site, daemon, store.down)
            await daemon.until_event("file_delayed", 3 + 2)
            assert store.grants <= 3 + 3 + 2 + 1
            await store.up()
            await daemon.until_event("file_archived", 3 + 3 * EACH, patience=100)
            assert await daemon.end() == 0


def with_keys(*good: str) -> Act:
    """An API that knows some keys, and every datatable but one."""

    async def act(exchange: Exchange) -> None:
        if exchange.headers["x-api-key"] not in good:
            await exchange.answer(401 if len(exchange.server.seen) % 2 else 403, b'{"message": "Unauthorized"}')
        elif "no-such-table" in exchange.path:
            await exchange.answer(404, b'{"message": "Not found"}')
        else:
            await give_url(exchange)

    return act


async def test_what_is_misconfigured_stops_only_itself_and_resumes_by_itself(tmp_path: Path) -> None:
    """A refused key pauses the feeds that use it and an unknown datatable its own, each loud once; a feed with another
    key delivers; when the key's file holds a good key, its feeds go on."""
    async with listening_rogue(Rogue(api=with_keys("other-k3y"))) as server:
        site = Site(tmp_path, server.origin)
        other = tmp_path / "other-key"
        other.write_text("other-k3y")
        other.chmod(0o600)
        config = {"dataset_id": "dataset-1"}
        for feed in ("north", "south"):
            site.feed(feed, **config)
        site.feed("west", api_key_file=str(other), **config)
        site.feed("lost", datatable_id="no-such-table", api_key_file=str(other), **config)
        fill(site, ("north", "south", "west", "lost"))
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("file_archived", EACH)
            await daemon.until(lambda: len({event["feed"] for event in daemon.named("feed_paused")}) == 3)
            refused = len(daemon.named("feed_paused"))
            await daemon.until_event("feed_paused", refused + 6)
            assert len(site.archived("west")) == EACH
            loud = [event["feed"] for event in daemon.named("feed_paused") if event["level"] == "error"]
            assert sorted(loud) == ["lost", "north", "south"]
            server.api = with_keys("other-k3y", "n3w-key")
            (tmp_path / "api-key").write_text("n3w-key")
            await daemon.until_event("file_archived", 3 * EACH, patience=100)
            assert await daemon.end() == 0
        assert_all_arrived(site, server, daemon, feeds=("north", "south", "west"))
        assert len(site.dropped("lost")) == EACH
        assert contents(tmp_path / "drop" / "lost" / "failed") == {}
        assert "other-k3y" not in daemon.log
        assert "n3w-key" not in daemon.log
        asked = len([one for one in server.seen if "no-such-table" in one.path])
        assert asked < EACH + 20


def can_unshare() -> bool:
    """Whether a process may have mounts of its own."""
    return (
        shutil.which("unshare") is not None
        and subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
    )


@contextmanager
def own_hosts(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """(a file of host names, the beginning of a command that sees it as /etc/hosts)."""
    hosts = root / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    script = f'mount --bind "{hosts}" /etc/hosts && exec "$@"'
    yield hosts, ["unshare", "--mount", "sh", "-c", script, "sh"]


@pytest.mark.skipif(not can_unshare(), reason="names are given to one process alone with mounts of its own (root)")
async def test_a_name_that_does_not_resolve_is_waited_for(tmp_path: Path) -> None:
    """DNS is away: nothing is set aside, the reason is told, and all arrives once the name is known again."""
    async with listening_rogue(Rogue(host="store.localhost")) as server:
        site = site_of(tmp_path, server)
        with own_hosts(tmp_path) as (hosts, prefix):
            async with running_daemon(site.config, prefix=prefix) as daemon:
                await daemon.until_event("host_failing")
                assert "its name is not known (DNS)" in daemon.named("host_failing")[0]["reason"]
                hosts.write_text("127.0.0.1 localhost store.localhost\n")
                await daemon.until_event("file_archived", 3 * EACH, patience=100)
                assert await daemon.end() == 0
        assert_all_arrived(site, server, daemon)
