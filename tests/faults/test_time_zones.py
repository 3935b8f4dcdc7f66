"""Daylight saving does not exist for us: nothing depends on the machine's time zone, also while its clocks change."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.archive import archiving, drop, feed_at
from support.daemon import Site, contents, running_daemon
from support.ledgers import states
from support.rogue import Rogue, listening_rogue
from tablefeed.answers import retry_after
from tablefeed.clock import ServerClocks, http_date
from tablefeed.expiry import validity

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]
CHANGEOVERS = [
    *("2024-03-31T00:30", "2024-03-31T01:30", "2024-10-27T00:30", "2024-10-27T01:30"),  # Berlin
    *("2024-03-10T06:30", "2024-03-10T07:30", "2024-11-03T05:30", "2024-11-03T06:30"),  # New York
    *("2024-04-06T14:45", "2024-04-06T15:15", "2024-10-05T15:15", "2024-10-05T15:45"),  # Lord Howe: half an hour
]
MOMENTS = [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in CHANGEOVERS]


@pytest.fixture(params=ZONES)
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The time zone of this process, for one test."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield request.param
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.usefixtures("zone")
def test_expiry_is_the_same_in_every_zone() -> None:
    """All four schemes give the very moment, whatever hour is repeated or left out where the machine stands."""
    for moment in MOMENTS:
        seconds = round(moment.timestamp())
        now = seconds * 1000
        compact = moment.strftime("%Y%m%dT%H%M%SZ")
        hour_later = datetime.fromtimestamp(seconds + 3600, UTC)
        urls = [
            f"https://s/k?X-Amz-Date={compact}&X-Amz-Expires=3600",
            f"https://s/k?X-Goog-Date={compact}&X-Goog-Expires=3600",
            f"https://s/k?Expires={seconds + 3600}",
            f"https://s/k?sv=1&sig=x&se={hour_later:%Y-%m-%dT%H:%M:%SZ}",
        ]
        assert [validity(url, now, 60.0) for url in urls] == [(now + 3_600_000, 3600.0)] * 4


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S GMT", "%a, %d %b %Y %H:%M:%S -0000", "%a %b %d %H:%M:%S %Y"])
def test_the_dates_of_servers_are_gmt_in_every_zone(form: str) -> None:
    """Also those that do not say so: the obsolete forms of RFC 9110, and `-0000`."""
    for moment in MOMENTS:
        text = moment.strftime(form)
        assert http_date(text) == moment.timestamp()
        assert retry_after({"Retry-After": text}, moment.timestamp() - 30) == 30.0
        clocks = ServerClocks(lambda: 0.0, lambda: 0.0)
        clocks.observe("https://s", text)
        assert clocks.now("https://s") == (moment.timestamp() + 1) * 1000


@pytest.mark.usefixtures("zone")
async def test_archive_directories_are_named_in_utc_and_no_hour_is_lost(tmp_path: Path) -> None:
    """One file a moment around the changes, all of one name: each lies in the directory of its UTC hour, or beside it
    under a number where two share one."""
    feed = feed_at(tmp_path, archive="done/%Y-%m-%d/%H")
    async with archiving() as archiver:
        for n, moment in enumerate(MOMENTS):
            version = drop(feed, "a.csv", b"%d" % n)
            moved = await archiver.move_delivered(feed, n, version, round(moment.timestamp() * 1000), None)
            assert moved.destination is not None
            assert Path(moved.destination).parent == tmp_path / "done" / f"{moment:%Y-%m-%d}" / f"{moment:%H}"
    kept = [path.read_bytes() for path in (tmp_path / "done").rglob("*") if path.is_file()]
    assert sorted(kept) == sorted(b"%d" % n for n in range(len(MOMENTS)))


@pytest.mark.parametrize("name", ["Europe/Berlin", "America/New_York"])
async def test_the_daemon_does_the_same_in_every_zone(tmp_path: Path, name: str) -> None:
    """Grants live for three seconds, so that an hour more or less would show; states and the archive are in UTC."""
    async with listening_rogue(Rogue(lifetime=3)) as server:
        site = Site(tmp_path, server.origin)
        orders = site.feed("orders", dataset_id="dataset-1", archive="done/%Y-%m-%dT%H")
        for n in range(5):
            (orders / f"{n}.csv").write_bytes(b"%d" % n)
        async with running_daemon(site.config, environ={"TZ": name}) as daemon:
            await daemon.until_event("file_archived", 5)
            assert await daemon.end() == 0
        assert server.late == []
        assert server.grants == len(server.puts) == 5
        assert daemon.named("file_delayed") == []
    assert states(site.ledger, "orders") == {f"{n}.csv": "archived" for n in range(5)}
    with closing(sqlite3.connect(site.ledger)) as raw:
        for path, finished in raw.execute("SELECT path, finished_at FROM files"):
            hour = datetime.fromtimestamp(finished / 1000, UTC).strftime("%Y-%m-%dT%H")
            assert path in contents(orders / "done" / hour)
