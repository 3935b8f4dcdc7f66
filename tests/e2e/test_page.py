"""The page in a real browser, in front of the real daemon."""

import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from support.browser import needs_browser, opened, started
from support.daemon import Daemon, Site, rename_in, running_daemon
from support.postgres import Postgres
from support.stores import Server, serving
from tablefeed.sandbox.server import RunningSandbox

pytestmark = needs_browser

TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with started() as browser:
        yield browser


@pytest.fixture
def site(site: Site) -> Site:
    """With the page at a port that stays the same, and a token."""
    listen(site)
    return site


def listen(site: Site, *, token: bool = True) -> None:
    """Let it serve the page."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    site.sections["http"] = {"listen": f"127.0.0.1:{port}"}
    if token:
        file = site.root / "token"
        file.write_text(TOKEN)
        file.chmod(0o600)
        site.sections["http"]["token_file"] = str(file)


@asynccontextmanager
async def shown(browser: Browser, site: Site, **context: Any) -> AsyncIterator[tuple[Page, Daemon]]:
    """A running daemon, and its page."""
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("ready")
        async with opened(browser, site.sections["http"]["listen"], **context) as page:
            await expect(page.locator("#link-text")).to_have_text("live")
            yield page, daemon
        assert await daemon.end() == 0


def feed_row(page: Page, name: str) -> Any:
    """A feed's row."""
    return page.locator("#feed-rows tr").filter(has=page.locator(f".name:text-is('{name}')"))


async def give_token(page: Page, token: str = TOKEN) -> None:
    """Type it into the dialog that asks for it."""
    await expect(page.get_by_role("dialog", name="Token")).to_be_visible()
    await page.locator("#token").fill(token)
    await page.keyboard.press("Enter")


async def test_a_delivery_shows_by_itself(site: Site, sandbox: RunningSandbox, browser: Browser) -> None:
    """In the totals, the feed's row, the chart and the history, with its receipt; nobody reloads."""
    orders = site.feed("orders")
    async with shown(browser, site) as (page, _):
        await expect(page.get_by_role("heading", level=1)).to_have_text("All is well")
        await expect(page.locator("#history-note")).to_contain_text("Nothing has been recorded yet")
        await expect(page.locator("#feed-rows")).to_contain_text("never")
        (orders / "a.csv").write_text("content")
        await expect(feed_row(page, "orders").locator("td").nth(2)).to_contain_text("1")
        await expect(page.locator("#hour-sum")).to_have_text("1 file, 7 B")
        chart = page.get_by_role("img", name=re.compile("In the last hour 1 file with 7 B"))
        await expect(chart).to_be_visible()
        row = page.get_by_role("row", name=re.compile(r"a\.csv"))
        await expect(row.first).to_contain_text("archived")
        await page.get_by_role("button", name="Details of a.csv").click()
        details = page.locator("tr.details")
        await expect(details).to_contain_text("9a0364b9e99bb480dd25e1f0284c8555")
        await expect(details).to_contain_text("equals the MD5")


async def test_an_upload_in_flight_has_a_bar_that_moves(tmp_path: Path, browser: Browser) -> None:
    """With its bytes, and a name for those who do not see it."""
    go_on = asyncio.Event()

    async def put(server: Server, request: Any, body: bytes) -> Any:
        await go_on.wait()
        return server.take(request, body)

    async with serving(Server(put)) as origin:
        site = Site(tmp_path, origin)
        listen(site)
        (site.feed("orders", dataset_id="d") / "big.csv").write_bytes(b"x" * 3_000_000)
        async with shown(browser, site) as (page, daemon):
            bar = page.get_by_role("progressbar", name="Upload of big.csv")
            await expect(bar).to_be_visible()
            await expect(bar).to_have_attribute("aria-valuetext", "100 %")
            await expect(page.locator("#uploads")).to_contain_text("2.9 MiB of 2.9 MiB")
            go_on.set()
            await expect(page.locator("#no-uploads")).to_be_visible()
            await daemon.until_event("file_archived")


