"""What is counted, what is told at the scrape, and that all of it is declared, documented and bounded."""

import asyncio
import gzip
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.ledgers import RECEIPT
from support.patience import PATIENCE
from support.scrape import Scrape
from tablefeed import errors, news
from tablefeed.disks import Disks, Space, space_at
from tablefeed.metrics import Metrics, Scene
from tablefeed.metrics.catalog import CATALOG, ERRORS, Declared, Kind
from tablefeed.metrics.table import table
from tablefeed.model import Entry, FileVersion, State
from tablefeed.nodes import FleetStatus, NodeStatus
from tablefeed.pulse import BEAT, FEWEST, MOST, OVERDUE, WINDOW, Pulse
from tablefeed.status import (
    FeedState,
    FeedStatus,
    ServerStatus,
    Snapshot,
    Trouble,
    UploadStatus,
)
from tablefeed.status import Kind as TroubleKind

ROOT = Path(__file__).parents[2]
API, STORE = "https://api.example", "https://store.example"
NOW = 1_700_000_100_000


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    made = Metrics()
    yield made
    made.close()


def feed(name: str = "orders", **more: object) -> FeedStatus:
    return FeedStatus(name, f"/srv/{name}", "table-1", FeedState.OK, **more)  # type: ignore[arg-type]


def scene(*feeds: FeedStatus, apis: tuple[str, ...] = (API,), **more: object) -> Scene:
    snapshot = Snapshot("1.0", "here", 1, now=NOW, started_at=1, feeds=feeds, **more)  # type: ignore[arg-type]
    return Scene(snapshot, apis)


async def scraped(metrics: Metrics, shown: Scene | None = None) -> Scrape:
    page = await metrics.page(shown or scene(feed()), "", "")
    return Scrape(page.body.decode())


def entry(dropped_at: int | None, queued_at: int, path: str = "a.csv") -> Entry:
    dropped = FileVersion("orders", path, 1, 2, 10, 5, None, dropped_at)
    return Entry(1, dropped, State.UPLOADING, queued_at)


FULL = feed(
    expect_every=60.0,
    last_arrival_at=NOW - 1,
    last_delivery_at=NOW - 2,
    oldest_undelivered_at=NOW - 3_000,
    queued=1,
    troubles=tuple(Trouble(kind, "why", "mend it") for kind in TroubleKind),
)
SERVER = ServerStatus(STORE, "503", ("orders",), 1, None)
FLEET = FleetStatus(
    now=NOW,
    living=2,
    over=3,
    nodes=(
        NodeStatus("here", True, True, NOW - 9, NOW - 1, "1.0", ("orders",), 1, 0, waiting=5),
        NodeStatus("there", False, True, NOW - 9, NOW - 1, "1.0", ("orders", "theirs"), waiting=7),
        NodeStatus("away", False, False, NOW - 9, NOW - 8, "1.0", ("orders",), waiting=1),
    ),
)
EVERYTHING = Scene(
    scene(FULL, bandwidth=7, servers=(SERVER,), fleet=FLEET, ledger_held_up="it is full").snapshot,
    (API,),
    spaces={("ledger", ""): Space(1, 2), ("archive", "orders"): Space(3, 4)},
)


def names(declared: Declared) -> set[str]:
    if declared.kind is Kind.HISTOGRAM:
        return {f"{declared.name}_{part}" for part in ("bucket", "sum", "count")}
    return {declared.name}


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
async def test_all_that_is_told_is_declared_and_nothing_else(metrics: Metrics, accept: str) -> None:
    """Each series has the labels of its declaration, with values that it names; in both formats."""
    page = await metrics.page(EVERYTHING, accept, "")
    shown = Scrape(page.body.decode(), is_openmetrics=bool(accept))
    ours = [sample for sample in shown.samples if sample.name.startswith("tablefeed_")]
    assert {sample.name for sample in ours} == {name for declared in CATALOG for name in names(declared)}
    by_name = {name: declared for declared in CATALOG for name in names(declared)}
    for sample in ours:
        declared = by_name[sample.name]
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        assert labels.keys() == declared.labels.keys()
        for label, value in labels.items():
            assert not declared.labels[label] or value in declared.labels[label], sample
    others = {sample.name for sample in shown.samples} - {sample.name for sample in ours}
    assert {re.match(r"process_|python_", name) is not None for name in others} == {True}
    assert {"process_start_time_seconds", "process_open_fds", "python_gc_collections_total"} <= others


