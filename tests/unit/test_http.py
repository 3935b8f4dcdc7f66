import aiohttp
import pytest
from yarl import URL

from tablefeed.errors import Unreachable
from tablefeed.http import _proxy, is_loopback, origin_of, parse_url, proxy_for, translated


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    _proxy.cache_clear()
    return monkeypatch


def test_the_proxy_of_the_environment_is_used_but_not_for_loopback(proxies: pytest.MonkeyPatch) -> None:
    """Most export hosts sit behind a proxy; this machine itself never does, and NO_PROXY is honoured."""
    proxies.setenv("https_proxy", "proxy.example:3128")
    proxies.setenv("no_proxy", "inside.example")
    assert proxy_for(URL("https://api.processmind.com/x")) == "http://proxy.example:3128"
    assert proxy_for(URL("https://inside.example/x")) is None
    assert proxy_for(URL("https://127.0.0.1:8800/x")) is None
    assert proxy_for(URL("http://api.processmind.com/x")) is None


def test_without_proxy_variables_there_is_no_proxy(proxies: pytest.MonkeyPatch) -> None:
    """Nothing is guessed."""
    assert proxy_for(URL("https://api.processmind.com/x")) is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("a.localhost", True),
        ("localhost.example.com", False),
        ("10.0.0.1", False),
        ("example.com", False),
        ("", False),
        (None, False),
    ],
)
def test_loopback_is_this_machine_by_its_very_name(host: str | None, expected: bool) -> None:
    """A name that only looks like it is not."""
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://s.example/k?X-Amz-Signature=abc", "https://s.example"),
        ("https://s.example:443/k", "https://s.example"),
        ("http://127.0.0.1:9000/k", "http://127.0.0.1:9000"),
        ("http://[::1]:9000/k", "http://[::1]:9000"),
    ],
)
def test_an_origin_is_all_of_a_url_that_is_shown(url: str, origin: str) -> None:
    """Scheme, host and port; never a path, a query or a user."""
    assert origin_of(parse_url(url)) == origin


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "/k",
        "ftp://s/k",
        "https://",
        "https://[::1/k",
        "https://s:99999/k",
        "s.example/k",
        "https://" + "a" * 70 + ".example/k",
        "https://a..b/k",
        "https://s.example/k\r\nx-api-key: stolen",
        "https://s.example/\x00",
        "https://s.example/a b",
        "https://\u00fc.example/",
    ],
)
def test_what_is_no_url_is_refused_without_being_echoed(url: str) -> None:
    """The text may hold a signature."""
    with pytest.raises(ValueError, match="not an http") as caught:
        parse_url(url)
    assert not url.strip() or url not in str(caught.value)


def wrapped(error: OSError) -> OSError:
    """As aiohttp hands on what went wrong while a body was written."""
    outer = aiohttp.ClientOSError(error.errno, "Can not write request body for https://s.example/k?Signature=abc")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (aiohttp.ClientConnectionResetError("Cannot write to closing transport"), "closed the connection"),
        (wrapped(aiohttp.ClientConnectionResetError("Connection lost")), "closed the connection"),
        (wrapped(ConnectionError("Connection lost")), "closed the connection"),
        (wrapped(ConnectionResetError(104, "at 10.0.0.1:443")), "Connection reset by peer"),
        (wrapped(BrokenPipeError(32, "x")), "Broken pipe"),
    ],
)
def test_a_connection_that_ended_is_told_as_that(error: OSError, cause: str) -> None:
    """Whether the loss is noticed by a read, by a write or between two writes, words say so and no name of a class."""
    with pytest.raises(Unreachable, match=cause) as raised, translated("https://s.example"):
        raise error
    assert "Signature" not in str(raised.value)
    assert "10.0.0.1" not in str(raised.value)
