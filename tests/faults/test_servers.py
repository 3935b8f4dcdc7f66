"""Servers that hang, lie, break off and refuse: the daemon tells the real reason, keeps the file, and delivers it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from support.daemon import KEY, Daemon, Site, contents, running_daemon
from support.rogue import (
    SIGNATURE,
    Act,
    Exchange,
    Rogue,
    agree_at_once,
    drip,
    error,
    flood,
    give,
    give_url,
    giving,
    hang,
    hang_after_body,
    listening_rogue,
    lose_reply,
    refusing_early,
    reset_at_once,
    reset_in_body,
    saying,
    take,
)

SMALL, MIDDLE, BIG = 1_000, 900_000, 5 * 2**20
STALL = 2.0
UNSIGNED = {"host", "content-length", "accept", "accept-encoding", "user-agent"}
"""Headers that need no signature."""
MOST_MEMORY = 400 * 2**20


def other_url(prefix: str) -> Act:
    """Give a URL that is valid, but not where it should be."""
    return lambda exchange: give(
        exchange, {"PreSignedUploadUrl": prefix + "?Expires=99999999999&Signature=" + SIGNATURE}
    )


def url_with(**query: str) -> Act:
    """Give a URL with other parameters."""
    return lambda exchange: give(exchange, {"PreSignedUploadUrl": exchange.server.url(3600, **query)})


async def expired_url(exchange: Exchange) -> None:
    """Give a URL whose time was over before it came."""
    await give(exchange, {"PreSignedUploadUrl": exchange.server.url(-60)})


async def take_typed(exchange: Exchange) -> None:
    """Take the body if it comes with the content type that was signed."""
    if exchange.headers.get("content-type") == "text/csv":
        await take(exchange)
    else:
        await saying(403, error("SignatureDoesNotMatch"))(exchange)


async def to_itself(exchange: Exchange) -> None:
    """Redirect in a circle."""
    await exchange.body()
    await exchange.answer(307, Location=exchange.target)


async def nonsense(exchange: Exchange) -> None:
    """Answer what is no HTTP."""
    await exchange.body()
    await exchange.raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    exchange.close()


async def ends_in_answer(exchange: Exchange) -> None:
    """Take the file, begin to answer, and cut the connection."""
    exchange.server.objects[exchange.path] = await exchange.body()
    await exchange.raw(exchange.answer_head(200, 500) + b"half of")
    exchange.reset()


def later_by(seconds: float) -> str:
    """A moment in the form of HTTP."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@dataclass(frozen=True)
class Case:
    """What a server does to the first requests, and what the log must say of it."""

    says: str
    put: tuple[Act, ...] = ()
    get: tuple[Act, ...] = ()
    size: int = SMALL
    paths: int = 1
    """How many URLs were used: one where the store may have had the file already."""
    event: str = "file_delayed"
    usual: Act = field(default=take)