def test_the_page_of_all_metrics_is_up_to_date() -> None:
    """`python -m tablefeed.metrics.table > docs/metrics.md`"""
    assert (ROOT / "docs/metrics.md").read_text() == table()


def test_names_follow_the_conventions() -> None:
    """Base units as suffixes, `_total` for counters and for nothing else, something in words for each."""
    for declared in CATALOG:
        assert re.fullmatch(r"tablefeed(_[a-z]+)+", declared.name)
        assert declared.name.endswith("_total") == (declared.kind is Kind.COUNTER)
        assert not re.search(r"_(ms|milliseconds|minutes|hours|kb|mib|percent)\b", declared.name)
        assert declared.help.endswith(".")
        assert list(declared.buckets) == sorted(set(declared.buckets))
        assert bool(declared.buckets) == (declared.kind is Kind.HISTOGRAM)


async def test_every_outcome_is_counted_once(metrics: Metrics) -> None:
    """By feed, from 0 on, so that the first of a kind shows as an increase."""
    shown = await scraped(metrics)
    assert {it.value for it in shown.all("tablefeed_files_total")} == {0.0}
    assert len(shown.all("tablefeed_retries_total")) == len(ERRORS)
    one = entry(NOW, NOW)
    metrics.note(news.Queued("orders", 5))
    happened: tuple[news.Item, ...] = (
        *[news.Granted("orders", 0.1, refreshed=False)] * 2,
        news.Granted("orders", 0.1, refreshed=True),
        news.Sending("orders", one),
        *[news.Delivered("orders", one, RECEIPT)] * 2,
        news.Archived("orders", one, 0.2),
        news.Skipped("orders", one),
        *[news.Rejected("orders", "a.csv", "why")] * 3,
        *[news.Vanished("orders", "a.csv")] * 4,
        *[news.Failed("orders", "Busy")] * 6,
        news.Failed("orders", "KeyRefused"),
        news.Blocked("orders", "delivery", "why", "mend it"),
        news.Unblocked("orders", "delivery"),
    )
    for item in happened:
        metrics.note(item)
    shown = await scraped(metrics)
    assert shown.by("outcome", "tablefeed_files_total", feed="orders") == {
        "delivered": 2, "skipped": 1, "rejected": 3, "vanished": 4,
    }  # fmt: skip
    assert shown.by("error", "tablefeed_retries_total", feed="orders") == {"Busy": 6, "KeyRefused": 1}
    assert shown.value("tablefeed_files_queued_total", feed="orders") == 5
    assert shown.value("tablefeed_delivered_bytes_total", feed="orders") == 2 * RECEIPT.size
    assert shown.value("tablefeed_grants_total", feed="orders") == 3
    assert shown.value("tablefeed_grant_refreshes_total", feed="orders") == 1
    assert shown.by("stage", "tablefeed_stage_seconds_count") == {
        "settle": 2, "queue": 2, "presign": 3, "upload": 2, "archive": 1,
    }  # fmt: skip


async def test_settling_queueing_and_uploading_make_up_the_time_to_delivery(metrics: Metrics) -> None:
    """In seconds, from the times that the ledger keeps."""
    dropped = RECEIPT.started_at - 5_500
    metrics.note(news.Delivered("orders", entry(dropped, dropped + 2_250), RECEIPT))
    shown = await scraped(metrics)
    assert shown.value("tablefeed_delivery_seconds_sum", feed="orders") == 6.5
    assert shown.by("stage", "tablefeed_stage_seconds_sum") == {"settle": 2.25, "queue": 3.25, "upload": 1.0}


async def test_clocks_that_disagree_give_no_negative_times(metrics: Metrics) -> None:
    """A file server's clock may be ahead; and of an old row it is not known when the file came."""
    metrics.note(news.Delivered("orders", entry(RECEIPT.finished_at + 9_000, RECEIPT.finished_at + 1), RECEIPT))
    metrics.note(news.Delivered("orders", entry(None, RECEIPT.started_at), RECEIPT))
    shown = await scraped(metrics)
    assert shown.value("tablefeed_delivery_seconds_sum", feed="orders") == 0
    assert shown.value("tablefeed_delivery_seconds_count", feed="orders") == 1
    assert shown.by("stage", "tablefeed_stage_seconds_count")["queue"] == 2
    assert shown.by("stage", "tablefeed_stage_seconds_sum") == {"upload": 2.0}


