"""A ProcessMind that repeats all that it is told: it stands before the sandbox, whose signatures are real.

What a file is called says what happens to it: `page-1.csv` is answered with a page at first. In all its refusals are
the request's headers, with the key, and the whole URL, with the signature. After its mishap each file goes the
sandbox's way.
"""

import asyncio
import base64
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from html import escape
from io import BytesIO
from urllib.parse import quote

import aiohttp
import boto3
from aiohttp import web
from botocore.client import Config
from multidict import CIMultiDict
from yarl import URL

from support.leaks import secrets_in
from support.stores import serving
from tablefeed.sandbox.sigv4 import Credentials, Received, presign, verify

CREDENTIALS = Credentials("ASIAINDISCREET" + secrets.token_hex(8).upper(), secrets.token_urlsafe(30), "eu-west-1")
_HOP = ("transfer-encoding", "content-encoding", "content-length", "connection", "date", "server")

Mishap = Callable[[web.Request, str], Awaitable[web.StreamResponse]]


def _echo(request: web.Request) -> str:
    """All that a request says, as a careless server would write it into an answer."""
    headers = [(name, value) for name, value in request.headers.items() if name not in ("Accept", "Accept-Encoding")]
    lines = "\n".join(f"{name}: {value}" for name, value in sorted(headers, reverse=True))
    query = "&".join(sorted(request.rel_url.raw_query_string.split("&"), reverse=True))
    return f"{lines}\n{dict(headers)!r}\n/?{query} {request.method} {request.url} HTTP/1.1\n{request.raw_path}"


def _page(request: web.Request, status: int) -> web.Response:
    text = f"<!DOCTYPE html><html><body><pre>{escape(_echo(request))}</pre></body></html>"
    return web.Response(status=status, text=text, content_type="text/html")


def _s3_error(request: web.Request, status: int, code: str, message: str = "") -> web.Response:
    signature = request.query.get("X-Amz-Signature", "")
    text = (
        f"<Error><Code>{code}</Code><Message>{message} {escape(_echo(request))}</Message>"
        f"<SignatureProvided>{signature}</SignatureProvided><StringToSign>{escape(_echo(request))}</StringToSign></Error>"
    )
    response = web.Response(status=status, text=text, content_type="application/xml")
    response.headers["x-amz-request-id"] = f"{request.url}"
    return response


