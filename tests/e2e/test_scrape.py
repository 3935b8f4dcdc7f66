"""`/metrics` of the real daemon: what happened to files, in exact numbers, as a scraper and as Prometheus see it."""

import asyncio
import json
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from support.daemon import KEY, Daemon, Site, rename_in, running_daemon
from support.ledgers import opened
from support.patience import PATIENCE
from support.scrape import Scrape
from support.stores import Server, serving
from tablefeed.sandbox.server import RunningSandbox

ROOT = Path(__file__).parents[2]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@dataclass
class Scraper:
    """What asks a daemon for its metrics."""

    session: aiohttp.ClientSession
    address: str

    async def __call__(self, accept: str = "") -> Scrape:
        async with self.session.get(f"http://{self.address}/metrics", headers={"Accept": accept}) as answer:
            assert answer.status == 200
            assert answer.headers["Content-Encoding"] == "gzip"
            return Scrape(await answer.text(), is_openmetrics=bool(accept))

    async def until(self, condition: Callable[[Scrape], object]) -> Scrape:
        """The first scrape that fulfils the condition."""
        async with asyncio.timeout(PATIENCE):
            while not condition(shown := await self()):
                await asyncio.sleep(0.05)
        return shown


@asynccontextmanager
async def scraped(site: Site) -> AsyncIterator[tuple[Daemon, Scraper]]:
    """A daemon that has started, and what scrapes it."""
    site.sections["http"] = {"listen": "127.0.0.1:0"}
    async with running_daemon(site.config) as daemon, aiohttp.ClientSession() as session:
        await daemon.until_event("started")
        yield daemon, Scraper(session, daemon.named("started")[0]["http"])