def test_every_error_that_is_retried_can_be_counted() -> None:
    """A listener that fails would end the file's way: no class is unknown."""
    classes = {
        kind.__name__
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.DeliveryError)
    }
    assert classes - {"DeliveryError", "Transient", "FileRefused", "LeaseLost"} == set(ERRORS)


async def test_a_feed_that_is_not_served_any_more_disappears(metrics: Metrics) -> None:
    """With all its series; one that comes back begins at 0, and what ends late for a removed one does no harm."""
    metrics.note(news.Queued("orders", 1))
    metrics.note(news.Queued("items", 1))
    assert len((await scraped(metrics, scene(feed(), feed("items")))).all("tablefeed_delivery_seconds_sum")) == 2
    shown = await scraped(metrics, scene(feed("items")))
    assert "orders" not in shown.text
    assert shown.value("tablefeed_files_queued_total", feed="items") == 1
    metrics.note(news.Rejected("orders", "late.csv", "why"))
    assert "orders" not in (await scraped(metrics, scene(feed("items")))).text
    shown = await scraped(metrics, scene(feed()))
    assert shown.value("tablefeed_files_queued_total", feed="orders") == 0


async def test_commits_are_counted_from_the_ledgers_own_thread(metrics: Metrics) -> None:
    """Whatever thread tells of them, also several at once, none is lost."""
    with ThreadPoolExecutor(4) as threads:
        for _ in range(400):
            threads.submit(metrics.committed, 0.25, 3)
    shown = await scraped(metrics)
    assert shown.value("tablefeed_ledger_commit_seconds_count") == 400
    assert shown.value("tablefeed_ledger_commit_seconds_sum") == 100
    assert shown.value("tablefeed_ledger_commit_seconds_bucket", le="0.1") == 0
    assert shown.value("tablefeed_ledger_commit_transitions_sum") == 1_200


async def test_no_file_name_and_no_server_gets_into_a_series(metrics: Metrics) -> None:
    """Names, ids, reasons and origins are without bound, and may be secret."""
    for n in range(50):
        metrics.note(news.Queued("orders", 1))
        metrics.note(news.Delivered("orders", entry(NOW, NOW, f"secret-{n}.csv"), RECEIPT))
        metrics.note(news.Rejected("orders", f"secret-{n}.csv", f"secret reason {n}"))
        metrics.note(news.Blocked("orders", "delivery", "secret reason", "secret remedy"))
    uploads = (UploadStatus(4711, "orders", "secret.csv", 1, 0, 0.0, 1, 0),)
    shown = await scraped(metrics, scene(FULL, servers=(SERVER,), uploads=uploads))
    before = len((await scraped(metrics, scene(FULL))).samples)
    assert len(shown.samples) == before
    for word in ("secret", "4711", "store.example", "/srv/orders", "table-1", "here"):
        assert word not in "\n".join(line for line in shown.text.splitlines() if not line.startswith("#"))


async def test_what_is_in_the_way_on_another_node_is_that_nodes_to_tell(metrics: Metrics) -> None:
    """Else one trouble would be an alert on each of forty nodes."""
    there = (Trouble(TroubleKind.DELIVERY, "why", "", 1, node="south"), Trouble(TroubleKind.STALE, "", "", node="b"))
    shown = await scraped(metrics, scene(feed(troubles=there)))
    assert shown.by("reason", "tablefeed_feed_paused", feed="orders") == {}
    assert shown.by("feed", "tablefeed_feed_stale") == {}