class Indiscreet:
    """Answers for the API and for the store."""

    def __init__(self, sandbox: str, session: aiohttp.ClientSession) -> None:
        self._sandbox = URL(sandbox)
        self._session = session
        self.issued: list[str] = []
        """Every URL that was ever given out, redirections too."""
        self.mishaps: Counter[str] = Counter()
        """What went wrong, by kind."""
        self.told: list[bytes] = []
        """What was POSTed: as a webhook's receiver it fails at first, and repeats all that it is told."""
        self.held = asyncio.Event()
        """Set when a `held` file is under way, which gets no answer until `let_go` is set."""
        self.let_go = asyncio.Event()
        self.up = asyncio.Event()
        """It is set when the store is no longer out of order."""
        self._seen: Counter[str] = Counter()
        self._grants: dict[str, Callable[[str, str], str]] = {
            "token": self._with_token,
            "second": _version_2,
            "azure": _azure,
            "google": _google,
            "named": lambda host, key: f"https://{_word()}:{_word()}@127.0.0.1:1{key}?X-Amz-Signature={_hex()}",
            "plain": lambda host, key: f"http://store.invalid{key}?X-Amz-Signature={_hex()}",
            "away": lambda host, key: self._signed("127.0.0.1:1", key, lifetime=1),
            "strange": lambda host, key: f"https://store.invalid{key} ?X-Amz-Signature={_hex()}",
        }
        self._refusals: dict[str, Mishap] = {
            "busy": self._busy,
            "down": self._busy,
            "page": self._answers_with_a_page,
            "refused": self._refuses,
            "overdue": self._calls_expired,
            "lost": self._loses_the_reply,
            "sent": self._redirects,
            "lured": self._lures,
            "chatty": self._chats,
            "damaged": self._damages,
            "large": self._finds_too_large,
            "held": self._holds,
        }
        self._lasting: dict[str, Callable[[str], bool]] = {
            "held": lambda name: not self.let_go.is_set(),
            "down": lambda name: not self.up.is_set(),
        }
        """What happens to a file again and again, and for how long."""
        self._denials: dict[str, Mishap] = {
            "html": self._denies_with_a_page,
            "denied": self._denies_the_key,
            "other": self._calls_it_otherwise,
        }

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if request.method == "POST":
            self.told.append(await request.read())
            return _page(request, 503 if len(self.told) <= 3 else 200)
        name = request.query.get("filename", "") if request.method == "GET" else _name_in(request.path)
        kind = name.partition("-")[0]
        first = self._is_first(request.method, name)
        if request.method == "GET" and kind in self._grants and first:
            self.mishaps[kind] += 1
            return self._give(self._grants[kind](request.host, f"/own/table/{_hex()}-{name}"))
        for mishaps, method in ((self._denials, "GET"), (self._refusals, "PUT")):
            if request.method == method and kind in mishaps and (first or self._lasts(kind, name)):
                self.mishaps[kind] += 1
                return await mishaps[kind](request, name)
        if request.path.startswith("/own/"):
            return await self._take(request)
        return await self._pass_on(request)

    def secrets(self) -> set[str]:
        """What gives access in all that was given out."""
        return {secret for url in self.issued for secret in secrets_in(url)}

    def _lasts(self, kind: str, name: str) -> bool:
        return kind in self._lasting and self._lasting[kind](name)

    def _is_first(self, method: str, name: str) -> bool:
        self._seen[f"{method} {name}"] += 1
        return self._seen[f"{method} {name}"] == 1

    def _give(self, url: str) -> web.Response:
        self.issued.append(url)
        return web.json_response({"PreSignedUploadUrl": url})

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        """Let the sandbox answer. It sees our Host, so its URLs lead back to us."""
        target = URL(f"{self._sandbox}{request.raw_path}", encoded=True)
        body = await request.read()
        headers = CIMultiDict(request.headers)
        headers.popall("Expect", None)
        skip = ("Content-Type", "Accept", "Accept-Encoding", "User-Agent")
        async with self._session.request(
            request.method,
            target,
            headers=headers,
            data=BytesIO(body) if body else None,
            skip_auto_headers=skip,
            allow_redirects=False,
        ) as answer:
            content = await answer.read()
            if answer.status == 200 and request.method == "GET" and "presignedurl" in request.path:
                self.issued.append(json.loads(content)["PreSignedUploadUrl"])
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            return web.Response(status=answer.status, body=content, headers=kept)

    async def _take(self, request: web.Request) -> web.Response:
        """Be the store for the URLs that the sandbox did not sign; a version 4 signature is verified."""
        if "X-Amz-Signature" in request.query:
            verify(CREDENTIALS, Received("PUT", request.raw_path, tuple(request.headers.items())), time.time())
        await request.read()
        return web.Response(status=201)

    def _signed(self, host: str, key: str, *, lifetime: int = 600) -> str:
        return presign(CREDENTIALS, f"http://{host}", key, now=time.time(), lifetime=lifetime)

    def _with_token(self, host: str, key: str) -> str:
        client = boto3.client(
            "s3",
            endpoint_url=f"http://{host}",
            aws_access_key_id=CREDENTIALS.access_key,
            aws_secret_access_key=CREDENTIALS.secret_key,
            aws_session_token=base64.b64encode(secrets.token_bytes(300)).decode(),
            region_name=CREDENTIALS.region,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )
        _, bucket, path = key.split("/", 2)
        url: str = client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": path}, ExpiresIn=600)
        return url

    async def _busy(self, request: web.Request, name: str) -> web.StreamResponse:
        await request.read()
        return _page(request, 503)

    async def _answers_with_a_page(self, request: web.Request, name: str) -> web.StreamResponse:
        await request.read()
        return _page(request, 200)

    async def _refuses(self, request: web.Request, name: str) -> web.StreamResponse:
        return _s3_error(request, 403, "SignatureDoesNotMatch")

    async def _calls_expired(self, request: web.Request, name: str) -> web.StreamResponse:
        return _s3_error(request, 403, "AccessDenied", "Request has expired")

    async def _loses_the_reply(self, request: web.Request, name: str) -> web.StreamResponse:
        await request.read()
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _redirects(self, request: web.Request, name: str) -> web.StreamResponse:
        location = self._signed(request.host, f"/own/table/{_hex()}-elsewhere.csv")
        self.issued.append(location)
        return web.Response(status=307, headers={"Location": location})

    async def _lures(self, request: web.Request, name: str) -> web.StreamResponse:
        location = f"https://{_word()}:{_word()}@127.0.0.1:1/k?X-Amz-Signature={_hex()}"
        self.issued.append(location)
        return web.Response(status=307, headers={"Location": location})

    async def _chats(self, request: web.Request, name: str) -> web.StreamResponse:
        """Store it, and repeat its URL in each header of the answer."""
        answer = await self._pass_on(request)
        for header in ("ETag", "x-amz-request-id", "Server", "Location", "Set-Cookie"):
            answer.headers[header] = f"{request.url}"
        return answer

    async def _damages(self, request: web.Request, name: str) -> web.StreamResponse:
        await request.read()
        return web.Response(headers={"ETag": "0" * 32, "x-amz-request-id": f"{request.url}"})

    async def _finds_too_large(self, request: web.Request, name: str) -> web.StreamResponse:
        return _s3_error(request, 400, "EntityTooLarge", "Your proposed upload exceeds the maximum.")

    async def _holds(self, request: web.Request, name: str) -> web.StreamResponse:
        await request.read()
        self.held.set()
        await self.let_go.wait()
        return web.Response()

    async def _denies_with_a_page(self, request: web.Request, name: str) -> web.StreamResponse:
        return _page(request, 200)

    async def _denies_the_key(self, request: web.Request, name: str) -> web.StreamResponse:
        return web.json_response({"message": f"no access with {_echo(request)}"}, status=403)

    async def _calls_it_otherwise(self, request: web.Request, name: str) -> web.StreamResponse:
        url = self._signed(request.host, f"/own/table/{name}")
        self.issued.append(url)
        return web.json_response({"uploadUrl": url, "message": url})


