"""The object store: takes `PUT /store/<key>` on presigned URLs as S3 does.

What S3 demands of a PUT, beyond a good signature: a `Content-Length` of at most 5 GiB, and bytes that match
`Content-MD5` where that is given. The answer holds the MD5 as `ETag`. A PUT to the same key replaces the
object.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from secrets import token_hex
from typing import ParamSpec, TypeVar

import structlog
from aiohttp import StreamReader, web

from tablefeed.sandbox.objects import DigestError, Draft, ObjectFiles, StoredObject
from tablefeed.sandbox.s3error import S3Error
from tablefeed.sandbox.sigv4 import Credentials, Received, presign, verify

BUCKET = "store"
REGION = "eu-west-1"
MAX_OBJECT = 5_368_709_120
"""Bytes that one PUT may carry."""
MAX_KEY = 1024
"""Bytes of UTF-8 in a key."""
CHUNK = 1 << 20
"""Bytes that are written and hashed by one hop to a thread."""

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger()


def credentials_for(api_key: str) -> Credentials:
    """The store's own credentials. They follow from the API key, so that grants outlive a restart."""
    secret = hmac.digest(api_key.encode(), b"tablefeed sandbox store", hashlib.sha256).hex()
    return Credentials(access_key="SANDBOXACCESSKEY0001", secret_key=secret, region=REGION)


@dataclass(frozen=True, slots=True)
class Expected:
    """What the headers of a PUT promise about its body."""

    size: int
    md5: str | None
    """Hexadecimal."""


def expected_body(content_length: int | None, content_md5: str | None) -> Expected:
    """Return what the body must be, or raise S3Error. A chunked body has no length."""
    if content_length is None:
        raise S3Error(
            HTTPStatus.LENGTH_REQUIRED,
            "MissingContentLength",
            "You must provide the Content-Length HTTP header.",
        )
    if content_length > MAX_OBJECT:
        raise S3Error(
            HTTPStatus.BAD_REQUEST,
            "EntityTooLarge",
            "Your proposed upload exceeds the maximum allowed size",
            {"ProposedSize": str(content_length), "MaxSizeAllowed": str(MAX_OBJECT)},
        )
    return Expected(content_length, None if content_md5 is None else _md5_of_header(content_md5))


def _md5_of_header(text: str) -> str:
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != hashlib.md5(usedforsecurity=False).digest_size:
        raise S3Error(
            HTTPStatus.BAD_REQUEST,
            "InvalidDigest",
            "The Content-MD5 you specified was invalid.",
            {"Content-MD5": text},
        )
    return digest.hex()