async def test_the_gauges_tell_the_picture_that_everybody_is_shown(metrics: Metrics) -> None:
    """Ages from the moment of the picture; what never was is missing rather than 0."""
    paused = feed("items", paused_at=NOW - 1, queued=3, uploading=2, archiving=1, queued_bytes=30, refused=4)
    uploads = (UploadStatus(1, "items", "a.csv", 1, 0, 0.0, 1, 0), UploadStatus(2, "items", "b.csv", 1, 0, 0.0, 1, 0))
    shown = await scraped(
        metrics, scene(FULL, paused, servers=(SERVER, ServerStatus(API, "500", (), 1, None)), uploads=uploads)
    )
    assert shown.by("reason", "tablefeed_feed_paused", feed="orders") == {
        "directory": 1, "delivery": 1, "archive": 1, "server": 1,
    }  # fmt: skip
    assert shown.by("reason", "tablefeed_feed_paused", feed="items") == {"operator": 1}
    assert shown.by("feed", "tablefeed_feed_stale") == {"orders": 1}
    assert shown.by("feed", "tablefeed_oldest_queued_age_seconds") == {"orders": 3}
    assert shown.by("state", "tablefeed_queue_files", feed="items") == {"queued": 3, "uploading": 2, "archiving": 1}
    assert shown.by("feed", "tablefeed_uploads_in_flight") == {"items": 2}
    assert shown.by("feed", "tablefeed_refused_files") == {"items": 4}
    assert shown.by("kind", "tablefeed_failing_servers") == {"api": 1, "store": 1}
    assert shown.by("feed", "tablefeed_last_delivery_timestamp_seconds") == {"orders": (NOW - 2) / 1000}
    assert [it.labels["feed"] for it in shown.all("tablefeed_last_arrival_timestamp_seconds")] == ["orders"]
    assert [it.labels["feed"] for it in shown.all("tablefeed_expect_every_seconds")] == ["orders"]
    assert shown.all("tablefeed_bandwidth_limit_bytes_per_second") == []
    assert shown.value("tablefeed_ok") == 0


@pytest.mark.parametrize(
    ("problem", "held_up", "readable", "writable"), [("", "", 1, 1), ("it is away", "", 0, 1), ("", "it is full", 1, 0)]
)
async def test_a_ledger_that_cannot_be_used_is_told(
    metrics: Metrics, problem: str, held_up: str, readable: int, writable: int
) -> None:
    """Whether it cannot be read or cannot be written, which are two alerts."""
    shown = await scraped(metrics, scene(feed(), ledger_problem=problem, ledger_held_up=held_up))
    assert shown.value("tablefeed_ledger_readable") == readable
    assert shown.value("tablefeed_ledger_writable") == writable


async def test_a_node_tells_of_itself_and_of_the_fleet_and_of_its_own_feeds_alone(metrics: Metrics) -> None:
    """What only others serve they tell themselves; without a fleet nothing is told of one."""
    shown = await scraped(metrics, scene(feed(), feed("theirs", here=False, queued=7), fleet=FLEET))
    assert shown.by("node", "tablefeed_node_info") == {"here": 1}
    assert shown.by("state", "tablefeed_nodes") == {"living": 2, "over": 2, "missed": 1}
    assert shown.value("tablefeed_node_waiting_files") == 5
    assert shown.value("tablefeed_feeds") == 1
    assert 'feed="theirs"' not in shown.text
    alone = await scraped(metrics, scene(feed()))
    assert not any(alone.all(name) for name in ("tablefeed_node_info", "tablefeed_nodes"))


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4"),
        ("text/html", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text; version=latest", "text/plain; version=0.0.4"),
        ("text/plain; version=", "text/plain; version=0.0.4"),
    ],
)
async def test_the_scraper_says_which_format_it_reads(metrics: Metrics, accept: str, content_type: str) -> None:
    """What nobody understands is answered in the plain one."""
    assert (await metrics.page(scene(), accept, "")).headers["Content-Type"].startswith(content_type)


async def test_who_takes_gzip_gets_it(metrics: Metrics) -> None:
    """And nobody else does."""
    small = await metrics.page(scene(feed()), "", "gzip, deflate")
    large = await metrics.page(scene(feed()), "", "deflate")
    assert small.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in large.headers
    assert len(small.body) < len(large.body) / 4
    assert Scrape(gzip.decompress(small.body).decode()).value("tablefeed_feeds") == 1


async def test_two_daemons_in_one_process_share_nothing(metrics: Metrics) -> None:
    """Nothing is in the library's global registry."""
    other = Metrics()
    metrics.note(news.Queued("orders", 1))
    assert (await scraped(other)).value("tablefeed_files_queued_total", feed="orders") == 0
    other.close()


