"""What a feed can be told to do: strict order, skipping duplicates, and changes while the daemon runs."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from aiohttp import web

from support.daemon import KEY, Daemon, Site, contents, running_daemon
from support.ledgers import states
from support.stores import Server, serving
from tablefeed.sandbox.server import RunningSandbox


def drop_in_order(directory: Path, *names: str) -> None:
    """Files whose mtimes tell their order."""
    for age, name in enumerate(reversed(names)):
        path = directory / name
        path.write_text(name)
        os.utime(path, (1_700_000_000 - age, 1_700_000_000 - age))


class Hold:
    """A store that answers nothing until it is told to go on."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def put(self, server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
        self.begun.set()
        await self.go_on.wait()
        return server.take(request, body)


async def test_a_strict_feed_sends_one_at_a_time_and_holds_what_is_behind(tmp_path: Path) -> None:
    """While the first file is refused by a store out of order, nothing behind it is sent; another feed goes on."""
    under_way: set[str] = set()
    sent: list[bytes] = []

    async def put(server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
        if body.startswith(b"f"):
            return server.take(request, body)
        under_way.add(request.path)
        assert len(under_way) == 1
        await asyncio.sleep(0)
        under_way.remove(request.path)
        sent.append(body)
        if body == b"1.csv" and len(sent) < 3:
            return web.Response(status=503)
        return server.take(request, body)

    server = Server(put)
    async with serving(server) as origin:
        site = Site(tmp_path, origin)
        drop_in_order(site.feed("orders", dataset_id="d", strict=True), "1.csv", "2.csv", "3.csv", "4.csv")
        (site.feed("free", dataset_id="d") / "f.csv").write_text("f")
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("file_archived", 5)
            assert await daemon.end() == 0
    assert sent == [b"1.csv", b"1.csv", b"1.csv", b"2.csv", b"3.csv", b"4.csv"]
    assert len(server.objects) == 5


async def test_in_a_strict_feed_a_refused_file_holds_nobody(tmp_path: Path) -> None:
    """What can never be delivered is set aside, and the next one goes."""

    async def put(server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
        if body == b"1.csv":
            return web.Response(status=413)
        return server.take(request, body)

    server = Server(put)
    async with serving(server) as origin:
        site = Site(tmp_path, origin)
        orders = site.feed("orders", dataset_id="d", strict=True, order="name")
        drop_in_order(orders, "1.csv", "2.csv")
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("file_archived")
            assert await daemon.end() == 0
    assert contents(orders / "failed")["1.csv"] == b"1.csv"
    assert [*server.objects.values()] == [b"2.csv"]


async def test_in_a_strict_feed_a_file_that_is_not_whole_holds_those_behind_it(
    site: Site, sandbox: RunningSandbox
) -> None:
    """A writer has the first file open: the second waits, and the log says for what."""
    orders = site.feed("orders", strict=True, order="name")
    with (orders / "1.csv").open("w") as writer:
        writer.write("first ")
        writer.flush()
        (orders / "2.csv").write_text("second")
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("feed_held")
            assert daemon.named("file_delivered") == []
            writer.write("and last")
            writer.close()
            await daemon.until_event("file_archived", 2)
            assert await daemon.end() == 0
    assert [event["path"] for event in daemon.named("file_delivered")] == ["1.csv", "2.csv"]
    assert daemon.named("feed_held")[0]["path"] == "1.csv"
    assert site.archived("orders")["1.csv"] == b"first and last"


async def test_once_delivers_a_strict_feed_in_order(site: Site, sandbox: RunningSandbox) -> None:
    """However the directory lists them."""
    names = [f"{n:02}.csv" for n in range(20)]
    drop_in_order(site.feed("orders", strict=True), *names)
    async with running_daemon(site.config, "--once") as daemon:
        assert await daemon.process.wait() == 0
    assert [event["path"] for event in daemon.named("file_delivered")] == names


async def test_content_that_was_delivered_before_is_skipped_where_the_feed_asks_for_it(
    site: Site, sandbox: RunningSandbox
) -> None:
    """Of ten equal files one is sent and all are archived, also when they come at once; other content is sent."""
    skip = site.feed("skip", duplicates="skip")
    upload = site.feed("upload", datatable_id="table-457")
    for directory in (skip, upload):
        for n in range(10):
            (directory / f"{n}.csv").write_text("the same")
        (directory / "other.csv").write_text("not same")
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("file_archived", 22)
        (skip / "late.csv").write_text("the same")
        await daemon.until_event("file_archived", 23)
        assert await daemon.end() == 0
    objects = [content.decode() for content in contents(sandbox.objects).values()]
    assert objects.count("the same") == 1 + 10
    assert objects.count("not same") == 2
    assert len(site.archived("skip")) == 12
    found = states(site.ledger, "skip")
    assert sorted(found.values()) == ["archived"] * 2 + ["skipped"] * 10
    assert found["late.csv"] == "skipped"


async def test_a_duplicate_is_sent_when_the_feed_goes_to_another_datatable_now(
    site: Site, sandbox: RunningSandbox
) -> None:
    """That one does not have the content yet."""
    orders = site.feed("orders", duplicates="skip")
    (orders / "a.csv").write_text("content")
    async with running_daemon(site.config, "--once") as daemon:
        assert await daemon.process.wait() == 0
    site.feeds["orders"]["datatable_id"] = "table-457"
    (orders / "b.csv").write_text("content")
    async with running_daemon(site.config, "--once") as daemon:
        assert await daemon.process.wait() == 0
    assert states(site.ledger, "orders") == {"a.csv": "archived", "b.csv": "archived"}
    assert len(contents(sandbox.objects)) == 2


async def reload(daemon: Daemon, site: Site, event: str, count: int = 1) -> dict[str, Any]:
    """Write the configuration anew and have it read; what the log says of it."""
    assert site.config.exists()
    daemon.process.send_signal(signal.SIGHUP)
    await daemon.until_event(event, count)
    return daemon.named(event)[-1]


async def test_a_reload_that_is_asked_for_while_the_daemon_starts_is_done_when_it_has(
    site: Site, sandbox: RunningSandbox
) -> None:
    """It does not end it, and what was changed since it began to read its configuration is served."""
    site.feed("orders")
    config = site.config
    first = config.read_text()
    config.unlink()
    os.mkfifo(config)
    async with running_daemon(config) as daemon:

        def give_and_ask() -> None:
            with config.open("w") as pipe:  # once it reads
                config.unlink()
                site.feed("later")
                assert site.config == config
                daemon.process.send_signal(signal.SIGHUP)
                pipe.write(first)

        await asyncio.to_thread(give_and_ask)
        await daemon.until_event("reloaded")
        assert daemon.named("reloaded")[0]["added"] == ["later"]
        assert await daemon.end() == 0


async def test_a_reload_adds_changes_and_removes_feeds(site: Site, sandbox: RunningSandbox) -> None:
    """A new feed is served, a changed one as it is now, a removed one no more; the process stays the same."""
    orders, old = site.feed("orders"), site.feed("old")
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("ready")
        new = site.feed("new", datatable_id="table-457")
        site.feeds["orders"]["include"] = ["*.txt"]
        del site.feeds["old"]
        said = await reload(daemon, site, "reloaded")
        assert (said["added"], said["changed"], said["removed"]) == (["new"], ["orders"], ["old"])
        for directory in (orders, old, new):
            (directory / "a.csv").write_text("csv")
            (directory / "a.txt").write_text("txt")
        await daemon.until_event("file_archived", 2)
        site.feeds["old"] = {**site.feeds["orders"], "directory": str(old), "include": ["*.csv"]}
        await reload(daemon, site, "reloaded", 2)
        await daemon.until_event("file_archived", 3)
        assert await daemon.end() == 0
    assert site.dropped("orders") == {"a.csv"}
    assert site.dropped("new") == {"a.txt"}
    assert site.dropped("old") == {"a.txt"}


async def test_a_reload_of_a_bad_configuration_changes_nothing_and_says_why(
    site: Site, sandbox: RunningSandbox
) -> None:
    """All its errors are told, and the feeds go on as they were."""
    orders = site.feed("orders")
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("ready")
        site.feeds["orders"] |= {"settle": "soon", "ordr": "name"}
        said = await reload(daemon, site, "reload_refused")
        assert "feeds[0] (orders).settle" in said["reason"]
        assert "feeds[0] (orders).ordr" in said["reason"]
        (orders / "a.csv").write_text("content")
        await daemon.until_event("file_archived")
        assert await daemon.end() == 0


async def test_a_reload_names_what_needs_a_restart(site: Site, sandbox: RunningSandbox) -> None:
    """Nothing that was changed is passed over in silence."""
    site.feed("orders")
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("ready")
        site.sections["upload"] = {"stall_timeout": "3s"}
        assert (await reload(daemon, site, "reload_partial"))["keys"] == ["upload.stall_timeout"]
        assert await daemon.end() == 0


async def test_a_reload_mends_a_paused_feed_at_once(site: Site, sandbox: RunningSandbox) -> None:
    """The wrong datatable is corrected: its files go without waiting for the next probe."""
    orders = site.feed("orders", datatable_id="nonesuch")
    (orders / "a.csv").write_text("content")
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("feed_paused")
        site.feeds["orders"]["datatable_id"] = "table-456"
        await reload(daemon, site, "reloaded")
        await daemon.until_event("file_archived")
        assert await daemon.end() == 0


async def test_what_a_removed_feed_has_begun_is_finished(tmp_path: Path) -> None:
    """Both what is being sent and what waits for its slot ends as it was begun, and is archived."""
    hold = Hold()
    server = Server(hold.put)
    async with serving(server) as origin:
        site = Site(tmp_path, origin)
        site.feed("other", dataset_id="d")
        orders = site.feed("orders", dataset_id="d")
        for name in ("a.csv", "b.csv"):
            (orders / name).write_text(name)
        site.sections["upload"] = {"concurrency": 1}
        async with running_daemon(site.config) as daemon:
            await hold.begun.wait()
            while server.grants < 2:
                await asyncio.sleep(0.005)
            del site.feeds["orders"]
            await reload(daemon, site, "reloaded")
            hold.go_on.set()
            await daemon.until_event("file_archived", 2)
            assert await daemon.end() == 0
    assert contents(orders / "archive") == {"a.csv": b"a.csv", "b.csv": b"b.csv"}


async def test_a_feed_renamed_by_a_reload_does_not_send_twice_what_is_under_way(tmp_path: Path) -> None:
    """It takes over the directory when the upload under the old name has ended."""
    hold = Hold()
    server = Server(hold.put)
    async with serving(server) as origin:
        site = Site(tmp_path, origin)
        orders = site.feed("orders", dataset_id="d")
        (orders / "a.csv").write_text("content")
        async with running_daemon(site.config) as daemon:
            await hold.begun.wait()
            site.feeds["renamed"] = site.feeds.pop("orders")
            assert site.config.exists()
            daemon.process.send_signal(signal.SIGHUP)
            (orders / "b.csv").write_text("more")
            hold.go_on.set()
            await daemon.until_event("file_archived", 2)
            assert await daemon.end() == 0
    assert len(server.objects) == 2
    assert [event["feed"] for event in daemon.named("file_archived")] == ["orders", "renamed"]


async def test_feeds_that_exchange_their_directories_do_not_send_twice_what_is_under_way(tmp_path: Path) -> None:
    """What is sent from a directory is not found there by the feed that gets it; then that takes in what follows."""
    hold = Hold()
    server = Server(hold.put)
    async with serving(server) as origin:
        site = Site(tmp_path, origin)
        one, two = site.feed("one", dataset_id="d"), site.feed("two", dataset_id="d")
        (one / "a.csv").write_text("content")
        async with running_daemon(site.config) as daemon:
            await hold.begun.wait()
            site.feeds["one"]["directory"], site.feeds["two"]["directory"] = str(two), str(one)
            await reload(daemon, site, "reloaded")
            (one / "b.csv").write_text("more")
            (two / "c.csv").write_text("of the other")
            await daemon.until(lambda: [event["feed"] for event in daemon.named("files_queued")] == ["one", "one"])
            hold.go_on.set()
            await daemon.until_event("file_archived", 3)
            assert await daemon.end() == 0
    assert len(server.objects) == 3
    assert contents(one / "archive").keys() == {"a.csv", "b.csv"}


async def test_keys_are_read_anew_by_a_reload(site: Site, sandbox: RunningSandbox) -> None:
    """A feed may get a key file that was not there before; a key that cannot be read refuses the reload."""
    site.feed("orders")
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("ready")
        other = site.root / "other-key"
        new = site.feed("new", api_key_file=str(other))
        assert "other-key does not exist" in (await reload(daemon, site, "reload_refused"))["reason"]
        other.write_text(KEY)
        await reload(daemon, site, "reloaded")
        (new / "a.csv").write_text("content")
        await daemon.until_event("file_archived")
        assert await daemon.end() == 0


async def test_files_of_a_removed_feed_wait_until_it_is_there_again(site: Site, sandbox: RunningSandbox) -> None:
    """The log says how many, and nothing is lost by the removal."""
    site.feed("other")
    orders = site.feed("orders", datatable_id="nonesuch")
    (orders / "a.csv").write_text("content")
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("feed_paused")
        feed = site.feeds.pop("orders")
        await reload(daemon, site, "reloaded")
        await daemon.until_event("feed_missing")
        assert (daemon.named("feed_missing")[0]["feed"], daemon.named("feed_missing")[0]["queued"]) == ("orders", 1)
        site.feeds["orders"] = feed | {"datatable_id": "table-456"}
        await reload(daemon, site, "reloaded", 2)
        await daemon.until_event("file_archived")
        assert await daemon.end() == 0
    assert states(site.ledger, "orders") == {"a.csv": "archived"}
    assert len(contents(sandbox.objects)) == 1
