"""Neither the key nor anything of a presigned URL that gives access is ever seen outside the ledger's own files."""

import json
import os
import resource
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.daemon import KEY, Daemon, Site, clean_environ, command, running_daemon
from support.indiscreet import Indiscreet, indiscreet
from support.leaks import Search, command_lines, spellings
from tablefeed.gates import HOST_THRESHOLD
from tablefeed.sandbox.server import SandboxSettings, running

GRANTS = ("good", "token", "second", "azure", "google", "away", "strange", "html", "other")
ANSWERS = ("busy", "page", "refused", "overdue", "lost", "sent", "chatty", "damaged", "large")
PAUSES = ("named", "plain", "lured", "denied")
ANNOUNCED = ("refused", "sent", "good")
"""What is so large that it is announced with `Expect: 100-continue`."""
HOOK, HOOK_SECRET = "h00k-p4th-that-nobody-may-see", "h00k-s3cret-that-nobody-may-see"
COMMANDS = (
    "check",
    "config show",
    "status",
    "status --json",
    "history",
    "history --json",
    "history --state rejected",
    "retry --all",
    "run --once",
    "history --json --feed orders",
)


@dataclass
class Stage:
    """A site whose ProcessMind repeats all it is told."""

    site: Site
    server: Indiscreet

    def search(self) -> Search:
        """For the key and for all that was given out until now."""
        return Search({KEY, HOOK, HOOK_SECRET, *self.server.secrets()})

    def drop(self, feed: str, name: str, size: int = 100) -> None:
        """Put a whole file into a feed's directory."""
        directory = Path(self.site.feeds[feed]["directory"])
        part = directory / f".{name}.part"
        part.write_bytes(os.urandom(size))
        part.rename(directory / name)

    def drop_all(self) -> int:
        """One file for each mishap; returns how many are delivered in the end."""
        for kind in (*GRANTS, *ANSWERS):
            self.drop("orders", f"{kind}-1.csv", 2 * 2**20 if kind in ANNOUNCED else 100)
        for kind in PAUSES:
            self.drop("paused", f"{kind}-1.csv")
        self.drop("orders", "huge-1.csv", 5 * 2**20)
        self.drop("unknown", "lost-2.csv")
        return len((*GRANTS, *ANSWERS, *PAUSES)) - 1


@asynccontextmanager
async def staged(root: Path) -> AsyncIterator[Stage]:
    async with (
        running(SandboxSettings(root / "processmind", KEY)) as sandbox,
        indiscreet(sandbox.base_url) as (origin, server),
    ):
        site = Site(root, origin)
        secret = root / "notify-secret"
        secret.write_text(HOOK_SECRET)
        hook = {"notify_url": f"{origin}/hook/{HOOK}?k={HOOK}", "notify_secret_file": str(secret)}
        site.feed("orders", dataset_id="dataset-1", **hook)
        site.feed("paused", dataset_id="dataset-1", **hook)
        site.feed("unknown", dataset_id="dataset-1", datatable_id="no-such-table")
        site.sections["upload"] = {"max_size": "4MiB"}
        yield Stage(site, server)


@pytest.fixture
def _no_core() -> Iterator[None]:
    """An aborted process leaves no core file about."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


async def first_run(stage: Stage) -> Daemon:
    """All mishaps under a daemon that tells everything it can; it crashes while it sends a file."""
    count = stage.drop_all()
    talkative = {"PYTHONASYNCIODEBUG": "1", "PYTHONFAULTHANDLER": "1", "PYTHONWARNINGS": "always", "PYTHONDEVMODE": "1"}
    async with running_daemon(stage.site.config, environ=talkative) as daemon:
        await daemon.until_event("file_archived", count, 120)
        for number in range(HOST_THRESHOLD):
            stage.drop("orders", f"down-{number}.csv")
        await daemon.until(lambda: "down" in stage.server.mishaps and daemon.named("host_failing"))
        stage.server.up.set()
        await daemon.until_event("file_archived", count + HOST_THRESHOLD)
        stage.drop("orders", "good-1.csv")
        await daemon.until_event("file_archived", count + HOST_THRESHOLD + 1)
        stage.drop("orders", "held-1.csv")
        await stage.server.held.wait()
        assert stage.search().leaks(command_lines()) == []
        assert await daemon.end(signal.SIGABRT) == -signal.SIGABRT
    return daemon


async def second_run(stage: Stage) -> Daemon:
    """Goes on, in the other format, with a file that is under way when it must end."""
    stage.site.sections["log"] = {"format": "console"}
    stage.server.held.clear()
    async with running_daemon(stage.site.config) as daemon:
        await stage.server.held.wait()
        for kind in ("busy", "page", "overdue", "chatty"):
            stage.drop("orders", f"{kind}-2.csv")
        stage.drop("paused", "denied-2.csv")
        await daemon.until(lambda: "feed=paused place" in daemon.log and "file_delayed" in daemon.log)
        stage.server.let_go.set()
        assert await daemon.end() == 0
    return daemon


def closed_rows(ledger: Path) -> str:
    """What the ledger keeps of files that it has no more use for a grant of."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as raw:
        rows = raw.execute("select * from files where closed_at is not null or state = 'uploaded'").fetchall()
    return "\n".join(map(repr, rows))