async def test_each_kind_of_trouble_is_told_with_its_remedy(
    site: Site, sandbox: RunningSandbox, browser: Browser
) -> None:
    """What is wrong, why, since when, what to do, and what comes next."""
    (site.feed("wrong", datatable_id="nonesuch") / "a.csv").write_text("a")
    away = site.feed("away")
    site.feed("late", expect_every="1s")
    for number in range(5):
        (site.feed(f"down-{number}", base_url="http://127.0.0.1:9", dataset_id="d") / "b.csv").write_text("b")
    site.sections["upload"] = {"max_size": "10B"}
    (site.feed("large") / "c.csv").write_text("c" * 11)
    away.rmdir()
    async with shown(browser, site) as (page, _):
        troubles = page.get_by_role("region", name="What is in the way").get_by_role("listitem")
        wrong = troubles.filter(has_text="wrong cannot deliver")
        await expect(wrong).to_contain_text("holds the datatable nonesuch")
        await expect(wrong).to_contain_text("To do: Check the feed's datatable_id")
        await expect(wrong).to_contain_text(re.compile("since .* next try"))
        await expect(troubles.filter(has_text="The directory of away cannot be used")).to_contain_text("To do:")
        late = troubles.filter(has_text="No file came for late")
        await expect(late).to_contain_text("See whether the job")
        await expect(late).to_contain_text(re.compile("overdue since .* ago"))
        down = troubles.filter(has_text="http://127.0.0.1:9 fails")
        await expect(down).to_contain_text("cannot be reached")
        await expect(down).to_contain_text("the files of down-0, down-1, down-2 and 2 more are sent when")
        await expect(feed_row(page, "away")).to_contain_text("directory unusable")
        await expect(feed_row(page, "late")).to_contain_text("overdue for")
        headline = page.get_by_role("heading", level=1)
        await expect(headline).to_contain_text("blocked: wrong")
        await expect(headline).to_contain_text("1 file refused")
        refused = page.locator("#failing-rows li").filter(has_text="c.csv")
        await expect(refused).to_contain_text("are more than `max_size`")
        await expect(page).to_have_title(re.compile("trouble"))


async def test_a_lost_connection_is_told_and_mended(site: Site, sandbox: RunningSandbox, browser: Browser) -> None:
    """Numbers of a dead daemon are never shown as fresh; when it is back, the page is too, without a reload."""
    site.feed("orders")
    address = site.sections["http"]["listen"]
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("ready")
        async with opened(browser, address) as page:
            await expect(page.locator("#link-text")).to_have_text("live")
            await daemon.end(signal.SIGKILL)
            lost = page.locator("#lost")
            await expect(lost).to_contain_text("The connection to the daemon is lost. What you see is from ")
            await expect(page.locator("body")).to_have_class(re.compile("stale"))
            await expect(page).to_have_title(re.compile("no connection"))
            await expect(page.locator("#totals")).to_have_css("opacity", "0.5")
            async with running_daemon(site.config) as second:
                await second.until_event("ready")
                await expect(lost).to_be_hidden()
                await expect(page.locator("#link-text")).to_have_text("live")
                await expect(page.locator("body")).not_to_have_class(re.compile("stale"))
                assert await second.end() == 0
                await expect(lost).to_contain_text("The daemon has ended")


async def test_an_open_page_does_not_hold_up_the_end(site: Site, sandbox: RunningSandbox, browser: Browser) -> None:
    """Two pages look, and the daemon ends as fast as without them."""
    site.feed("orders")
    address = site.sections["http"]["listen"]
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("ready")
        async with opened(browser, address) as first, opened(browser, address) as second:
            for page in (first, second):
                await expect(page.locator("#link-text")).to_have_text("live")
            assert await daemon.end() == 0
        began, ended = (daemon.named(name)[0]["timestamp"] for name in ("draining", "stopped"))
        assert (seconds(ended) - seconds(began)) % 86_400 < 10


def seconds(timestamp: str) -> float:
    """Of the day."""
    hours, minutes, rest = timestamp.partition("T")[2].rstrip("Z").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


async def test_a_server_that_falls_silent_counts_as_lost(site: Site, sandbox: RunningSandbox, browser: Browser) -> None:
    """A daemon that is stopped keeps its connections open and says nothing: the page does not trust the silence."""
    site.feed("orders")
    async with shown(browser, site) as (page, daemon):
        os.kill(daemon.process.pid, signal.SIGSTOP)
        try:
            await expect(page.locator("#lost")).to_be_visible(timeout=30_000)
        finally:
            os.kill(daemon.process.pid, signal.SIGCONT)
        await expect(page.locator("#lost")).to_be_hidden()


