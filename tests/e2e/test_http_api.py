"""What programs ask of the running daemon over HTTP."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.daemon import Daemon, Site, running_daemon
from tablefeed.sandbox.server import RunningSandbox

TOKEN = "a-token-that-nobody-guesses"


class Client:
    """Asks one daemon."""

    def __init__(self, session: aiohttp.ClientSession, origin: str) -> None:
        self._session = session
        self._origin = origin

    async def get(self, path: str, **query: str) -> Any:
        async with self._session.get(self._origin + path, params=query) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def post(self, path: str, body: object = None, token: str = TOKEN) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        async with self._session.post(self._origin + path, json=body or {}, headers=headers) as answer:
            return answer.status, await answer.json()


@pytest.fixture
def token_file(site: Site) -> Path:
    """That of the site."""
    file = site.root / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    site.sections["http"] = {"listen": "127.0.0.1:0", "token_file": str(file)}
    return file


@asynccontextmanager
async def asked(site: Site) -> AsyncIterator[tuple[Client, Daemon]]:
    """A running daemon, and a client of it."""
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("ready")
        async with aiohttp.ClientSession() as session:
            yield Client(session, f"http://{daemon.named('started')[0]['http']}"), daemon
        assert await daemon.end() == 0


async def test_the_history_is_searched_and_holds_receipts_and_no_secret(
    site: Site, sandbox: RunningSandbox, token_file: Path
) -> None:
    """The same as the command tells, by feed, state and text."""
    orders = site.feed("orders")
    site.sections["upload"] = {"max_size": "10B"}
    (orders / "fits.csv").write_text("content")
    (orders / "large.csv").write_text("much too large")
    async with asked(site) as (client, daemon):
        await daemon.until_event("file_archived")
        await daemon.until_event("file_rejected")
        [found] = (await client.get("/api/files", q="FITS"))["files"]
        assert (found["path"], found["state"], found["md5"]) == (
            "fits.csv",
            "archived",
            "9a0364b9e99bb480dd25e1f0284c8555",
        )
        [refused] = (await client.get("/api/files", feed="orders", state="rejected"))["files"]
        assert refused["refused"]
        assert "max_size" in refused["what"]
        assert (await client.get("/api/files", feed="nonesuch"))["files"] == []
        assert not any("grant" in name for name in found)
        assert "Signature" not in json.dumps([found, refused, await client.get("/api/status")])


async def test_a_new_token_needs_no_restart_and_a_bad_file_opens_nothing(
    site: Site, sandbox: RunningSandbox, token_file: Path
) -> None:
    """The old one ends with it; what is empty, short, doubled or gone is told with the remedy, and never in the log."""
    site.feed("orders")
    async with asked(site) as (client, daemon):
        assert (await client.post("/api/feeds/orders/pause"))[0] == 200
        token_file.write_text("another-token-as-good")
        assert (await client.post("/api/feeds/orders/resume"))[0] == 401
        assert (await client.post("/api/feeds/orders/resume", token="another-token-as-good"))[0] == 200
        for content, said in (("", "is empty"), ("short", "shorter than 16"), (f"{TOKEN}\n{TOKEN}", "more than one")):
            token_file.write_text(content)
            status, answer = await client.post("/api/feeds/orders/pause", token=content.partition("\n")[0] or "x")
            assert status == 403
            assert said in answer["error"]
        token_file.unlink()
        status, answer = await client.post("/api/feeds/orders/pause")
        assert status == 403
        assert "does not exist" in answer["error"]
    assert TOKEN not in daemon.log
    assert "another-token-as-good" not in daemon.log


async def test_a_pause_outlives_the_daemon(site: Site, sandbox: RunningSandbox, token_file: Path) -> None:
    """What somebody has paused stays so until somebody resumes it."""
    orders = site.feed("orders")
    async with asked(site) as (client, daemon):
        assert (await client.post("/api/feeds/orders/pause"))[0] == 200
    (orders / "a.csv").write_text("content")
    async with asked(site) as (client, daemon):
        await daemon.until_event("files_queued")
        [feed] = (await client.get("/api/status"))["feeds"]
        assert (feed["state"], daemon.named("file_delivered")) == ("paused", [])
        assert (await client.post("/api/feeds/orders/resume"))[0] == 200
        await daemon.until_event("file_archived")


async def test_retried_files_are_taken_at_once(site: Site, sandbox: RunningSandbox, token_file: Path) -> None:
    """Neither an event nor the next scan is waited for."""
    orders = site.feed("orders")
    site.sections["upload"] = {"max_size": "10B"}
    site.sections["watch"] = {"polling": True, "rescan": "1h"}
    for name in ("a.csv", "b.csv"):
        (orders / name).write_text("much too large")
    async with running_daemon(site.config, "--once") as daemon:
        assert await daemon.process.wait() == 1
    site.sections["upload"] = {"max_size": "1KiB"}
    async with asked(site) as (client, daemon):
        status, said = await client.post("/api/retry", {"feed": "orders"})
        assert (status, len(said["put_back"]), said["not_put_back"]) == (200, 2, [])
        await daemon.until_event("file_archived", 2)
        status, said = await client.post("/api/retry", {"ids": [99]})
        assert (status, said["put_back"]) == (200, [])
        assert said["not_put_back"][0]["problem"] == "there is no such file in the ledger"