ENDED = "closed the connection|reset by peer|Broken pipe"
"""What a lost connection is called depends on who notices it: a read, a write, or the next write after it."""
MISPLACED = "https://user:pa55word@127.0.0.1:1/o"
CASES: dict[str, Case] = {
    "put-reset": Case(ENDED, put=(reset_at_once,)),
    "put-hang": Case("took nothing for 2 s", put=(hang,)),
    "put-hang-big": Case("took nothing for 2 s", put=(hang,), size=BIG),
    "put-hang-after-body": Case("took nothing for 2 s", put=(hang_after_body,)),
    "put-reset-in-body": Case(ENDED, put=(reset_in_body,), size=BIG),
    "put-reply-lost": Case(ENDED, put=(lose_reply, lose_reply)),
    "put-reply-lost-big": Case(ENDED, put=(lose_reply,), size=BIG),
    "put-reply-cut": Case("broken HTTP", put=(ends_in_answer,)),
    "put-reply-drips": Case("took nothing for 2 s", put=(drip,)),
    "put-nonsense": Case("broken HTTP", put=(nonsense,)),
    "put-early-503": Case("503 SlowDown", put=(refusing_early(503, "SlowDown"),)),
    "put-early-503-middle": Case("503 SlowDown", put=(refusing_early(503, "SlowDown"),), size=MIDDLE),
    "put-early-503-reset": Case("503 SlowDown", put=(refusing_early(503, "SlowDown", reset=True),), size=MIDDLE),
    "put-early-503-in-body": Case("503 SlowDown", put=(refusing_early(503, "SlowDown", after=10**5),), size=MIDDLE),
    "put-early-503-big": Case("503 SlowDown", put=(refusing_early(503, "SlowDown", after=10**6),), size=BIG),
    "put-early-403": Case(
        "403 ExpiredToken", put=(refusing_early(403, "ExpiredToken"),), size=MIDDLE, paths=2, event="grant_refreshed"
    ),
    "put-early-403-big": Case(
        "403 ExpiredToken",
        put=(refusing_early(403, "ExpiredToken", after=10**6),),
        size=BIG,
        paths=2,
        event="grant_refreshed",
    ),
    "put-429-seconds": Case("answered 429", put=(saying(429, Retry_After="1"),)),
    "put-429-negative": Case("answered 429", put=(saying(429, Retry_After="-5"),)),
    "put-429-garbage": Case("answered 429", put=(saying(429, Retry_After="soon, perhaps"),)),
    "put-429-date": Case("answered 429", put=(lambda x: saying(429, Retry_After=later_by(1))(x),)),
    "put-429-past": Case("answered 429", put=(lambda x: saying(429, Retry_After=later_by(-(10**6)))(x),)),
    "put-wrong-etag": Case("damaged", put=(saying(200, ETag='"' + "0" * 32 + '"'),)),
    "put-html": Case("a page or an error", put=(saying(200, b"<!DOCTYPE html><html>Log in</html>"),)),
    "put-yes-too-early": Case("200 before it had the file", put=(agree_at_once,), size=BIG),
    "put-circle": Case("redirects in a circle", put=(to_itself,) * 3, event="feed_paused", paths=2),
    "put-to-http": Case(
        "not https", put=(saying(307, Location="http://store.example/k"),), event="feed_paused", paths=2
    ),
    "get-reset": Case(ENDED, get=(reset_at_once, reset_at_once)),
    "get-html": Case("text/html where JSON was expected", get=(saying(200, b"<html>Hi", Content_Type="text/html"),)),
    "get-nothing": Case("where JSON was expected", get=(saying(200),)),
    "get-no-url": Case("JSON without PreSignedUploadUrl", get=(giving({"url": "https://x"}),)),
    "get-number": Case("JSON without PreSignedUploadUrl", get=(giving({"PreSignedUploadUrl": 7}),)),
    "get-list": Case("JSON without PreSignedUploadUrl", get=(giving([1]),)),
    "get-null": Case("where JSON was expected", get=(giving(None),)),
    "get-no-url-at-all": Case("cannot be used", get=(giving({"PreSignedUploadUrl": "x y"}),)),
    "get-endless": Case("where JSON was expected", get=(flood,)),
    "get-redirect": Case("status 307", get=(saying(307, Location="https://elsewhere.example/"),)),
    "get-503": Case("answered 503", get=(saying(503, b"<html>down"),)),
    "get-429": Case("answered 429", get=(saying(429, Retry_After="1"),)),
    "get-http": Case("not https", get=(other_url("http://store.example/o"),), event="feed_paused"),
    "get-credentials": Case("carries a user name", get=(other_url(MISPLACED),), event="feed_paused"),
    "get-ftp": Case("cannot be used", get=(other_url("ftp://store.example/o"),)),
    "get-expired": Case("had expired before it came", get=(expired_url,)),
    "get-signed-type": Case("", get=(url_with(X_Amz_SignedHeaders="content-type%3Bhost"),), usual=take_typed),
    "get-signed-unknown": Case(
        "x-amz-acl", get=(url_with(X_Amz_SignedHeaders="host%3Bx-amz-acl"),), event="feed_paused"
    ),
    "get-403": Case("refused the API key", get=(saying(403, b'{"message": "no"}'),) * 2, event="feed_paused"),
    "get-404": Case("does not know datatable", get=(saying(404, b'{"message": "no"}'),), event="feed_paused"),
}