async def test_a_feed_is_paused_and_resumed_with_the_token(
    site: Site, sandbox: RunningSandbox, browser: Browser
) -> None:
    """A wrong one is asked for again; the right one is asked for once in a tab, and kept nowhere else."""
    orders = site.feed("orders")
    async with shown(browser, site) as (page, daemon):
        await page.get_by_role("button", name="Pause orders").click()
        await give_token(page, "wrong-token-by-far")
        await expect(page.get_by_role("alert")).to_contain_text("This is not the token")
        await give_token(page)
        await expect(feed_row(page, "orders")).to_contain_text("paused")
        await expect(page.locator("#notice-text")).to_contain_text("orders is paused")
        (orders / "a.csv").write_text("content")
        await expect(feed_row(page, "orders").locator("td").first).to_contain_text("1")
        assert daemon.named("file_delivered") == []
        await page.get_by_role("button", name="Resume orders").click()
        await daemon.until_event("file_archived")
        await expect(feed_row(page, "orders")).to_contain_text("well")
        assert await page.evaluate("localStorage.length + document.cookie.length") == 0
        assert TOKEN not in await page.content()
        assert TOKEN not in daemon.log


async def test_refused_files_are_retried_one_by_one_and_all_of_a_feed(
    site: Site, sandbox: RunningSandbox, browser: Browser
) -> None:
    """What can be put back goes its way; what cannot is told with the reason."""
    orders = site.feed("orders")
    site.sections["upload"] = {"max_size": "10B"}
    for name in ("one.csv", "two.csv", "three.csv"):
        (orders / name).write_text(f"{name} is too large")
    async with running_daemon(site.config, "--once") as daemon:
        assert await daemon.process.wait() == 1
    site.sections["upload"] = {"max_size": "1KiB"}
    (orders / "failed" / "three.csv").unlink()
    async with shown(browser, site) as (page, daemon):
        await page.get_by_role("button", name="Retry one.csv").first.click()
        await give_token(page)
        await expect(page.locator("#notice-text")).to_contain_text("one.csv is tried again")
        await daemon.until_event("file_archived")
        await page.get_by_role("button", name="Retry all refused files of orders").click()
        await expect(page.locator("#notice-text")).to_contain_text("two.csv is tried again. Not put back: ")
        await expect(page.locator("#notice-text")).to_contain_text("three.csv is not there any more")
        await daemon.until_event("file_archived", 2)
        await expect(feed_row(page, "orders").locator("td").nth(3)).to_have_text("1")
    assert set(site.archived("orders")) == {"one.csv", "two.csv"}


async def test_the_bandwidth_is_set_by_hand_and_released(site: Site, sandbox: RunningSandbox, browser: Browser) -> None:
    """A rate that is none is refused where it was typed; then it is as configured again."""
    site.feed("orders")
    site.sections["upload"] = {"bandwidth": "20MiB/s"}
    async with shown(browser, site) as (page, _):
        limit = page.locator("#bandwidth")
        await expect(limit).to_contain_text("Bandwidth 20 MiB/s (configuration)")
        await page.get_by_role("button", name="Change the bandwidth").click()
        await page.locator("#rate").fill("fast")
        await page.keyboard.press("Enter")
        await give_token(page)
        await expect(page.locator("#limit-wrong")).to_contain_text("is not a rate")
        await page.locator("#rate").fill("5MiB/s")
        await page.keyboard.press("Enter")
        await expect(limit).to_contain_text("Bandwidth 5 MiB/s (set by hand)")
        await page.get_by_role("button", name="Change the bandwidth").click()
        await page.get_by_role("button", name="As configured").click()
        await expect(limit).to_contain_text("Bandwidth 20 MiB/s (configuration)")


async def test_without_a_token_file_there_are_no_dead_buttons(
    site: Site, sandbox: RunningSandbox, browser: Browser
) -> None:
    """But words on how to turn them on."""
    site.feed("orders")
    del site.sections["http"]["token_file"]
    async with shown(browser, site) as (page, _):
        await expect(page.locator("#locked")).to_contain_text("[http] token_file")
        await expect(page.get_by_role("button", name=re.compile("Pause|Resume|Retry"))).to_have_count(0)


HOSTILE = [
    b"<script>alert(1)</script>.csv",
    b"<img src=x onerror=alert(2)>.csv",
    b"\"'&amp;<b>quotes.csv",
    b"new\nline.csv",
    b"caf\xe9.csv",
    "abc\u202efdc.csv".encode(),
    b"x" * 250 + b".csv",
    b"${alert(3)}{{7*7}}.csv",
]


