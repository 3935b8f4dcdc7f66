"""A webhook's receiver on loopback that behaves as a test says, and remembers what it was told."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from support.patience import PATIENCE
from support.stores import serving

Answer = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


@dataclass
class Post:
    """One request."""

    path: str
    headers: dict[str, str]
    raw: str

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.raw)
        return found


async def accept(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """What a receiver does that works."""
    return web.Response(status=204)


def saying(status: int, **headers: str) -> Answer:
    """A receiver that answers all with one status."""

    async def answer(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.Response(status=status, headers=headers)

    return answer


async def reset(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """A receiver that drops the connection instead of an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hang(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """A receiver that never answers."""
    await asyncio.Event().wait()
    return web.Response()


@dataclass
class Receiver:
    """What came, and what is answered."""

    origin: str = ""
    answer: Answer = accept
    posts: list[Post] = field(default_factory=list)
    accepted: list[Post] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        """Where to send; the path is a secret."""
        return f"{self.origin}/hook/T0p-s3cret-p4th-0f-it?k=qu3ry-s3cret-0f-it"

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        raw = (await request.read()).decode()
        if request.method != "POST":
            return web.Response(status=405)
        post = Post(request.path_qs, dict(request.headers), raw)
        self.posts.append(post)
        async with self.changed:
            self.changed.notify_all()
        response = await self.answer(request, post.body)
        if response.status < 300 and self.answer is not reset:
            self.accepted.append(post)
            async with self.changed:
                self.changed.notify_all()
        return response

    async def until(self, condition: Callable[[], object], patience: float = PATIENCE) -> None:
        """Wait until a condition holds after some request."""
        try:
            async with asyncio.timeout(patience), self.changed:
                await self.changed.wait_for(condition)
        except TimeoutError:
            raise AssertionError(f"it did not happen within {patience} s: {self.kinds()}") from None

    async def until_accepted(self, count: int, kind: str = "", patience: float = PATIENCE) -> None:
        """Wait until so many different events were accepted, of one kind if that is given."""
        await self.until(lambda: len(self.ids(kind)) >= count, patience)

    def told(self) -> list[dict[str, Any]]:
        """The different events that were accepted, in the order in which they came first."""
        return [*{post.body["id"]: post.body for post in reversed(self.accepted)}.values()][::-1]

    def kinds(self) -> list[str]:
        """Their kinds."""
        return [body["event"] for body in self.told()]

    def ids(self, kind: str = "") -> set[str]:
        """The different events that were accepted."""
        return {post.body["id"] for post in self.accepted if kind in ("", post.body["event"])}

    def paths(self) -> list[str]:
        """The files of the deliveries among them."""
        return [body["file"]["path"] for body in self.told() if body["event"] == "file.delivered"]


def is_signed(post: Post, secret: str) -> bool:
    """Whether a request bears the signature of this secret, by the book."""
    text = f"{post.headers['X-Tablefeed-Timestamp']}.{post.raw}"
    wanted = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return post.headers["X-Tablefeed-Signature"] == f"sha256={wanted}"


@asynccontextmanager
async def receiving(answer: Answer = accept) -> AsyncIterator[Receiver]:
    """A receiver that runs while the block does."""
    receiver = Receiver(answer=answer)
    async with serving(receiver) as origin:
        receiver.origin = origin
        yield receiver