class Moody:
    """API and store for the feeds that need one that misbehaves, told apart by their datatables."""

    def __init__(self) -> None:
        self.server = Server(self._put)
        self.feeds: dict[str, str] = {}
        """By the number of the grant."""
        self.seen: dict[str, int] = {}
        self.arrived = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            table = request.path.split("/datatable/")[1].partition("/")[0]
            if table == "keyless":
                return web.json_response({"message": "Forbidden"}, status=403)
            self.feeds[str(self.server.grants + 1)] = table
        return await self.server(request)

    async def _put(self, server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
        table = self.feeds[request.path.rpartition("/")[2]]
        self.seen[table] = self.seen.get(table, 0) + 1
        if table == "busy" and self.seen[table] <= 2:
            return web.Response(status=503)
        if table == "expired" and self.seen[table] == 1:
            return web.Response(
                status=403, text="<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
            )
        if table == "gone":
            self.arrived.set()
            await self.go_on.wait()
        return server.take(request, body)


async def prepare(site: Site, moody: str) -> dict[str, Path]:
    """Feeds for everything that can happen, with files in them: a file of each has 10 bytes at most."""
    site.sections["upload"] = {"max_size": "10B"}
    other = {"base_url": moody, "dataset_id": "d"}
    feeds = {
        "orders": site.feed("orders"),
        "skips": site.feed("skips", duplicates="skip", strict=True),
        "large": site.feed("large"),
        "lost": site.feed("lost", datatable_id="no-such-table"),
        "away": site.feed("away"),
        "silent": site.feed("silent", expect_every="500ms"),
        "by-hand": site.feed("by-hand"),
        **{
            name: site.feed(name, datatable_id=name, concurrency=1, **other)
            for name in ("busy", "expired", "keyless", "gone")
        },
    }
    feeds["away"].rmdir()
    async with opened(site.ledger) as ledger:
        await ledger.know(["by-hand"])
        await ledger.set_paused("by-hand", round(time.time() * 1000))
    for n in range(3):
        rename_in(feeds["orders"], f"{n}.csv", b"x" * (n + 1))
    for name in ("a.csv", "b.csv"):
        rename_in(feeds["skips"], name, b"same")
        rename_in(feeds["large"], name, b"x" * 11)
        rename_in(feeds["gone"], name, name.encode())
        rename_in(feeds["by-hand"], name, name.encode())
    for name in ("lost", "busy", "expired", "keyless"):
        rename_in(feeds[name], "a.csv", b"x")
    return feeds


async def test_what_happened_is_told_in_exact_numbers(site: Site, sandbox: RunningSandbox) -> None:
    """Files delivered, skipped, rejected, vanished, retried and held; no key, signature, name or id among them."""
    moody = Moody()
    async with serving(moody) as origin:
        feeds = await prepare(site, origin)
        async with scraped(site) as (daemon, scrape):
            await moody.arrived.wait()
            shown = await scrape.until(lambda it: it.by("feed", "tablefeed_files_queued_total").get("gone") == 2)
            assert shown.by("feed", "tablefeed_uploads_in_flight", feed="gone") == {"gone": 1}
            assert shown.by("feed", "tablefeed_oldest_queued_age_seconds").keys() >= {"gone"}
            assert shown.value("tablefeed_draining") == 0
            (feeds["gone"] / "b.csv").unlink()
            moody.go_on.set()

            def is_done(it: Scrape) -> bool:
                outcomes = sum(sample.value for sample in it.all("tablefeed_files_total"))
                held = it.by("feed", "tablefeed_feed_paused", reason="delivery")
                is_calm = sum(sample.value for sample in it.all("tablefeed_queue_files")) == 4
                stale = it.value("tablefeed_feed_stale", feed="silent") == 1
                refused = it.value("tablefeed_refused_files", feed="large") == 2
                return outcomes == 11 and held.keys() == {"lost", "keyless"} and is_calm and stale and refused

            shown = await scrape.until(is_done)
            check(shown)
            check(await scrape(OPENMETRICS))
            assert shown.value("tablefeed_disk_available_bytes", place="ledger", feed="") > 0
            assert daemon.process.pid is not None
            assert await daemon.end() == 0
    for word in (KEY, "Signature=", "s1g", "X-Amz", ".csv", str(site.root), origin, sandbox.base_url, "table-456"):
        assert word not in shown.text


def check(shown: Scrape) -> None:
    """All numbers after all has happened."""
    assert shown.by("feed", "tablefeed_files_total", outcome="delivered") == {
        "orders": 3, "skips": 1, "busy": 1, "expired": 1, "gone": 1,
    }  # fmt: skip
    assert shown.by("feed", "tablefeed_files_total", outcome="skipped") == {"skips": 1}
    assert shown.by("feed", "tablefeed_files_total", outcome="rejected") == {"large": 2}
    assert shown.by("feed", "tablefeed_files_total", outcome="vanished") == {"gone": 1}
    assert shown.by("feed", "tablefeed_delivered_bytes_total") == {
        "orders": 6, "skips": 4, "busy": 1, "expired": 1, "gone": 5,
    }  # fmt: skip
    assert shown.by("feed", "tablefeed_files_queued_total") == {
        "orders": 3, "skips": 2, "busy": 1, "expired": 1, "gone": 2, "lost": 1, "keyless": 1, "by-hand": 2,
    }  # fmt: skip
    assert shown.by("error", "tablefeed_retries_total", feed="busy") == {"Busy": 2}
    assert shown.by("error", "tablefeed_retries_total", feed="lost").keys() == {"FeedBlocked"}
    assert shown.by("error", "tablefeed_retries_total", feed="keyless").keys() == {"KeyRefused"}
    assert shown.by("feed", "tablefeed_grant_refreshes_total") == {"expired": 1}
    grants = shown.by("feed", "tablefeed_grants_total")
    assert {name: grants[name] for name in ("orders", "busy", "expired")} == {"orders": 3, "busy": 1, "expired": 2}
    for name, count in shown.by("feed", "tablefeed_files_total", outcome="delivered").items():
        assert shown.value("tablefeed_delivery_seconds_count", feed=name) == count
    stages = shown.by("stage", "tablefeed_stage_seconds_count")
    assert (stages["settle"], stages["queue"], stages["upload"], stages["archive"]) == (7, 7, 7, 8)
    assert stages["presign"] == sum(grants.values())
    # 100 ms is what each had to be quiet for.
    assert shown.value("tablefeed_stage_seconds_sum", stage="settle") >= 0.7
    sums = shown.by("stage", "tablefeed_stage_seconds_sum")
    whole = sum(shown.by("feed", "tablefeed_delivery_seconds_sum").values())
    assert sums["settle"] + sums["queue"] + sums["upload"] == pytest.approx(whole, abs=0.001)
    paused = {(it.labels["feed"], it.labels["reason"]) for it in shown.all("tablefeed_feed_paused") if it.value}
    assert paused == {("lost", "delivery"), ("keyless", "delivery"), ("away", "directory"), ("by-hand", "operator")}
    waiting = shown.by("feed", "tablefeed_queue_files", state="queued") | shown.by(
        "feed", "tablefeed_queue_files", state="uploading"
    )
    assert waiting == {"lost": 1, "keyless": 1, "by-hand": 2}
    assert shown.by("feed", "tablefeed_oldest_queued_age_seconds").keys() == {"lost", "keyless", "by-hand"}
    assert shown.by("feed", "tablefeed_last_delivery_timestamp_seconds").keys() == {
        "orders", "skips", "busy", "expired", "gone",
    }  # fmt: skip
    assert shown.value("tablefeed_expect_every_seconds", feed="silent") == 0.5
    assert shown.value("tablefeed_ok") == 0
    assert shown.value("tablefeed_feeds") == 11
    commits = shown.value("tablefeed_ledger_commit_seconds_count")
    assert 0 < commits <= shown.value("tablefeed_ledger_commit_transitions_sum")
    assert shown.value("tablefeed_event_loop_lag_seconds_count") > 0
    assert shown.value("tablefeed_build_info") == 1


async def test_a_feed_that_a_reload_removes_disappears_and_the_others_count_on(site: Site) -> None:
    """And one that it adds begins at 0."""
    drop, going = site.feed("orders"), site.feed("going")
    for directory in (drop, going):
        rename_in(directory, "a.csv", b"x")
    async with scraped(site) as (daemon, scrape):
        await daemon.until_event("file_archived", 2)
        assert (await scrape()).by("feed", "tablefeed_files_total") == {"orders": 1, "going": 1}
        del site.feeds["going"]
        site.feed("new")
        assert site.config.exists()
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.until_event("reloaded")
        shown = await scrape()
        assert "going" not in shown.text
        assert shown.by("feed", "tablefeed_files_total") == {"orders": 1}
        assert shown.value("tablefeed_files_total", feed="new", outcome="delivered") == 0
        assert await daemon.end() == 0


@asynccontextmanager
async def prometheus(target: str, work: Path) -> AsyncIterator[Callable[..., Any]]:
    """A real Prometheus with our configuration and our alerts, asking `target` every second; gives what asks it."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian: apt install prometheus)")
    config = yaml.safe_load((ROOT / "config/prometheus/scrape.yml").read_text())
    config["global"] = {"evaluation_interval": "1s"}
    config["rule_files"] = [str(ROOT / "config/prometheus" / name) for name in config["rule_files"]]
    config["scrape_configs"][0] |= {"scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
    (work / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (work / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={work / 'prometheus.yml'}",
            f"--storage.tsdb.path={work / 'data'}",
            f"--web.listen-address={address}",
            stderr=log,
        )
    async with aiohttp.ClientSession() as session:

        async def ask(path: str, query: str = "") -> Any:
            params = {"query": query} if query else {}
            async with session.get(f"http://{address}/api/v1/{path}", params=params) as answer:
                said = await answer.json()
            assert said["status"] == "success", (query, said)
            return said["data"]

        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        await ask("status/runtimeinfo")
                        break
                    except (aiohttp.ClientError, ConnectionError):
                        assert process.returncode is None, (work / "log").read_text()
                        await asyncio.sleep(0.05)
            yield ask
        finally:
            process.kill()
            await process.wait()


OFTEN_EMPTY = {"limit", "{{feed}}: {{reason}}", "{{feed}}: no file for too long"}
"""The legends of queries that have no answer while all is well."""


async def test_prometheus_reads_it_and_answers_all_that_the_dashboard_asks(site: Site, tmp_path: Path) -> None:
    """A refused file is an alert within seconds, with its feed; every panel has something to show."""
    site.sections["upload"] = {"max_size": "10B"}
    drop = site.feed("orders", expect_every="1h")
    rename_in(drop, "a.csv", b"x")
    rename_in(drop, "large.csv", b"x" * 11)
    dashboard = json.loads((ROOT / "config/grafana/tablefeed.json").read_text())
    targets = [target for panel in dashboard["panels"] for target in panel.get("targets", [])]
    async with scraped(site) as (daemon, scrape), prometheus(scrape.address, tmp_path) as ask:
        await daemon.until_event("file_archived")
        async with asyncio.timeout(PATIENCE):
            while not (firing := [it for it in (await ask("alerts"))["alerts"] if it["state"] == "firing"]):
                await asyncio.sleep(0.1)
            while (await ask("query", "count_over_time(tablefeed_ok[1m])"))["result"][0]["value"][1] < "3":
                await asyncio.sleep(0.1)
        [refused] = firing
        assert (refused["labels"]["alertname"], refused["labels"]["feed"]) == ("TablefeedFilesRefused", "orders")
        assert "tablefeed retry --feed orders" in refused["annotations"]["description"]
        empty = []
        for target in targets:
            query = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$feed", ".*")
            if not (await ask("query", query))["result"] and target["legendFormat"] not in OFTEN_EMPTY:
                empty.append(query)
        assert empty == []
        assert await daemon.end() == 0