async def test_what_a_name_contains_is_shown_and_never_run(
    site: Site, sandbox: RunningSandbox, browser: Browser
) -> None:
    """Markup is text, what is unseen is written out, what turns the direction turns nothing, what is long wraps."""
    orders = site.feed("orders", include=["*"])
    site.sections["upload"] = {"max_size": "1KiB"}
    async with shown(browser, site, viewport={"width": 360, "height": 800}) as (page, daemon):
        page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.dismiss()))
        for number, name in enumerate(HOSTILE):
            large = b"x" * 2048 if number < 3 else b"content"
            Path(os.fsdecode(bytes(orders) + b"/" + name.replace(b"/", b""))).write_bytes(large)
        await daemon.until(lambda: len(daemon.named("file_archived") + daemon.named("file_rejected")) == len(HOSTILE))
        names = page.locator("#records .where bdi")
        await expect(names).to_have_count(len(HOSTILE))
        found = "\n".join(await names.all_text_contents())
        for text in ("<script>alert(1)<script>.csv", "<img src=x onerror=alert(2)>.csv", "\"'&amp;<b>quotes.csv"):
            assert text in found
        for text in (r"new\nline.csv", r"caf\xe9.csv", r"abc\u202efdc.csv", "${alert(3)}{{7*7}}.csv"):
            assert text in found
        assert "\u202e" not in await page.content()
        assert await page.locator("main img, main script, main b").count() == 0
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        for button in await page.get_by_role("button", name=re.compile("^Details of")).all():
            await button.click()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360


async def test_the_history_is_searched(site: Site, sandbox: RunningSandbox, browser: Browser) -> None:
    """By text as it is typed, by feed and by state; that nothing fits is said."""
    for feed in ("orders", "invoices"):
        directory = site.feed(feed)
        for number in range(3):
            (directory / f"{feed}-{number}_100%.csv").write_text("content")
    async with shown(browser, site) as (page, daemon):
        await daemon.until_event("file_archived", 6)
        rows = page.locator("#records tr.record")
        await expect(rows).to_have_count(6)
        await page.get_by_label("Name or number").fill("ORDERS-1_100%")
        await expect(rows).to_have_count(1)
        await page.get_by_label("Name or number").fill("_1_")
        await expect(page.locator("#history-note")).to_have_text("Nothing that fits is recorded.")
        await page.get_by_label("Name or number").fill("")
        await page.get_by_role("combobox", name="Feed").select_option("invoices")
        await expect(rows).to_have_count(3)
        await page.get_by_role("combobox", name="State").select_option("rejected")
        await expect(rows).to_have_count(0)


async def test_a_disk_is_not_suspected_where_postgresql_is_away(
    site: Site, sandbox: RunningSandbox, browser: Browser
) -> None:
    """What says itself that PostgreSQL does not answer has no other remedy beside it; what SQLite says has."""
    site.feed("orders")
    ask = """async (reason) => (await import("/static/trouble.js")).troublesOf(
        {ledger_problem: reason, fleet: {now: null, nodes: []}, feeds: [], servers: []})[0].remedy"""
    async with shown(browser, site) as (page, _):
        remedies = [await page.evaluate(ask, reason) for reason in ("x: PostgreSQL does not answer", "disk I/O error")]
    assert ["disk" in remedy for remedy in remedies] == [False, True]


async def test_the_history_is_there_from_the_first_moment(
    site: Site, sandbox: RunningSandbox, browser: Browser
) -> None:
    """With the first picture, however soon after the page is opened that comes: here no time passes at all."""
    (site.feed("orders") / "orders-1.csv").write_text("content")
    async with shown(browser, site) as (page, daemon):
        await daemon.until_event("file_archived")
        await page.add_init_script("performance.now = () => 0;")
        await page.reload()
        await expect(page.locator("#records tr.record")).to_have_count(1)