@dataclass
class Outcome:
    """What came of a case."""

    server: Rogue
    content: bytes
    archived: dict[str, bytes]
    left: list[str]
    events: list[dict[str, Any]]


@dataclass
class Run:
    """One daemon that met all cases at once, each in a feed and with a server of its own."""

    outcomes: dict[str, Outcome]
    log: str
    memory: int
    code: int


@asynccontextmanager
async def all_servers() -> AsyncIterator[dict[str, Rogue]]:
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(
                listening_rogue(Rogue(acts={"PUT": [*case.put], "GET": [*case.get]}, store=case.usual))
            )
            for name, case in CASES.items()
        }


def content_of(name: str) -> bytes:
    return (name.encode() + b"\n").ljust(CASES[name].size, b"x")


async def meet_all(root: Path) -> Run:
    async with all_servers() as servers:
        site = Site(root, next(iter(servers.values())).origin)
        site.sections["upload"] = {"stall_timeout": f"{STALL:g}s", "concurrency": 2 * len(CASES)}
        site.sections["api"] = {"concurrency": 2 * len(CASES)}
        for name, server in servers.items():
            drop = site.feed(name, dataset_id="dataset-1", base_url=server.origin)
            (drop / "a.csv").write_bytes(content_of(name))
        async with running_daemon(site.config) as daemon:
            await daemon.until_event("file_archived", len(CASES))
            memory = daemon.peak_memory()
            code = await daemon.end()
        outcomes = {
            name: Outcome(
                server,
                content_of(name),
                site.archived(name),
                [path.name for path in (root / "drop" / name).iterdir() if path.name != "archive"],
                [event for event in daemon.events if event.get("feed") == name],
            )
            for name, server in servers.items()
        }
        return Run(outcomes, daemon.log, memory, code)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return asyncio.run(meet_all(tmp_path_factory.mktemp("servers")))


@pytest.mark.parametrize("name", CASES)
def test_whatever_a_server_does_the_file_arrives_whole_and_the_reason_is_told(run: Run, name: str) -> None:
    """It lies in the archive and at the store byte for byte, nothing is set aside, no needless object is made, and the
    log has the server's own reason rather than what followed from it."""
    case, outcome = CASES[name], run.outcomes[name]
    assert outcome.archived == {"a.csv": outcome.content}
    assert outcome.left == []
    assert outcome.server.acts == {"PUT": [], "GET": []}, "the server did not get to all of its tricks"
    assert outcome.server.objects[outcome.server.puts[-1]] == outcome.content
    assert len(set(outcome.server.puts)) == case.paths
    assert len(outcome.server.objects) == 1
    reasons = [event["reason"] for event in outcome.events if event["event"] == case.event]
    if case.says:
        assert any(matches(case.says, reason) for reason in reasons), reasons
    else:
        assert reasons == []


def matches(alternatives: str, text: str) -> bool:
    return any(words in text for words in alternatives.split("|"))


def test_what_servers_do_costs_no_memory_and_gives_no_secret_away(run: Run) -> None:
    """Answers without end are cut off; the log at its most talkative has neither the key nor a signature."""
    assert run.code == 0
    assert run.memory < MOST_MEMORY
    assert KEY not in run.log
    assert SIGNATURE not in run.log
    assert "pa55word" not in run.log
    assert '"level": "critical"' not in run.log


