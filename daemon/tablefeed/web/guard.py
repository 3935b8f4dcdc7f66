"""Who may change something over HTTP: whoever has the token, from a page of ours or from no page at all."""

import hashlib
import hmac
import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Protocol
from urllib.parse import urlsplit

from aiohttp import web

from tablefeed.errors import Fatal

FREE_GUESSES = 5
"""Wrong tokens from one address that cost no time."""
LONGEST_PAUSE = 8.0
"""Seconds. Somebody behind the same proxy as a guesser gets his turn; and no token can be guessed in so few tries."""
_FORGOTTEN_AFTER = 600.0
_ADDRESSES = 1_000
_PORTS = {"http": 80, "https": 443}

CHANGES_ARE_OFF = (
    "Nothing can be changed here: [http] token_file is not set. Set it to a file that holds a token of your choice, "
    "and restart the daemon"
)


class TokenPort(Protocol):
    """Where the token comes from."""

    @property
    def may_change(self) -> bool:
        """Whether there is one."""
        ...

    async def token(self) -> str:
        """The token now. Raises Fatal, with the remedy."""
        ...


def foreign_page(request: web.BaseRequest) -> bool:
    """Whether a page of another site has made the browser send this request.

    A browser tells the page's origin, and where that comes from; what is not a browser tells neither. A proxy that ends
    TLS leaves the scheme unknown here, so hosts and ports are compared; it must hand on `Host` as it was.
    """
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return True
    origins = request.headers.getall("Origin", [])
    return any(not _same_host(origin, request.headers.get("Host", "")) for origin in origins)


def _same_host(origin: str, host: str) -> bool:
    try:
        page, here = urlsplit(origin), urlsplit(f"//{host}")
        default = _PORTS[page.scheme]
        ports = page.port or default, here.port or default
    except (KeyError, ValueError):
        return False
    bare = f"{page.scheme}://{page.netloc}" == origin and "@" not in page.netloc + here.netloc
    return bare and bool(page.hostname) and page.hostname == here.hostname and ports[0] == ports[1]


@dataclass(slots=True)
class _Guesser:
    wrong: int = 0
    until: float = 0.0
    """No other try before this time."""


class Guesses:
    """Makes guessing slow: after some wrong tokens, an address has to wait before it is heard again.

    Every address for itself, so that nobody locks out others. `clock` gives seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Nobody has guessed yet."""
        self._clock = clock
        self._guessers: OrderedDict[str, _Guesser] = OrderedDict()

    def pause(self, address: str | None) -> float:
        """Seconds until somebody at this address may try again; 0: now."""
        guesser = self._guessers.get(_network(address))
        return max(0.0, guesser.until - self._clock()) if guesser else 0.0

    def wrong(self, address: str | None) -> None:
        """A wrong token came from there."""
        now = self._clock()
        network = _network(address)
        guesser = self._guessers.pop(network, None)
        if guesser is None or now - guesser.until > _FORGOTTEN_AFTER:
            guesser = _Guesser()
        guesser.wrong += 1
        over = guesser.wrong - FREE_GUESSES
        guesser.until = now + (min(2.0 ** (min(over, 10) - 1), LONGEST_PAUSE) if over > 0 else 0.0)
        self._guessers[network] = guesser
        while len(self._guessers) > _ADDRESSES:
            self._guessers.popitem(last=False)

    def right(self, address: str | None) -> None:
        """The right token came from there."""
        self._guessers.pop(_network(address), None)


def _network(address: str | None) -> str:
    """What one machine can speak from: an IPv4 address, or 64 bits of IPv6."""
    try:
        ip = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


class Guard:
    """Lets requests through that may change something."""

    def __init__(self, port: TokenPort, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that only grow."""
        self._port = port
        self._guesses = Guesses(clock)

    async def admit(self, request: web.Request) -> None:
        """Return when the request may change something, else raise the HTTP error that says why not."""
        if foreign_page(request):
            raise web.HTTPForbidden(
                text="A page of another site may change nothing here. Behind a proxy, let it hand on the Host header"
            )
        if not self._port.may_change:
            raise web.HTTPForbidden(text=CHANGES_ARE_OFF)
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="Send JSON, with Content-Type: application/json")
        await self._check_token(request)

    async def _check_token(self, request: web.Request) -> None:
        pause = self._guesses.pause(request.remote)
        if pause:
            raise web.HTTPTooManyRequests(
                text=f"Too many wrong tokens came from your address: try again in {ceil(pause)} s",
                headers={"Retry-After": str(ceil(pause))},
            )
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise _unauthorized(
                "Give the token, as in Authorization: Bearer …; [http] token_file names the file with it"
            )
        try:
            token = await self._port.token()
        except Fatal as error:
            raise web.HTTPForbidden(text=f"Nothing can be changed here: {error}") from None
        if not _equal(given.strip(), token):
            self._guesses.wrong(request.remote)
            raise _unauthorized("This is not the token; [http] token_file names the file that holds it")
        self._guesses.right(request.remote)


def _unauthorized(text: str) -> web.HTTPUnauthorized:
    return web.HTTPUnauthorized(text=text, headers={"WWW-Authenticate": 'Bearer realm="tablefeed"'})


def _equal(given: str, token: str) -> bool:
    """Compare in a time that tells nothing of the token, not even its length."""
    digests = (hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest() for text in (given, token))
    return hmac.compare_digest(*digests)