async def test_it_fits_every_width_in_both_schemes_and_is_accessible(
    site: Site, sandbox: RunningSandbox, browser: Browser
) -> None:
    """Nothing is scrolled sideways, and axe finds nothing: contrast, names, roles, landmarks, headings."""
    axe = pytest.importorskip("axe_playwright_python.base", reason="axe-playwright-python is not installed here")
    site.sections["upload"] = {"max_size": "10B"}
    (site.feed("orders", expect_every="1s") / "refused.csv").write_text("much too large")
    (site.feed("wrong", datatable_id="nonesuch") / "a-rather-long-name-of-an-export-of-2026-11-24.csv").write_text("a")
    (site.feed("invoices") / "i.csv").write_text("i")
    address = site.sections["http"]["listen"]
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("ready")
        for width, scheme in ((360, "dark"), (768, "light"), (1180, "dark"), (1600, "light")):
            viewport = {"width": width, "height": 900}
            async with opened(browser, address, viewport=viewport, color_scheme=scheme, bypass_csp=True) as page:
                await expect(page.locator("#records tr.record")).to_have_count(3)
                troubles = page.get_by_role("region", name="What is in the way").get_by_role("listitem")
                await expect(troubles).to_have_count(2)
                await page.get_by_role("button", name="Details of i.csv").click()
                assert await page.evaluate("document.documentElement.scrollWidth") <= width
                await page.evaluate(axe.AXE_FILE_PATH.read_text())
                found = await page.evaluate("axe.run().then((found) => found.violations)")
                assert [(it["id"], [node["html"][:200] for node in it["nodes"]]) for it in found] == []
                ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
                assert (sum(map(int, re.findall(r"\d+", ground)[:3])) > 384) == (scheme == "light")
        assert await daemon.end() == 0


async def test_a_fleet_is_shown_on_the_page_of_any_node(tmp_path: Path, postgres: Postgres, browser: Browser) -> None:
    """Who lives, what the others send and have trouble with, and who is away; at all widths, and axe finds nothing."""
    axe = pytest.importorskip("axe_playwright_python.base", reason="axe-playwright-python is not installed here")
    go_on = asyncio.Event()

    async def put(server: Server, request: Any, body: bytes) -> Any:
        await go_on.wait()
        return server.take(request, body)

    url = postgres.database()
    (share := tmp_path / "share").mkdir()
    server = Server(put)
    server.unknown = "table-9"
    async with serving(server) as origin, AsyncExitStack() as stack:
        sites, daemons = {}, {}
        for name in ("north", "south"):
            (tmp_path / name).mkdir()
            sites[name] = Site(tmp_path / name, origin)
            sites[name].sections = {"ledger": {"url": url}, "fleet": {"node": name, "lease": "6s"}}
            listen(sites[name])
            sites[name].feed(f"of-{name}", dataset_id="d")
            sites[name].feed("orders", dataset_id="d")
            if name == "south":
                for feed in ("orders", "wrong"):
                    rename_in(sites[name].feed(feed, dataset_id="d", datatable_id="table-9"), "a.csv", b"x")
            sites[name].feed("common", dataset_id="d", directory=str(share), shared=True)
            daemons[name] = await stack.enter_async_context(running_daemon(sites[name].config))
            await daemons[name].until_event("ready")
        for number in range(2):
            (tmp_path / "south" / "drop" / "of-south" / f"export-{number}.csv").write_bytes(b"x" * 9_000)
        address = sites["north"].sections["http"]["listen"]
        await daemons["south"].until_event("feed_paused", 2)
        for width, scheme in ((360, "dark"), (1600, "light")):
            viewport = {"width": width, "height": 900}
            async with opened(browser, address, viewport=viewport, color_scheme=scheme, bypass_csp=True) as page:
                nodes = page.get_by_role("region", name="Nodes")
                await expect(nodes.locator("tbody tr")).to_have_count(2)
                await expect(nodes.locator("tbody tr").first).to_contain_text("this one")
                await expect(nodes.locator("tbody tr").last).to_contain_text("living, 2 troubles")
                trouble = page.get_by_role("region", name="What is in the way").get_by_role("listitem")
                await expect(trouble).to_have_count(1)
                await expect(trouble).to_contain_text("orders on south, wrong on south cannot deliver")
                await expect(trouble).to_contain_text("table-9")
                await expect(trouble).to_contain_text("since ")
                await expect(feed_row(page, "wrong").locator(".pill.bad")).to_have_text("blocked")
                await expect(feed_row(page, "orders").locator(".pill.bad")).to_have_text("blocked on 1 of 2 nodes")
                await expect(feed_row(page, "of-south").locator(".pill.ok")).to_have_text("elsewhere")
                await expect(page.locator("#held-rows li")).to_have_count(2)
                await expect(page.locator("#held-rows li").first).to_contain_text("being sent by south")
                await expect(feed_row(page, "of-south")).to_contain_text("elsewhere")
                await expect(feed_row(page, "of-south")).to_contain_text("on south")
                assert await page.evaluate("document.documentElement.scrollWidth") <= width
                await page.evaluate(axe.AXE_FILE_PATH.read_text())
                found = await page.evaluate("axe.run().then((found) => found.violations)")
                assert [(it["id"], [node["html"][:200] for node in it["nodes"]]) for it in found] == []
                if pictures := os.environ.get("TABLEFEED_TEST_PICTURES"):
                    await page.screenshot(path=f"{pictures}/fleet-{width}.png", full_page=True)
        async with opened(browser, address) as page:
            await feed_row(page, "of-south").get_by_role("button", name="Pause").click()
            await give_token(page)
            await daemons["south"].until_event("feed_paused_elsewhere")
            await daemons["south"].end(signal.SIGKILL)
            postgres.execute(url.rpartition("/")[2], "UPDATE nodes SET lease_until = 0 WHERE name = 'south'")
            trouble = page.get_by_role("region", name="What is in the way")
            await expect(trouble).to_contain_text("Node south is away")
            await expect(trouble).to_contain_text("4 files in its directories must wait")
            await expect(trouble).not_to_contain_text("wrong on south")
            await expect(feed_row(page, "wrong").locator(".pill")).to_have_text("away")
            await expect(feed_row(page, "orders").locator(".pill")).to_have_text("well")
            await expect(page.get_by_role("heading", level=1)).to_contain_text("wait for a node that is away: south")
            go_on.set()
            (share / "all.csv").write_bytes(b"x")
            await daemons["north"].until_event("file_archived")
            sent = page.locator("#records tr.record", has_text="all.csv")
            await expect(sent).to_contain_text("sent by north")
            await page.get_by_role("button", name="Details of all.csv").click()
            await expect(page.locator("#records tr.details:visible")).to_contain_text("Sent bynorth")
            waits = page.locator("#records tr.record", has_text="export-0.csv")
            await expect(waits).to_contain_text("on south")
            await expect(waits).not_to_contain_text("sent by")
        assert await daemons["north"].end() == 0


