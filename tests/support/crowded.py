"""A store that takes only so many uploads at a time well, as real ones do."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from support.stores import Server, take_all

SLOW_DOWN = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"

Answer = Callable[["Crowd", Server, web.Request, bytes], Awaitable[web.StreamResponse]]


class Crowd:
    """Takes `most` uploads at a time well, each in `usual` seconds; what comes beyond that is `answer`ed in its way."""

    def __init__(
        self,
        most: int,
        usual: float,
        answer: Answer,
    ) -> None:
        self.most = most
        self.usual = usual
        self._answer = answer
        self.at_once = 0
        """Uploads that it has now."""
        self.seen: list[int] = []
        """How many it had, with each that came."""
        self.refused = 0
        self._began = 0.0
        self._ended = 0.0

    @property
    def seconds(self) -> float:
        """From the first upload that came to the last that was answered."""
        return self._ended - self._began

    async def put(self, server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
        """What a `Server` does with each."""
        self._began = self._began or asyncio.get_running_loop().time()
        self.at_once += 1
        self.seen.append(self.at_once)
        try:
            return await self._answer(self, server, request, body)
        finally:
            self.at_once -= 1
            self._ended = asyncio.get_running_loop().time()


async def slower(crowd: Crowd, server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
    """A crowd makes it slower in all: twice as many take four times as long."""
    await asyncio.sleep(crowd.usual * max(1.0, crowd.at_once / crowd.most) ** 2)
    return await take_all(server, request, body)


async def refusing(crowd: Crowd, server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
    """What comes beyond the number is refused, as S3 does."""
    if crowd.at_once > crowd.most:
        crowd.refused += 1
        return web.Response(status=503, text=SLOW_DOWN)
    await asyncio.sleep(crowd.usual)
    return await take_all(server, request, body)