class Time:
    """Seconds that pass as the test says: each sleep takes as long as was asked for, and what is in `late` more."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.late: list[float] = []
        self.woken = asyncio.Event()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        if not self.late:
            self.woken.set()
            await asyncio.Event().wait()
        self.now += seconds + self.late.pop(0)


async def beaten(late: list[float]) -> tuple[Pulse, Time, list[float]]:
    """A pulse that was so late for its beats."""
    time, told = Time(), list[float]()
    time.late = [*late]
    pulse = Pulse(time, time.sleep, told.append)
    running = asyncio.create_task(pulse.run())
    await time.woken.wait()
    running.cancel()
    return pulse, time, told


BLOCK = MOST * WINDOW / FEWEST + 0.1


@pytest.mark.parametrize(
    ("late", "is_ill"),
    [
        ([0.0] * 200, False),
        ([0.0, 3_600.0, 0.0], False),  # stopped and continued, or a machine that slept
        ([BLOCK] * (FEWEST - 1), False),
        ([BLOCK] * FEWEST, True),
        ([1.9] * 30, False),  # slow, and it does its work
        ([5.0, 0.0] * 3, False),  # a busy machine
        ([5.0, 0.0] * 12, True),
        ([BLOCK] * FEWEST + [0.0] * (round(WINDOW / BEAT) + 1), False),  # well again for a minute
    ],
)
async def test_only_a_loop_that_is_blocked_again_and_again_needs_a_restart(late: list[float], is_ill: bool) -> None:
    """A slow moment, however long, kills nobody."""
    pulse, _, told = await beaten(late)
    assert bool(await pulse.problem()) is is_ill
    assert told == pytest.approx(late)


async def test_a_heart_that_has_stopped_is_told_and_one_that_comes_late_is_waited_for() -> None:
    """After a block, who asks may be served before the heart beats."""
    pulse, time, _ = await beaten([0.0])
    assert await pulse.problem() == ""
    time.now += OVERDUE + 60
    time.late = [0.0]
    assert "heartbeat has stopped" in await pulse.problem()
    running: list[asyncio.Task[None]] = []

    async def beat(seconds: float) -> None:
        if not running:
            running.append(asyncio.create_task(pulse.run()))
            await asyncio.sleep(0)
        else:
            await asyncio.Event().wait()
        time.now += seconds

    pulse._sleep = beat
    assert await pulse.problem() == ""
    running[0].cancel()


async def test_a_disk_that_hangs_holds_up_no_other() -> None:
    """It is missing until it answers, and no second thread waits for it."""
    let_go, looked = threading.Event(), list[str]()

    def look(path: Path) -> Space:
        looked.append(path.name)
        if path.name == "hung":
            let_go.wait(60)
        if path.name == "broken":
            raise OSError
        return Space(1, 2)

    rounds: asyncio.Queue[None] = asyncio.Queue()
    go_on: asyncio.Queue[None] = asyncio.Queue()

    async def sleep(_seconds: float) -> None:
        await rounds.put(None)
        await go_on.get()

    places = {("archive", name): Path("/srv") / name for name in ("broken", "hung", "well")}
    disks = Disks(lambda: places, sleep, look, patience=0.05)
    running = asyncio.create_task(disks.run())
    for _ in range(2):
        await rounds.get()
        assert disks.spaces == {("archive", "well"): Space(1, 2)}
        await go_on.put(None)
    await rounds.get()
    assert looked.count("hung") == 1
    let_go.set()
    async with asyncio.timeout(PATIENCE):
        while ("archive", "hung") not in disks.spaces:
            await go_on.put(None)
            await rounds.get()
    del places["archive", "well"]
    assert disks.spaces == {("archive", "hung"): Space(1, 2)}
    running.cancel()


def test_an_archive_that_is_not_made_yet_has_the_space_of_where_it_will_be(tmp_path: Path) -> None:
    """A disk's size and what is free of it, in bytes."""
    there, missing = space_at(tmp_path), space_at(tmp_path / "archive/2026")
    assert there.size == missing.size
    assert 0 < missing.available <= missing.size
