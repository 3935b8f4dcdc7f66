"""One POST of one event to a webhook: what is sent, how it is signed, and what the answer means."""

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import aiohttp

from tablefeed.answers import retry_after
from tablefeed.errors import BadAnswer, Busy, EventRefused, Unreachable
from tablefeed.http import origin_of, parse_url, proxy_for, read_body, translated
from tablefeed.model import Notice

TIMEOUT = 10.0
"""Seconds that a receiver has for its answer, in total."""
_LARGEST_ANSWER = 65_536
_COMES_BACK = (408, 425, 429)
"""Answers below 500 that say nothing against the event."""


def origin_shown(url: str) -> str:
    """All of a webhook's URL that may be shown: whoever knows its path can often send there."""
    return origin_of(parse_url(url))


def signature(secret: str, timestamp: str, body: str) -> str:
    """HMAC-SHA256 over `timestamp.body`, in hexadecimal, so that neither can be exchanged."""
    return hmac.new(secret.encode(), f"{timestamp}.{body}".encode(), hashlib.sha256).hexdigest()


def headers(notice: Notice, secret: str | None, now: float) -> Mapping[str, str]:
    """What goes with an event; `now` in Unix seconds is signed too, so that receivers can turn away what is old."""
    plain = {
        "Content-Type": "application/json",
        "X-Tablefeed-Event": notice.event,
        "X-Tablefeed-Delivery": notice.id,
    }
    if secret is None:
        return plain
    timestamp = str(int(now))
    return plain | {
        "X-Tablefeed-Timestamp": timestamp,
        "X-Tablefeed-Signature": f"sha256={signature(secret, timestamp, notice.body)}",
    }


async def assert_answers(session: aiohttp.ClientSession, origin: str) -> None:
    """Make sure that a receiver gives answers, whatever they are, without telling it anything. Raises a Transient."""
    target = parse_url(origin + "/")
    with translated(origin):
        async with session.head(
            target, allow_redirects=False, proxy=proxy_for(target), timeout=aiohttp.ClientTimeout(total=TIMEOUT)
        ):
            return


class Poster:
    """Sends events."""

    def __init__(
        self, session: aiohttp.ClientSession, *, wall: Callable[[], float] = time.time, timeout: float = TIMEOUT
    ) -> None:
        """`wall` gives Unix seconds; `timeout` is for each POST as a whole, in seconds."""
        self._session = session
        self._wall = wall
        self._timeout = aiohttp.ClientTimeout(total=timeout)

    async def __call__(self, url: str, notice: Notice, secret: str | None) -> None:
        """Send one event; it is accepted when this returns.

        Raises a Transient where waiting helps, and EventRefused where the receiver does not want this event.
        """
        target = parse_url(url)
        origin = origin_of(target)
        with translated(origin):
            async with self._session.post(
                target,
                data=notice.body.encode(),
                headers=headers(notice, secret, self._wall()),
                allow_redirects=False,
                proxy=proxy_for(target),
                timeout=self._timeout,
            ) as response:
                # The status says it all. What follows is read so that the connection can serve again.
                with suppress(aiohttp.ClientError, TimeoutError):
                    await read_body(response, _LARGEST_ANSWER)
        status = response.status
        if 200 <= status < 300:
            return
        asked = retry_after(response.headers, self._wall())
        if status == 407:
            raise Unreachable(origin, "the proxy answered 407; it wants other credentials")
        if status >= 500 or status in _COMES_BACK:
            raise Busy(origin, status, retry_after=asked)
        if status < 400:
            raise BadAnswer(origin, f"status {status}; redirects are not followed, so name the right place")
        raise EventRefused(origin, status)