def _name_in(path: str) -> str:
    """The file's name at the end of an object's key."""
    stem = path.rpartition("/")[2]
    return "-".join(stem.split("-")[-2:])


def _hex() -> str:
    return secrets.token_hex(32)


def _word() -> str:
    return secrets.token_urlsafe(18).replace("-", "x").replace("_", "y")


def _version_2(host: str, key: str) -> str:
    signature = quote(base64.b64encode(secrets.token_bytes(20)).decode(), safe="")
    return f"http://{host}{key}?AWSAccessKeyId={_word()}&Signature={signature}&Expires={round(time.time()) + 600}"


def _azure(host: str, key: str) -> str:
    expiry = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))
    signature = quote(base64.b64encode(secrets.token_bytes(32)).decode(), safe="")
    return f"http://{host}{key}?sv=2024-11-04&sr=b&sp=cw&se={quote(expiry)}&sig={signature}"


def _google(host: str, key: str) -> str:
    date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    credential = quote(f"{_word()}@project.iam.gserviceaccount.com/{date[:8]}/auto/storage/goog4_request", safe="")
    rest = f"X-Goog-Date={date}&X-Goog-Expires=600&X-Goog-SignedHeaders=host"
    signature = secrets.token_hex(256)
    return (
        f"http://{host}{key}?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential={credential}&{rest}"
        f"&X-Goog-Signature={signature}"
    )


@asynccontextmanager
async def indiscreet(sandbox: str) -> AsyncIterator[tuple[str, Indiscreet]]:
    """Serve before a sandbox; gives the origin and the server."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        server = Indiscreet(sandbox, session)
        async with serving(server) as origin:
            yield origin, server
