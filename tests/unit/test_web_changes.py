"""Who may change something over HTTP, and what is asked for: over real sockets, byte by byte where it matters."""

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from support.panel import TOKEN, FakePanel
from tablefeed.errors import Fatal, LedgerUnusable
from tablefeed.recovery import MOST, Choice
from tablefeed.web.guard import FREE_GUESSES, LONGEST_PAUSE, Guesses
from tablefeed.web.server import make_app, running

ROUTES = ["/api/retry", "/api/feeds/orders/pause", "/api/feeds/orders/resume", "/api/bandwidth"]


@pytest.fixture
def panel() -> FakePanel:
    return FakePanel()


@pytest.fixture
async def address(panel: FakePanel) -> AsyncIterator[str]:
    async with running(make_app(panel), "127.0.0.1:0") as bound:
        yield bound


async def post(
    address: str, path: str, body: object = None, *, token: str | None = TOKEN, **headers: str
) -> tuple[int, Any, Any]:
    """Status, JSON and headers of a change that is asked for."""
    sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    data = body if isinstance(body, bytes) else json.dumps({} if body is None else body)
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{address}{path}", data=data, headers=sent) as answer,
    ):
        return answer.status, await answer.json(), answer.headers


async def test_the_token_opens_all_changes(address: str, panel: FakePanel) -> None:
    """Each does what it is named for, and says so."""
    assert (await post(address, "/api/feeds/orders/pause"))[:2] == (200, {"feed": "orders", "paused": True})
    assert (await post(address, "/api/feeds/orders/resume"))[:2] == (200, {"feed": "orders", "paused": False})
    status, said, _ = await post(address, "/api/retry", {"ids": [7, 8]})
    assert (status, said["put_back"], said["next"]) == (200, [{"id": 7, "feed": "orders", "path": "a.csv"}], 8)
    assert said["not_put_back"] == [{"id": 8, "feed": "orders", "path": "b\\xff.csv", "problem": "b is there again"}]
    assert (await post(address, "/api/retry", {"feed": "orders", "after": 8}))[0] == 200
    assert (await post(address, "/api/retry", {"all": True}))[0] == 200
    assert (await post(address, "/api/bandwidth", {"rate": "5MiB/s"}))[0] == 200
    assert (await post(address, "/api/bandwidth", {"rate": ""}))[0] == 200
    assert (await post(address, "/api/bandwidth", {"rate": None}))[0] == 200
    assert panel.changed == [
        ("pause", "orders"),
        ("resume", "orders"),
        ("retry", Choice(ids=[7, 8])),
        ("retry", Choice(feed="orders", after=8)),
        ("retry", Choice()),
        ("limit", 5 * 2**20),
        ("limit", None),
        ("release", None),
    ]


@pytest.mark.parametrize("what", ["pause", "resume"])
async def test_what_cannot_be_kept_is_refused_in_words(address: str, panel: FakePanel, what: str) -> None:
    """Who presses the button while the ledger cannot be written learns why, and that nothing was changed."""
    panel.unwritable = LedgerUnusable("Nothing was changed: PostgreSQL is away", "start it")
    status, said, _ = await post(address, f"/api/feeds/orders/{what}")
    assert (status, said) == (503, {"error": "Nothing was changed: PostgreSQL is away. start it"})


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("authorization", [None, "Bearer wrong-token", "Bearer", "Bearer ", "Basic YTpi", TOKEN])
async def test_without_the_token_nothing_is_changed(
    address: str, panel: FakePanel, path: str, authorization: str | None
) -> None:
    """The refusal names the setting, asks for the token as HTTP does, and does not hold it."""
    headers = {} if authorization is None else {"Authorization": authorization}
    status, said, answered = await post(address, path, token=None, **headers)
    assert (status, panel.changed) == (401, [])
    assert answered["WWW-Authenticate"].startswith("Bearer ")
    assert "token_file" in said["error"]
    assert TOKEN not in str(said)


@pytest.mark.parametrize("path", ROUTES)
async def test_without_a_token_file_every_change_is_refused_with_the_remedy(
    address: str, panel: FakePanel, path: str
) -> None:
    """Also with an empty token."""
    panel.token_now = None
    for token in (None, "", "anything"):
        status, said, _ = await post(address, path, token=token)
        assert (status, panel.changed) == (403, [])
        assert "[http] token_file is not set. Set it to a file" in said["error"]


async def test_a_token_file_that_will_not_do_is_told(address: str, panel: FakePanel) -> None:
    """Why, and what to do, in the words of who reads it."""
    panel.token_now = Fatal("the token file /t is empty", "Write the token to it")
    status, said, _ = await post(address, "/api/retry", {"all": True})
    assert (status, panel.changed) == (403, [])
    assert "/t is empty. Write the token to it" in said["error"].replace(": W", ". W")


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://localhost"},
        {"Origin": ""},
        {"Origin": "file://"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example", "X-Forwarded-Host": "evil.example"},
    ],
    ids=str,
)
async def test_a_page_of_another_site_changes_nothing_even_with_the_token(
    address: str, panel: FakePanel, path: str, headers: dict[str, str]
) -> None:
    """What a browser says of where a request comes from counts, and what a proxy says of hosts does not."""
    status, said, _ = await post(address, path, **headers)
    assert (status, panel.changed) == (403, [])
    assert "another site" in said["error"]


