"""Webhooks of the real daemon: what they are told, that nothing is lost, and that nobody waits for them."""

import re
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from faults.crash_daemon import started
from support.daemon import KEY, Site, command, rename_in, running_daemon
from support.leaks import Search
from support.receiver import accept, hang, is_signed, receiving, reset, saying
from tablefeed.sandbox.server import RunningSandbox

GUIDE = Path(__file__).parents[2] / "docs/webhooks.md"
SECRET = "webh00k-s3cret-0f-the-tests"


def waiting_in(site: Site) -> list[tuple[str, str]]:
    """(kind, id) of what is in the outbox, in order."""
    with closing(sqlite3.connect(f"file:{site.ledger}?mode=ro", uri=True)) as raw:
        return list(raw.execute("SELECT event, event_id FROM outbox ORDER BY id"))


def hidden(site: Site, *logs: str) -> list[str]:
    """Where secrets of webhooks can be read in logs."""
    search = Search({"T0p-s3cret-p4th-0f-it", "qu3ry-s3cret-0f-it", SECRET, KEY})
    return [leak for log in logs for leak in search.leaks(log)]


async def test_a_delivery_is_told_with_its_receipt(site: Site, sandbox: RunningSandbox) -> None:
    """All that the guide promises, and in its form; signed, by the sample code of the guide too."""
    secret = site.root / "notify-secret"
    secret.write_text(SECRET + "\n")
    async with receiving() as receiver:
        orders = site.feed("orders", notify_url=receiver.url, notify_secret_file=str(secret))
        async with running_daemon(site.config) as daemon:
            rename_in(orders, "a.csv", b"content")
            await receiver.until_accepted(1)
            assert await daemon.end() == 0
        [post] = receiver.posts
        body = post.body
        assert post.path == "/hook/T0p-s3cret-p4th-0f-it?k=qu3ry-s3cret-0f-it"
        assert list(body) == [
            *("event", "id", "time", "node", "feed", "tenant_id", "dataset_id", "datatable_id", "file", "receipt")
        ]
        assert (body["event"], body["feed"], body["tenant_id"]) == ("file.delivered", "orders", "tenant-123")
        assert (body["dataset_id"], body["datatable_id"]) == ("dataset-1", "table-456")
        assert (body["file"]["path"], body["file"]["size"]) == ("a.csv", 7)
        receipt = body["receipt"]
        assert receipt["md5"] == "9a0364b9e99bb480dd25e1f0284c8555"
        assert (receipt["verified"], receipt["status"], receipt["origin"]) == (True, 200, sandbox.base_url)
        times = [body["time"], body["file"]["modified_at"], receipt["started_at"], receipt["finished_at"]]
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", it) for it in times)
        headers = post.headers
        assert headers["Content-Type"] == "application/json"
        assert headers["User-Agent"].startswith("tablefeed/")
        assert headers["X-Tablefeed-Event"] == "file.delivered"
        assert headers["X-Tablefeed-Delivery"] == body["id"]
        assert is_signed(post, SECRET)
        check = verifier()
        now = int(headers["X-Tablefeed-Timestamp"])
        assert check(headers, post.raw.encode(), SECRET, now)
        assert not check(headers, post.raw.encode() + b" ", SECRET, now)
        assert not check(headers, post.raw.encode(), "another-secret", now)
        assert not check(headers, post.raw.encode(), SECRET, now + 3600)
    assert hidden(site, daemon.log, post.raw) == hidden(site, daemon.log, str(headers)) == []
    assert waiting_in(site) == []


