"""The alarm of the real daemon: a feed gets no file for `expect_every`."""

import signal
import sqlite3
from contextlib import closing

from support.daemon import Site, command, rename_in, running_daemon
from support.receiver import receiving


def forget_hours(site: Site) -> None:
    """Let two hours have passed for the ledger, in which no daemon ran."""
    with closing(sqlite3.connect(site.ledger)) as raw, raw:
        raw.execute("UPDATE feeds SET known_at = known_at - 7200000")


async def test_a_feed_without_files_is_told_once_and_when_one_comes(site: Site) -> None:
    """In the log and to the webhook, and not again by the next daemon; feeds that expect nothing are left alone."""
    async with receiving() as receiver:
        orders = site.feed("orders", notify_url=receiver.url, expect_every="1s")
        site.feed("items", notify_url=receiver.url)
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("feed_stale")
            await receiver.until_accepted(1)
            await daemon.end(signal.SIGKILL)
        site.feed("orders", notify_url=receiver.url, expect_every="1s")
        async with running_daemon(site.config) as second:
            await second.until_event("ready")
            rename_in(orders, "a.csv", b"a")
            await second.until_event("feed_stale")
            told = [it["event"] for it in second.events if it["event"] in ("feed_stale", "feed_fresh_again")]
            assert told[:2] == ["feed_fresh_again", "feed_stale"]
            await receiver.until_accepted(2, "feed.stale")
            site.feed("orders", notify_url=receiver.url, expect_every="1h")
            _ = site.config
            second.process.send_signal(signal.SIGHUP)
            await second.until_event("feed_not_overdue")
            assert await second.end() == 0
    [stale] = daemon.named("feed_stale")
    assert (stale["feed"], stale["level"], stale["last_arrival"]) == ("orders", "error", None)
    first, _, again = receiver.told()
    assert (first["event"], first["feed"], first["expect_every"]) == ("feed.stale", "orders", 1)
    assert first["last_arrival_at"] is None
    assert again["last_arrival_at"] is not None


async def test_what_was_dropped_while_no_daemon_ran_is_no_reason_for_an_alarm(site: Site) -> None:
    """It is found before anything is judged."""
    orders = site.feed("orders", expect_every="1h")
    site.feed("items", expect_every="1h")
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("ready")
        await daemon.end(signal.SIGKILL)
    rename_in(orders, "a.csv", b"a")
    forget_hours(site)
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("file_archived")
        await daemon.until_event("feed_stale")
        assert await daemon.end() == 0
    assert [event["feed"] for event in daemon.named("feed_stale")] == ["items"]


async def test_a_pass_tells_it_too(site: Site) -> None:
    """Who has no daemon is told at the end of each pass that finds it new."""
    async with receiving() as receiver:
        site.feed("orders", notify_url=receiver.url, expect_every="10ms")
        logs = [(await command("run", "--once", "--config", str(site.config)))[2] for _ in range(2)]
    assert [log.count('"feed_stale"') for log in logs] == [1, 0]
    assert receiver.kinds() == ["feed.stale"]