def test_no_store_gets_the_key(run: Run) -> None:
    """The key goes to the API alone, and a PUT has no header that was not signed."""
    for name, outcome in run.outcomes.items():
        signed = {"content-type"} if name == "get-signed-type" else set()
        for put in outcome.server.of("PUT"):
            assert set(put.headers) <= {*UNSIGNED, "expect"} | signed
            assert KEY not in json.dumps(put.headers)


@asynccontextmanager
async def daemon_with(
    root: Path, server: Rogue, files: int = 1, size: int = SMALL
) -> AsyncIterator[tuple[Site, Daemon]]:
    site = Site(root, server.origin)
    drop = site.feed("orders", dataset_id="dataset-1")
    for n in range(files):
        (drop / f"{n:02}.csv").write_bytes(b"%02d".ljust(SMALL, b"x") % n)
    async with running_daemon(site.config) as daemon:
        yield site, daemon
        assert daemon.named("file_rejected") == []


async def test_another_host_gets_only_what_its_own_url_demands(tmp_path: Path) -> None:
    """A redirect is followed with the whole body, without the headers that the first URL was signed for."""
    async with listening_rogue(Rogue()) as elsewhere, listening_rogue(Rogue()) as server:
        server.acts = {
            "GET": [url_with(X_Amz_SignedHeaders="content-type%3Bhost")],
            "PUT": [saying(307, Location=elsewhere.url(3600))],
        }
        async with daemon_with(tmp_path, server) as (site, daemon):
            await daemon.until_event("file_archived")
            assert await daemon.end() == 0
        assert server.of("PUT")[0].headers["content-type"] == "text/csv"
        [arrived] = elsewhere.of("PUT")
        assert set(arrived.headers) <= UNSIGNED
        assert list(elsewhere.objects.values()) == list(site.archived("orders").values())


@pytest.mark.parametrize("asked", ["31536000", "99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_an_absurd_retry_after_is_believed_for_an_hour_at_most(tmp_path: Path, asked: str) -> None:
    """A server cannot put a file off for ever."""
    async with listening_rogue(Rogue()) as server:
        server.acts = {"PUT": [saying(429, Retry_After=asked)]}
        async with daemon_with(tmp_path, server) as (site, daemon):
            await daemon.until_event("file_delayed")
            assert await daemon.end() == 0
        [delayed] = daemon.named("file_delayed")
        assert 3_599 <= delayed["next_try_in"] <= 3_600
        assert site.dropped("orders") == {"00.csv"}


PERSISTENT: dict[str, Callable[[Rogue], None]] = {
    "api-html": lambda server: setattr(server, "api", saying(200, b"<html>", Content_Type="text/html")),
    "api-expired": lambda server: setattr(server, "api", expired_url),
    "store-503": lambda server: setattr(server, "store", saying(503, error("SlowDown"))),
    "store-early-503": lambda server: setattr(server, "store", refusing_early(503, "SlowDown", reset=True)),
    "store-reset": lambda server: setattr(server, "store", reset_at_once),
    "store-html": lambda server: setattr(server, "store", saying(200, b"<html>")),
}


@pytest.mark.parametrize("fault", PERSISTENT)
async def test_what_lasts_is_probed_and_ends_by_itself(tmp_path: Path, fault: str) -> None:
    """Many files and a server that is out of order: the requests stay few, and all files arrive once it is well."""
    async with listening_rogue(Rogue()) as server:
        PERSISTENT[fault](server)
        async with daemon_with(tmp_path, server, files=60) as (site, daemon):
            await daemon.until_event("host_failing")
            await daemon.until(lambda: len(daemon.named("file_delayed")) >= 36)
            assert len(server.seen) < 3 * 60
            server.api, server.store = give_url, take
            await daemon.until_event("file_archived", 60)
            assert await daemon.end() == 0
        assert len(site.archived("orders")) == 60
        assert sorted(server.objects.values()) == sorted(site.archived("orders").values())
        assert contents(tmp_path / "drop" / "orders" / "failed") == {}