def verifier() -> Callable[..., bool]:
    """The function that the guide shows to receivers."""
    [code] = re.findall(r"```python\n(import hashlib.*?)```", GUIDE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - it is what the guide says
    check: Callable[..., bool] = names["is_from_tablefeed"]
    return check


async def test_each_trouble_is_told_when_it_begins_and_when_it_ends(site: Site) -> None:
    """A refused file, a refused key: once each, in order, also when the daemon is restarted between."""
    async with receiving() as receiver:
        orders = site.feed("orders", notify_url=receiver.url, notify_secret_file="", dataset_id="dataset-1")
        site.sections["upload"] = {"max_size": "1KiB"}
        config = site.config
        (site.root / "api-key").write_text("wr0ng-key")
        (orders / "large.csv").write_bytes(b"x" * 2000)
        async with running_daemon(config) as daemon:
            await receiver.until_accepted(1, "file.rejected")
            (orders / "a.csv").write_bytes(b"a")
            await receiver.until_accepted(1, "feed.paused")
            await daemon.end(signal.SIGKILL)
        async with running_daemon(config) as daemon:
            await daemon.until_event("feed_paused")
            await daemon.end(signal.SIGKILL)
        (site.root / "api-key").write_text(KEY)
        async with running_daemon(config) as daemon:
            await receiver.until_accepted(1, "feed.resumed")
            assert await daemon.end() == 0
    assert receiver.kinds() == ["file.rejected", "feed.paused", "file.delivered", "feed.resumed"]
    rejected, paused, _, resumed = receiver.told()
    assert rejected["file"]["path"] == "large.csv"
    assert "max_size" in rejected["reason"]
    assert rejected["remedy"]
    assert (paused["by"], paused["place"]) == (resumed["by"], resumed["place"]) == ("tablefeed", "delivery")
    assert "refused the API key" in paused["reason"]
    assert "Check the key" in paused["remedy"]


@pytest.mark.parametrize("moment", ["after the commit of uploaded", "a random one"])
async def test_no_event_is_lost_by_kills(site: Site, moment: str) -> None:
    """Killed just after the commit, or at any instant: each delivered file is told, and twice only by one id."""
    async with receiving() as receiver:
        orders = site.feed("orders", notify_url=receiver.url, dataset_id="dataset-1")
        names = [f"{n:03}.csv" for n in range(60)]
        for name in names:
            (orders / name).write_bytes(name.encode())
        for nth in (1, 20):
            step = started(moment, nth) if moment != "a random one" else {}
            async with running_daemon(site.config, **step) as daemon:
                if moment == "a random one":
                    await receiver.until(lambda n=nth: len(receiver.posts) >= n)  # type: ignore[misc]
                    daemon.process.kill()
                assert await daemon.death() == -signal.SIGKILL
        async with running_daemon(site.config) as daemon:
            await receiver.until_accepted(len(names))
            assert await daemon.end() == 0
    told = {post.body["file"]["path"]: post.body["id"] for post in receiver.accepted}
    assert sorted(told) == names
    assert {(post.body["file"]["path"], post.body["id"]) for post in receiver.posts} == {*told.items()}
    assert waiting_in(site) == []


async def test_a_receiver_that_is_down_is_told_all_later_in_order_and_holds_up_nobody(site: Site) -> None:
    """Files are delivered meanwhile, another receiver is told at once, and the log says once each way what is so."""
    async with receiving() as dead, receiving() as alive:
        dead.answer = saying(500)
        orders = site.feed("orders", notify_url=dead.url, strict=True)
        items = site.feed("items", notify_url=alive.url)
        async with running_daemon(site.config) as daemon:
            for n in range(10):
                rename_in(orders, f"{n}.csv", b"%d" % n)
                rename_in(items, f"{n}.csv", b"%d" % n)
            await daemon.until_event("file_archived", 20)
            await alive.until_accepted(10)
            await daemon.until_event("webhook_failing")
            assert len(waiting_in(site)) >= 10
            dead.answer = accept
            await dead.until_accepted(10)
            await daemon.until_event("webhook_works_again")
            assert await daemon.end() == 0
        [failing] = daemon.named("webhook_failing")
        assert "notify_url" in failing["remedy"]
        assert (failing["origin"], failing["feeds"], failing["level"]) == (dead.origin, ["orders"], "error")
        assert "answered 500" in failing["reason"]
        assert dead.paths() == [f"{n}.csv" for n in range(10)]
        assert len(dead.posts) < 20, "it is not asked again and again"
    assert hidden(site, daemon.log) == []


async def test_a_receiver_that_hangs_keeps_no_daemon_from_ending(site: Site) -> None:
    """What it did not take stays for the next start."""
    async with receiving(hang) as receiver:
        site.sections["service"] = {"shutdown_grace": "500ms"}
        orders = site.feed("orders", notify_url=receiver.url)
        async with running_daemon(site.config) as daemon:
            rename_in(orders, "a.csv", b"a")
            await receiver.until(lambda: receiver.posts)
            began = time.monotonic()
            assert await daemon.end() == 0
            assert time.monotonic() - began < 8
        [(kind, event_id)] = waiting_in(site)
        receiver.answer = accept
        async with running_daemon(site.config) as daemon:
            await receiver.until_accepted(1)
            assert await daemon.end() == 0
    assert (kind, {event_id}) == ("file.delivered", receiver.ids())


async def test_what_is_delivered_during_the_drain_is_told_before_the_end(site: Site) -> None:
    """A sidecar's ledger may be gone after it."""
    async with receiving() as receiver:
        orders = site.feed("orders", notify_url=receiver.url)
        async with running_daemon(site.config) as daemon:
            rename_in(orders, "a.csv", b"a")
            await daemon.until_event("file_delivered")
            assert await daemon.end() == 0
    assert receiver.paths() == ["a.csv"]


async def test_a_pass_tells_what_it_did_and_waits_for_nobody(site: Site) -> None:
    """`run --once`: told at the end, within a bounded time; what a dead receiver did not take is told by the next."""
    async with receiving() as receiver:
        orders = site.feed("orders", notify_url=receiver.url)
        (orders / "a.csv").write_bytes(b"a")
        code, _, _ = await command("run", "--once", "--config", str(site.config))
        assert (code, receiver.paths()) == (0, ["a.csv"])
        receiver.answer = reset
        (orders / "b.csv").write_bytes(b"b")
        began = time.monotonic()
        code, _, err = await command("run", "--once", "--config", str(site.config))
        assert code == 0
        assert time.monotonic() - began < 30
        assert "webhook_failing" in err
        receiver.answer = accept
        code, _, _ = await command("run", "--once", "--config", str(site.config))
    assert receiver.paths() == ["a.csv", "b.csv"]


async def test_a_reload_takes_a_new_webhook_for_what_waits_and_none_drops_it(site: Site) -> None:
    """The new URL is told what the old one did not take; where there is none any more, the log says what went."""
    async with receiving(saying(503)) as old, receiving() as new:
        orders = site.feed("orders", notify_url=old.url)
        async with running_daemon(site.config) as daemon:
            rename_in(orders, "a.csv", b"a")
            await daemon.until_event("webhook_failing")
            site.feed("orders", notify_url=new.url)
            _ = site.config
            daemon.process.send_signal(signal.SIGHUP)
            await new.until_accepted(1)
            new.answer = saying(503)
            rename_in(orders, "b.csv", b"b")
            await daemon.until_event("webhook_failing", 2)
            site.feed("orders")
            _ = site.config
            daemon.process.send_signal(signal.SIGHUP)
            await daemon.until_event("webhook_dropped")
            assert await daemon.end() == 0
    assert new.paths() == ["a.csv"]
    [dropped] = daemon.named("webhook_dropped")
    assert (dropped["feeds"], dropped["count"]) == (["orders"], 1)
    assert "no notify_url" in dropped["reason"]
    assert waiting_in(site) == []


async def test_a_new_secret_is_used_without_a_restart(site: Site) -> None:
    """Its file is read again when a receiver refuses."""
    secret = site.root / "notify-secret"
    secret.write_text(SECRET)
    async with receiving() as receiver:
        orders = site.feed("orders", notify_url=receiver.url, notify_secret_file=str(secret))
        async with running_daemon(site.config) as daemon:
            rename_in(orders, "a.csv", b"a")
            await receiver.until_accepted(1)
            secret.write_text("an0ther-secret-0f-the-tests")

            async def strict(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
                good = is_signed(receiver.posts[-1], "an0ther-secret-0f-the-tests")
                return await (accept if good else saying(401))(request, body)

            receiver.answer = strict
            rename_in(orders, "b.csv", b"b")
            await receiver.until_accepted(2)
            assert await daemon.end() == 0
        assert daemon.named("webhook_failing") == []
    assert hidden(site, daemon.log) == []


async def test_check_tries_the_receiver_and_tells_it_nothing(site: Site) -> None:
    """It shows the origin alone, and says what to do about one that does not answer."""
    async with receiving() as receiver:
        site.feed("orders", notify_url=receiver.url)
        code, out, _ = await command("check", "--config", str(site.config))
        assert code == 0, out
        assert f"feed orders: webhook: {receiver.origin} answers; events are not signed" in out
        assert receiver.posts == []
    site.feed("items", notify_url=receiver.url, notify_secret_file=str(site.root / "no-such-file"))
    code, out, err = await command("check", "--config", str(site.config))
    assert code != 0
    assert f"{receiver.origin} cannot be reached: Connection refused" in out
    assert "Check notify_url" in out
    assert hidden(site, out, err) == []
    assert f"the webhook secret file {site.root / 'no-such-file'} does not exist" in out