class Store:
    """Signs URLs for objects, and serves them.

    `clock` gives Unix seconds. A body that rests for `body_timeout` seconds is given up. `on_object` is
    called when an object is complete, before its PUT is answered.
    """

    def __init__(
        self,
        files: ObjectFiles,
        credentials: Credentials,
        executor: Executor,
        *,
        clock: Callable[[], float],
        body_timeout: float,
        on_object: Callable[[StoredObject], None] | None,
    ) -> None:
        self._files = files
        self._credentials = credentials
        self._executor = executor
        self._clock = clock
        self._body_timeout = body_timeout
        self._on_object = on_object
        self._serving: set[asyncio.Task[object]] = set()

    def grant(self, origin: str, key: str, lifetime: int) -> str:
        """Return a URL on which `key` may be PUT for `lifetime` seconds from now."""
        return presign(self._credentials, origin, f"/{BUCKET}/{key}", now=self._clock(), lifetime=lifetime)

    def app(self) -> web.Application:
        """The bucket, to be mounted at `/store`."""
        app = web.Application()
        # (?s:.) because a key may hold line breaks
        app.router.add_route("*", "/{key:(?s:.*)}", self._serve, expect_handler=_leave_to_handler)
        return app

    async def close(self) -> None:
        """Cut off the PUTs that are still under way; afterwards no draft is open."""
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    @contextmanager
    def _tracked(self) -> Iterator[None]:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request is served by a task")
        self._serving.add(task)
        try:
            yield
        finally:
            self._serving.discard(task)

    async def _serve(self, request: web.Request) -> web.Response:
        request_id = token_hex(8).upper()
        try:
            with self._tracked():
                stored = await self._put(request)
        except S3Error as error:
            response = web.Response(
                status=error.status,
                body=error.xml(request.raw_path.partition("?")[0], request_id),
                content_type="application/xml",
            )
            # the body may still be under way or never come, so the connection is of no further use
            response.force_close()
        else:
            response = web.Response(headers={"ETag": f'"{stored.md5}"'})
        response.headers["x-amz-request-id"] = request_id
        return response

    async def _put(self, request: web.Request) -> StoredObject:
        received = Received(request.method, request.raw_path, tuple(request.headers.items()))
        if request.method != "PUT" or not request.match_info["key"]:
            raise S3Error(
                HTTPStatus.METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "The specified method is not allowed against this resource.",
            )
        key = verify(self._credentials, received, self._clock()).removeprefix(f"/{BUCKET}/")
        if len(key.encode()) > MAX_KEY:
            raise S3Error(HTTPStatus.BAD_REQUEST, "KeyTooLongError", "Your key is too long")
        expected = expected_body(request.content_length, request.headers.get("Content-MD5"))
        if request.headers.get("Expect", "").lower() == "100-continue":
            await _say_continue(request)
        stored = await self._receive(request.content, self._files.draft(key), expected)
        if self._on_object is not None:
            self._on_object(stored)
        return stored

    async def _receive(self, content: StreamReader, draft: Draft, expected: Expected) -> StoredObject:
        """Take the whole body, or leave nothing of it, also when the server is stopped meanwhile."""
        remaining = expected.size
        try:
            while remaining > CHUNK:
                await self._disk(draft.write, await read_exactly(content, CHUNK, self._body_timeout))
                remaining -= CHUNK
            last = await read_exactly(content, remaining, self._body_timeout)
            return await self._disk(draft.finish, last, expected.md5)
        except BaseException:
            self._executor.submit(draft.discard)
            raise

    async def _disk(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in a thread."""
        call = partial(work, *args, **kwargs)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, call)
        except DigestError as error:
            raise S3Error(
                HTTPStatus.BAD_REQUEST,
                "BadDigest",
                "The Content-MD5 you specified did not match what we received.",
                {"ExpectedDigest": error.promised, "CalculatedDigest": error.received},
            ) from error
        except OSError as error:
            log.warning("sandbox_write_failed", error=str(error))
            raise S3Error(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "InternalError",
                "We encountered an internal error. Please try again.",
            ) from error


async def read_exactly(content: StreamReader, size: int, timeout: float) -> bytes:
    """Return `size` bytes of a body, or raise S3Error when it ends before, or rests for `timeout` seconds."""
    pieces = []
    try:
        while size:
            async with asyncio.timeout(timeout):
                piece = await content.read(size)
            if not piece:
                raise _incomplete()
            pieces.append(piece)
            size -= len(piece)
    except TimeoutError as error:
        raise S3Error(
            HTTPStatus.BAD_REQUEST,
            "RequestTimeout",
            "Your socket connection to the server was not read from or written to within the timeout "
            "period. Idle connections will be closed.",
        ) from error
    except (ConnectionError, web.RequestPayloadError) as error:
        raise _incomplete() from error
    return b"".join(pieces)


def _incomplete() -> S3Error:
    return S3Error(
        HTTPStatus.BAD_REQUEST,
        "IncompleteBody",
        "You did not provide the number of bytes specified by the Content-Length HTTP header.",
    )


async def _leave_to_handler(_request: web.Request) -> None:
    """Send no `100 Continue` yet: a request that is refused must not be asked for its body."""


async def _say_continue(request: web.Request) -> None:
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0