@pytest.mark.usefixtures("_no_core")
async def test_the_busiest_day_shows_no_secret(tmp_path: Path) -> None:
    """Logs in both formats, outputs of all commands, error files, the ledger's rows and the list of processes."""
    async with staged(tmp_path) as stage:
        first = await first_run(stage)
        assert set(stage.server.mishaps) == {*GRANTS, *ANSWERS, *PAUSES, "down", "held"} - {"good"}
        for event in ("file_delayed", "grant_refreshed", "feed_paused", "host_failing", "file_rejected"):
            assert first.named(event), event
        assert "Fatal Python error: Aborted" in first.log
        rows = closed_rows(stage.site.ledger)
        assert rows.count("archived") > 15
        second = await second_run(stage)
        assert "ledger_recovered" in second.log
        kinds = {json.loads(body)["event"] for body in stage.server.told}
        assert kinds >= {"file.delivered", "file.rejected", "feed.paused", "feed.resumed"}
        assert first.named("webhook_failing")
        texts = {f"event {number}": body.decode() for number, body in enumerate(stage.server.told)}
        texts |= {"first run": first.log, "second run": second.log, "rows": rows}
        for name in COMMANDS:
            _, out, err = await command(*name.split(), "--config", str(stage.site.config))
            texts[name] = out + err
            assert texts[name], name
        search = stage.search()
        assert len(search.secrets) > 40
        assert {name: leaks for name, text in texts.items() if (leaks := search.leaks(text))} == {}
        assert list(tmp_path.rglob("*.error.json"))
        mine = [tmp_path / name for name in ("api-key", "notify-secret", "tablefeed.toml")]
        ours = (*mine, *tmp_path.glob("ledger.db*"), tmp_path / "processmind")
        assert search.leaks_below(tmp_path, but=ours) == []


CRASH = """
import sys
from tablefeed.cli.app import main
from tablefeed.upload import Uploader

async def upload(self, directory, version, grant, progress, digests):
    key = open({key!r}).read().strip()
    url, headers = grant.url, {{"x-api-key": key}}
    raise RuntimeError(f"PUT {{grant.url}} with {{key}}", headers) from ValueError(grant.url)

Uploader.upload = upload
sys.argv = ["tablefeed", "run", "--config", {config!r}]
main()
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_a_crash_tells_where_it_was_and_shows_no_secret(tmp_path: Path, log_format: str) -> None:
    """A traceback of what nobody foresaw, with a URL and a key in its exceptions, is told without them."""
    async with staged(tmp_path) as stage:
        stage.site.sections["log"] = {"format": log_format}
        stage.drop("orders", "good-1.csv")
        program = CRASH.format(key=str(tmp_path / "api-key"), config=str(stage.site.config))
        process = await create_subprocess_exec(sys.executable, "-c", program, env=clean_environ(), stderr=PIPE)
        _, err = await process.communicate()
        assert process.returncode == 1
        assert b"Traceback" in err
        assert b"RuntimeError: " in err
        assert b"ValueError: " in err
        assert stage.server.issued
        assert stage.search().leaks(err) == []


def test_the_search_finds_what_it_looks_for() -> None:
    """Whole, in part, in either case, percent-encoded and in base64: an audit that finds nothing has looked."""
    secret = "AbC/dEf+0123=456789xyz"
    search = Search([secret])
    for needle in spellings(secret):
        assert search.leaks(b"\n{..." + needle + b"...}"), needle
    for text in (
        "AbC%2FdEf%2B0123%3D456",
        "abc%2fdef%2b0123%3d456",
        "QWJDL2RFZiswMTIzPTQ1Njc4OXh5e",
        "23=456789XYZ",
    ):
        assert search.leaks(f"before{text}after"), text
    assert search.leaks("AbC/dEf+0123 and 456789") == []
