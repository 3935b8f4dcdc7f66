"""The edge to HTTP: sessions, origins, proxies, TLS, and aiohttp's errors turned into ours.

aiohttp's own exception texts contain whole URLs with their signatures, so none of them is ever passed on.
"""

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from tablefeed import __version__
from tablefeed.errors import BadAnswer, Fatal, Unreachable

if TYPE_CHECKING:
    from aiohttp.connector import Connection

USER_AGENT = f"tablefeed/{__version__}"
CONNECT_TIMEOUT = 30.0
ANSWER_TIMEOUT = 60.0
"""Seconds in which the API must begin to answer, and then must not pause for longer."""
ANY_NUMBER = 0
"""Of connections, where those who send requests limit how many they send at a time."""
CALL_TIMEOUT = 120.0
"""Seconds that a whole call of the API may take: one that drips must not keep the others out."""


class Asking(aiohttp.Payload):
    """A body that is told when the head of its request has gone out."""

    asked: asyncio.Event


class _Request(aiohttp.ClientRequest):
    """Tells its body. A trace would tell it too, at a cost to every request."""

    async def send(self, conn: "Connection") -> aiohttp.ClientResponse:
        response = await super().send(conn)
        if isinstance(self.body, Asking):
            self.body.asked.set()
        return response


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """TLS with the system's authorities, or with those in `ca_file` alone.

    Raises Fatal when the file cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise Fatal(
            f"[upload] ca_file {ca_file} cannot be used: {error.strerror or error}",
            "Name a readable file with certificates in PEM form, or leave it empty for the system's",
        ) from None


def make_session(connections: int, context: ssl.SSLContext) -> aiohttp.ClientSession:
    """A session for up to `connections` requests at a time, or `ANY_NUMBER`.

    Retries, redirects and cookies are not its business.
    """
    return aiohttp.ClientSession(
        request_class=_Request,
        connector=aiohttp.TCPConnector(limit=connections, limit_per_host=connections, ssl=context, ttl_dns_cache=60),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=ANSWER_TIMEOUT),
        headers={"User-Agent": USER_AGENT},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=True,
    )


async def read_body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, cut off soon after `limit` bytes."""
    body = await response.content.read(limit)
    while (
        body and len(body) <= limit and not response.content.at_eof() and (more := await response.content.read(limit))
    ):
        body += more
    return body


@lru_cache(maxsize=256)
def parse_url(text: str) -> URL:
    """The URL with not one character changed: a signature covers its very spelling.

    Remembered, since the same URL is asked for its origin, then sent. Raises ValueError without the URL in its text.
    """
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("it is not an http(s) URL: it has characters that no URL has")
    try:
        url = URL(text, encoded=True)
        (url.host or "").encode("idna")  # as the resolver will, which does not expect to fail
        ok = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError:
        ok = False
    if not ok:
        raise ValueError("it is not an http(s) URL")
    return url


def origin_of(url: URL) -> str:
    """Scheme, host and port: all of a URL that may be shown."""
    port = "" if url.is_default_port() else f":{url.explicit_port}"
    host = f"[{url.host}]" if url.host and ":" in url.host else url.host
    return f"{url.scheme}://{host}{port}"


@lru_cache(maxsize=256)
def is_loopback(host: str | None) -> bool:
    """Whether the host is this machine by its very name."""
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_plain_to_afar(url: str) -> bool:
    """Whether a URL is plain http to another machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname)


def proxy_for(url: URL) -> str | None:
    """The proxy that the environment names for a URL (HTTPS_PROXY, HTTP_PROXY, NO_PROXY).

    aiohttp's own `trust_env` would also send credentials from ~/.netrc, which a presigned URL does not bear.
    """
    return None if is_loopback(url.host) else _proxy(url.scheme, url.host or "")


@lru_cache(maxsize=256)
def _proxy(scheme: str, host: str) -> str | None:
    """Remembered, because the environment of a process does not change and reading it costs as much as a request."""
    proxy = getproxies().get(scheme)
    if not proxy or proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


@contextmanager
def translated(origin: str) -> Iterator[None]:
    """Turn what aiohttp and the socket raise into Unreachable or BadAnswer, with the cause in a few safe words."""
    try:
        yield
    except aiohttp.ClientHttpProxyError as error:
        raise Unreachable(origin, f"the proxy answered {error.status}") from None
    except (
        aiohttp.ClientPayloadError,
        aiohttp.ClientResponseError,
        aiohttp.http.HttpProcessingError,
    ) as error:
        raise BadAnswer(origin, f"broken HTTP ({type(error).__name__})") from None
    except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError, UnicodeError) as error:
        raise Unreachable(origin, _cause(error)) from None


def _cause(error: BaseException) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            inner = error.certificate_error
            return f"its certificate is not trusted: {getattr(inner, 'verify_message', type(inner).__name__)}"
        case aiohttp.ClientConnectorDNSError():
            return "its name is not known (DNS)"
        case aiohttp.ClientConnectorError():
            return _cause(error.os_error)
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection before it answered"
        case aiohttp.ServerTimeoutError() | TimeoutError():
            return "it did not answer in time"
        case ssl.SSLError():
            return f"TLS failed ({error.reason or 'unknown reason'})"
        case UnicodeError():
            return "its name is not one that a host can have"
        case socket.gaierror():
            return "its name is not known (DNS)"
        case OSError():
            return _os_cause(error)
        case _:
            return type(error).__name__


def _os_cause(error: OSError) -> str:
    """In the system's words: asyncio writes addresses into `strerror`.

    A write after the connection went has no number: it is a ConnectionError, which aiohttp may have wrapped.
    """
    if error.errno and error.errno > 0:
        return os.strerror(error.errno)
    if isinstance(error, ConnectionError) or isinstance(error.__cause__, ConnectionError):
        return "it closed the connection before it had the whole request"
    return type(error).__name__