async def test_the_keyboard_reaches_everything_and_is_never_caught(
    site: Site, sandbox: RunningSandbox, browser: Browser
) -> None:
    """Skip link first; focus is seen, and stays where it is while numbers change; Escape closes the dialog."""
    orders = site.feed("orders")
    site.feed("invoices")
    async with shown(browser, site) as (page, daemon):
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the feeds")).to_be_focused()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("button", name="Change the bandwidth")).to_be_focused()
        await page.keyboard.press("Tab")
        pause = page.get_by_role("button", name="Pause orders")
        await expect(pause).to_be_focused()
        outline = await pause.evaluate("(button) => getComputedStyle(button).outlineStyle")
        assert outline == "solid"
        (orders / "a.csv").write_text("content")
        await daemon.until_event("file_archived")
        await expect(feed_row(page, "orders").locator("td").nth(2)).to_contain_text("1")
        await expect(pause).to_be_focused()
        await page.keyboard.press("Space")
        await expect(page.get_by_role("dialog", name="Token")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog", name="Token")).to_be_hidden()
        await expect(pause).to_be_focused()
        await expect(page.get_by_role("button", name="Details of a.csv")).to_be_visible()
        reached = set()
        for _ in range(30):
            await page.keyboard.press("Tab")
            reached.add(await page.evaluate("document.activeElement.ariaLabel || document.activeElement.id"))
        assert {"Pause invoices", "Details of a.csv", "q", "q-feed", "q-state"} <= reached


async def test_controls_have_names_and_the_page_has_landmarks(
    site: Site, sandbox: RunningSandbox, browser: Browser
) -> None:
    """As those who do not see the page are told of it."""
    (site.feed("orders") / "a.csv").write_text("content")
    async with shown(browser, site) as (page, _):
        await expect(page.locator("#records tr.record")).to_have_count(1)
        tree = await page.locator("body").aria_snapshot()
    for line in ("- banner:", "- main:", "- search", '- region "Feeds"', '- table "Feeds"', '- table "History"'):
        assert line in tree, tree
    for line in ('- columnheader "Delivered today"', '- rowheader "orders', '- heading "All is well" [level=1]'):
        assert line in tree, tree
    assert not re.search(r"- (button|combobox|searchbox|textbox|img|progressbar)(?! \")", tree), tree
