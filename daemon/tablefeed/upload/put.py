"""Exactly one PUT of one open file to one presigned URL. Knows nothing of ledgers and retries.

The traps that it goes round, all seen in aiohttp 3.14: a string URL is spelt anew, a Content-Type is added, an
idempotent request is repeated by itself, exception texts hold the whole URL, `expect100` waits for ever, and there is
no limit on how long the peer may take nothing.
"""

import asyncio
import re
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from tablefeed.answers import safe, store_answer, store_error
from tablefeed.clock import ServerClocks
from tablefeed.errors import BadAnswer, Damaged, DeliveryError, FeedBlocked, Stalled, Transient
from tablefeed.expiry import secrets_in, signed_headers
from tablefeed.http import origin_of, proxy_for, read_body, translated
from tablefeed.lease import Writer, writer_unknown
from tablefeed.model import FileVersion, Grant, Receipt
from tablefeed.threads import Threads
from tablefeed.upload.body import Admit, FileBody, StallGuard, chunk_size, unthrottled
from tablefeed.upload.checks import Checks, Digest, Hashes, told_by
from tablefeed.upload.source import Source
from tablefeed.upload.urls import checked, followed, grant_headers, redirected

EXPECT_ABOVE = 2**20
"""Bodies larger than this ask first, so that a refusal costs no transfer."""
CONTINUE_TIMEOUT = 3.0
"""Seconds to wait for the interim answer; a host that never sends one is remembered."""
MUTE_FOR = 600.0
"""Seconds for which it is remembered."""
MOST_REDIRECTS = 2
_LARGEST_ANSWER = 64 * 2**10
_NO_SUCCESS = re.compile(r"\s*(?:<\?xml[^>]*>\s*)?<(?:!doctype html|html|Error)\b", re.I)
"""No store answers a PUT that way; a proxy or a portal on the way does."""


@dataclass(slots=True)
class Progress:
    """How far an upload is; others may read it at any time."""

    size: int
    began: float = 0.0
    """When it began, on the clock of who asked for it."""
    sent: Callable[[], int] = int
    comes: Callable[[], None] = lambda: None
    """Called when the server lets the body come."""
    latency: float | None = None
    """Seconds from the last byte given to the connection to the head of the answer; None: not known."""


