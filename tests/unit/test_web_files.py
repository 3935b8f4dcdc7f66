"""The history over HTTP, and the page with its files."""

import re
from collections.abc import AsyncIterator
from importlib.resources import files

import aiohttp
import pytest

from support.panel import FakePanel
from tablefeed.ledger.glance import Wanted
from tablefeed.ledger.records import Page
from tablefeed.model import State
from tablefeed.web.server import make_app, running

STATIC = files("tablefeed.web") / "static"


@pytest.fixture
def panel() -> FakePanel:
    return FakePanel()


@pytest.fixture
async def address(panel: FakePanel) -> AsyncIterator[str]:
    async with running(make_app(panel), "127.0.0.1:0") as bound:
        yield bound


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_search_is_passed_on_as_it_was_asked(
    address: str, client: aiohttp.ClientSession, panel: FakePanel
) -> None:
    """Every parameter, or none; what is not searched is said."""
    panel.page = Page([], 17, complete=False)
    async with client.get(f"http://{address}/api/files") as answer:
        said = await answer.json()
    assert (said["files"], said["next"], said["complete"]) == ([], 17, False)
    assert "older than number 17 were not searched" in said["note"]
    query = {"feed": "orders", "state": "rejected", "q": " a%_ ", "before": "9", "limit": "3"}
    async with client.get(f"http://{address}/api/files", params=query) as answer:
        assert answer.status == 200
    assert panel.wanted == [(Wanted(), 50), (Wanted("orders", State.REJECTED, "a%_", 9), 3)]


@pytest.mark.parametrize(
    "query",
    ["state=lost", "before=0", "before=x", "before=-1", "before=%D9%A3", f"before={2**63}", "before=" + "9" * 5000,
     "limit=0", "limit=201", "limit=1e2", "since=1h", "q=" + "x" * 501],
)  # fmt: skip
async def test_a_search_that_makes_no_sense_is_refused_in_words(
    address: str, client: aiohttp.ClientSession, panel: FakePanel, query: str
) -> None:
    """It names what is wrong, and the ledger is not asked."""
    async with client.get(f"http://{address}/api/files?{query}") as answer:
        assert answer.status == 400
        assert len((await answer.json())["error"]) < 300
    assert panel.wanted == []


async def test_the_page_comes_with_a_policy_that_lets_nothing_foreign_run(
    address: str, client: aiohttp.ClientSession
) -> None:
    """No inline script or style, no other origin, no frame; and it is asked for anew each time."""
    async with client.get(f"http://{address}/") as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        etag = answer.headers["ETag"]
    async with client.get(f"http://{address}/", headers={"If-None-Match": etag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")


async def test_every_file_of_the_page_is_there_with_its_type(address: str, client: aiohttp.ClientSession) -> None:
    """What the page and its scripts name is served, and nothing else is."""
    html = (STATIC / "index.html").read_text()
    named = set(re.findall(r'(?:href|src)="(/[^"]*)"', html))
    for file in STATIC.iterdir():
        if file.name.endswith(".js"):
            named |= {f"/static/{name}" for name in re.findall(r'from "\./([^"]+)"', file.read_text())}
    assert {"/static/app.js", "/static/style.css", "/static/dom.js"} <= named
    for path in named:
        async with client.get(f"http://{address}{path}") as answer:
            assert answer.status == 200, path
            assert (
                answer.content_type
                == {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}[path.rpartition(".")[2]]
            )
    for path in ("/static/", "/static/../server.py", "/static/%2e%2e/server.py", "/static/nonesuch.js", "/index.html"):
        async with client.get(f"http://{address}{path}") as answer:
            assert answer.status == 404


def test_the_page_asks_for_nothing_from_elsewhere_and_makes_no_markup_from_text() -> None:
    """No address of another host, no inline code, and no way in which a file's name could become an element."""
    for file in STATIC.iterdir():
        text = file.read_text()
        assert set(re.findall(r"https?://[\w./]+", text)) <= {"http://www.w3.org/2000/svg"}, file.name
        for way in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "localStorage",
        ):
            assert way not in text, (file.name, way)
    html = (STATIC / "index.html").read_text()
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script>", html)