async def test_two_origins_of_which_one_is_ours_are_refused(address: str, panel: FakePanel) -> None:
    """A header that is sent twice is no way in."""
    headers = [("Origin", f"http://{address}"), ("Origin", "http://evil.example"), ("Authorization", f"Bearer {TOKEN}")]
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{address}/api/feeds/orders/pause", json={}, headers=headers) as answer,
    ):
        assert (answer.status, panel.changed) == (403, [])


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8787", "http://localhost:8787"),
        ("localhost", "http://localhost"),
        ("localhost", "https://localhost"),
        ("localhost:443", "https://localhost"),
        ("LocalHost:8443", "https://localhost:8443"),
        ("[::1]:8787", "http://[::1]:8787"),
    ],
)
async def test_our_own_page_may_also_behind_a_proxy_that_ends_tls(
    address: str, panel: FakePanel, host: str, origin: str
) -> None:
    """Host and port are compared as the browser sees them; the port of the scheme need not be written."""
    headers = {"Host": host, "Origin": origin, "Sec_Fetch_Site": "same-origin"}
    assert (await post(address, "/api/feeds/orders/pause", **headers))[0] == 200


async def test_what_a_form_could_send_is_refused(address: str, panel: FakePanel) -> None:
    """Forms of other sites send no JSON."""
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        status, said, _ = await post(address, "/api/retry", {"all": True}, Content_Type=content_type)
        assert (status, panel.changed) == (415, [])
        assert "application/json" in said["error"]


async def test_a_foreign_host_changes_nothing(address: str, panel: FakePanel) -> None:
    """Not with the token either."""
    status, _, _ = await post(address, "/api/retry", {"all": True}, Host="evil.example")
    assert (status, panel.changed) == (421, [])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b'{"all": true',
        b"[" * 40_000,
        {},
        {"all": False},
        {"all": 1},
        {"ids": []},
        {"ids": [0]},
        {"ids": ["7"]},
        {"ids": [True]},
        {"ids": [2**70]},
        {"ids": [1.5]},
        {"ids": list(range(1, MOST + 2))},
        {"ids": [7], "all": True},
        {"feed": "orders", "more": 1},
        {"feed": 7},
        {"all": True, "after": -1},
        {"all": True, "after": "x"},
    ],
    ids=lambda body: str(body)[:30],
)
async def test_a_retry_that_does_not_say_which_is_refused(address: str, panel: FakePanel, body: object) -> None:
    """In words, and without a trace of Python."""
    status, said, _ = await post(address, "/api/retry", body)
    assert (status, panel.changed) == (400, [])
    assert said["error"][0].isupper()


@pytest.mark.parametrize(
    "body", [{}, {"rate": 5}, {"rate": "fast"}, {"rate": "1B/s"}, {"rate": "", "more": 1}], ids=str
)
async def test_a_rate_that_is_none_is_refused(address: str, panel: FakePanel, body: object) -> None:
    """With what would be right."""
    status, said, _ = await post(address, "/api/bandwidth", body)
    assert (status, panel.changed) == (400, [])
    assert "rate" in said["error"]


async def test_an_unknown_feed_is_named(address: str, panel: FakePanel) -> None:
    """To be paused, resumed or retried."""
    for path, body in (("/api/feeds/nonesuch/pause", {}), ("/api/retry", {"feed": "nonesuch"})):
        status, said, _ = await post(address, path, body)
        assert (status, panel.changed) == (404, [])
        assert "no feed 'nonesuch'" in said["error"]


async def test_changes_are_posted(address: str, panel: FakePanel) -> None:
    """Nothing that a link or an image could ask for changes anything."""
    async with aiohttp.ClientSession() as session:
        for path, method in itertools.product(ROUTES, ("GET", "PUT", "DELETE", "HEAD")):
            async with session.request(
                method, f"http://{address}{path}", headers={"Authorization": f"Bearer {TOKEN}"}
            ) as answer:
                assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert panel.changed == []


async def test_guessing_becomes_slow_and_says_how_long(address: str, panel: FakePanel) -> None:
    """After some wrong tokens not even the right one is compared for a moment."""
    for _ in range(FREE_GUESSES + 1):
        assert (await post(address, "/api/retry", {"all": True}, token="wrong"))[0] == 401
    status, said, headers = await post(address, "/api/retry", {"all": True})
    assert (status, headers["Retry-After"], panel.changed) == (429, "1", [])
    assert "try again in 1 s" in said["error"]


def test_pauses_grow_to_a_bound_and_are_each_address_s_own() -> None:
    """Nobody locks out others; the right token ends the pauses; who moves about in his network stays one."""
    now = 0.0
    guesses = Guesses(lambda: now)
    pauses = []
    for _ in range(FREE_GUESSES + 6):
        guesses.wrong("2001:db8::1")
        pauses.append(guesses.pause("2001:db8::2"))
        now += pauses[-1]
    assert pauses == [0.0] * FREE_GUESSES + [1.0, 2.0, 4.0, 8.0, LONGEST_PAUSE, LONGEST_PAUSE]
    guesses.wrong("2001:db8::1")
    assert guesses.pause("2001:db8:0:1::1") == guesses.pause("192.0.2.1") == 0.0
    guesses.right("2001:db8::1")
    assert guesses.pause("2001:db8::1") == 0.0


def test_guessers_of_many_addresses_are_forgotten_and_not_kept_for_ever() -> None:
    """However many there are."""
    guesses = Guesses(lambda: 0.0)
    for number in range(3_000):
        guesses.wrong(f"10.0.{number // 250}.{number % 250}")
    assert len(guesses._guessers) == 1_000