def _close_opened(opening: asyncio.Future[Source]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


async def _first_of(
    task: asyncio.Future[Any], other: Coroutine[Any, Any, object], timeout: float | None = None
) -> None:
    """Wait until either is done or the time is over; only `other` is ended by that."""
    waiting = asyncio.ensure_future(other)
    try:
        await asyncio.wait((task, waiting), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


class Uploader:
    """Sends files. One object serves all uploads at a time."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        threads: Threads,
        *,
        clocks: ServerClocks,
        wall: Callable[[], float],
        stall_timeout: float,
        allow_http: bool = False,
        writer_of: Callable[[int], Writer] = writer_unknown,
        admit: Admit = unthrottled,
    ) -> None:
        """`threads` run the reading; `wall` gives Unix seconds; `stall_timeout` in seconds.

        Each piece of a body goes out when `admit` allows it.

        `writer_of` tells who has a file open for writing. `lease.writer_of` needs SIGIO to be ignored, which a daemon
        may do and a library may not.
        """
        self._writer_of = writer_of
        self._admit = admit
        self._session = session
        self._threads = threads
        self._clocks = clocks
        self._wall = wall
        self._stall_timeout = stall_timeout
        self._allow_http = allow_http
        self._checks = Checks()
        self._active = 0
        """Uploads that run now."""
        self._mute_until: dict[str, float] = {}
        """Until when a host is not asked to continue, on the loop's clock."""

    async def upload(
        self,
        directory: Path,
        version: FileVersion,
        grant: Grant,
        progress: Progress,
        digests: Collection[Digest] = (),
    ) -> Receipt:
        """Send the version to the grant's URL and return the proof. Its `digests` are computed in any case.

        Raises a DeliveryError: SourceChanged, FileRefused and DiskTrouble for the file's sake, all others for the
        server's.
        """
        self._active += 1
        try:
            return await self._delivered(directory, version, grant, progress, digests)
        finally:
            self._active -= 1

    async def _delivered(
        self,
        directory: Path,
        version: FileVersion,
        grant: Grant,
        progress: Progress,
        digests: Collection[Digest],
    ) -> Receipt:
        url = checked(grant.url, allow_http=self._allow_http)
        for _ in range(MOST_REDIRECTS + 1):
            source = await self._opened(directory, version, self._checks.wanted(origin_of(url)).union(digests))
            try:
                receipt, target = await self._put(url, source, grant, progress)
            except BaseException:
                await self._threads.call(source.close)
                raise
            await self._threads.call(source.finish)
            if receipt is not None:
                return receipt
            url = followed(url, target, allow_http=self._allow_http)
            # What one URL demands is not for another server to see, unless its own URL demands it too.
            grant = replace(grant, url=target, headers=grant_headers(target, version.name))
        raise FeedBlocked(f"{origin_of(url)} redirects in a circle", "Ask ProcessMind's support")

    async def _opened(self, directory: Path, version: FileVersion, digests: Collection[Digest]) -> Source:
        """Open the file in a thread; when we are cancelled meanwhile, it is closed as soon as it is open."""
        opening = self._threads.call(Source, directory, version, self._chunk(), self._writer_of, digests)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_opened)
            raise

    def _chunk(self) -> int:
        return chunk_size(self._active)

    async def _put(self, url: URL, source: Source, grant: Grant, progress: Progress) -> tuple[Receipt | None, str]:
        """One PUT. Returns the receipt, or None and the URL that the store redirects to."""
        origin = origin_of(url)
        overdue = grant.expires_at <= self._clocks.now(origin)
        started_at = round(self._wall() * 1000)
        expect = source.version.size > EXPECT_ABOVE and not self._is_mute(origin)
        body = FileBody(
            source, self._threads, self._admit, chunk=self._chunk, goes_first=not expect, comes=progress.comes
        )
        progress.sent = body.sent
        try:
            with translated(origin):
                response, text = await self._send(url, body, grant, origin, expect=expect)
            progress.latency = body.latency
        except DeliveryError as error:
            if body.failure is not None:
                raise body.failure from None
            if isinstance(error, Transient):
                error.ambiguous = body.asked.is_set()
            raise
        self._clocks.observe(origin, response.headers.get("Date"))
        if response.status in (307, 308) and "Location" in response.headers:
            return None, redirected(url, response.headers["Location"])
        if not 200 <= response.status < 300:
            raise store_error(
                store_answer(origin, response.status, response.headers, text, self._wall(), secrets_in(grant.url)),
                path=source.path,
                overdue=overdue,
                signed_headers=signed_headers(grant.url),
                size=source.version.size,
            )
        if body.sent() < source.version.size:
            size = source.version.size
            raise BadAnswer(origin, f"status {response.status} before it had the file ({body.sent()} of {size} bytes)")
        if _NO_SUCCESS.match(text):
            raise BadAnswer(origin, f"status {response.status} with a page or an error in its body")
        return self._receipt(source, response, origin, started_at, secrets_in(grant.url)), ""

    def _is_mute(self, origin: str) -> bool:
        return self._mute_until.get(origin, 0.0) > asyncio.get_running_loop().time()

    async def _send(
        self, url: URL, body: FileBody, grant: Grant, origin: str, *, expect: bool
    ) -> tuple[aiohttp.ClientResponse, str]:
        if not expect:
            return await self._request(url, body, grant, origin, expect=False)
        request = asyncio.ensure_future(self._request(url, body, grant, origin, expect=True))
        try:
            await _first_of(request, body.asked.wait())
            await _first_of(request, body.begun.wait(), timeout=CONTINUE_TIMEOUT)
            if request.done() or body.begun.is_set():
                return await request
        finally:
            request.cancel()
        await asyncio.wait((request,))
        self._mute_until[origin] = asyncio.get_running_loop().time() + MUTE_FOR
        return await self._request(url, body, grant, origin, expect=False)

    async def _request(
        self, url: URL, body: FileBody, grant: Grant, origin: str, *, expect: bool
    ) -> tuple[aiohttp.ClientResponse, str]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._stall_timeout)
        try:
            async with asyncio.timeout(None) as deadline:
                with StallGuard(body, deadline, self._stall_timeout):
                    async with self._session.put(
                        url,
                        data=body,
                        headers=grant.headers,
                        skip_auto_headers=("Content-Type",),
                        allow_redirects=False,
                        expect100=expect,
                        proxy=proxy_for(url),
                        timeout=timeout,
                    ) as response:
                        body.note_answer()
                        return response, (await read_body(response, _LARGEST_ANSWER)).decode(errors="replace")
        except TimeoutError:
            if deadline.expired():
                raise Stalled(origin, self._stall_timeout, body.sent(), body.size or 0) from None
            raise

    def _receipt(
        self,
        source: Source,
        response: aiohttp.ClientResponse,
        origin: str,
        started_at: int,
        secrets: Collection[str],
    ) -> Receipt:
        etag = response.headers.get("ETag")
        verified = self._is_verified(source.file.hashes, response.headers, origin)
        request_id = response.headers.get("x-amz-request-id") or response.headers.get("x-ms-request-id")
        return Receipt(
            size=source.version.size,
            md5=source.file.hashes.value(Digest.MD5),
            etag=None if etag is None else safe(etag, *secrets),
            verified=verified,
            status=response.status,
            request_id=None if request_id is None else safe(request_id, *secrets),
            origin=origin,
            started_at=started_at,
            finished_at=round(self._wall() * 1000),
        )

    def _is_verified(self, hashes: Hashes, headers: Mapping[str, str], origin: str) -> bool:
        """Whether the store told a digest of what it has, which was that of what was sent. Raises Damaged."""
        told = told_by(headers)
        self._checks.learn(origin, told)
        ours = {digest: value for digest in told if (value := hashes.value(digest)) is not None}
        for digest, value in ours.items():
            if value != told[digest]:
                raise Damaged(origin, digest, value, told[digest])
        return bool(ours)
