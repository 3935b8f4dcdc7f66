"""A site with a store that counts what it is sent, for attacks on the real daemon."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from support.daemon import Daemon, Site, rename_in
from support.stores import Server, serving, take_all

Put = Callable[[Server, web.Request, bytes], Awaitable[web.StreamResponse]]


class Bench:
    """A store, and the configuration of a daemon that delivers to it."""

    def __init__(self, site: Site, store: Server) -> None:
        self.site = site
        self.store = store
        self._controls = 0

    def feed(self, name: str = "orders", **settings: object) -> Path:
        """Add a feed whose dataset is known."""
        return self.site.feed(name, dataset_id="dataset-1", **settings)

    async def control(self, daemon: Daemon, directory: Path) -> None:
        """Drop a file and wait for its end: what was whole before it has had its chance."""
        self._controls += 1
        name = f"control-{self._controls}.csv"
        rename_in(directory, name, name.encode())
        await daemon.until(lambda: any(event["path"] == name for event in daemon.named("file_archived")))

    @staticmethod
    def is_control(body: bytes) -> bool:
        """Whether this is the content of such a file."""
        return body.startswith(b"control-")

    async def watched(self, daemon: Daemon, directory: Path) -> None:
        """Wait until the kernel's watch is there: the second file is found by it, or by the scan that follows it."""
        await self.control(daemon, directory)
        await self.control(daemon, directory)

    def sent(self) -> list[tuple[str, bytes]]:
        """The name and the content of each object but those of controls."""
        return [(name, body) for name, body in self.store.sent() if not self.is_control(body)]

    def archived(self, feed: str = "orders") -> dict[str, bytes]:
        """The feed's archive but for controls."""
        return {name: body for name, body in self.site.archived(feed).items() if not self.is_control(body)}

    def ledger(self) -> list[tuple[str, str]]:
        """(path, state) of every row, in the order in which they were queued."""
        return [(row["path"], row["state"]) for row in self.site.rows("SELECT path, state FROM files ORDER BY id")]


@asynccontextmanager
async def bench(root: Path, put: Put = take_all) -> AsyncIterator[Bench]:
    """A bench below `root`, whose store does as `put` says."""
    store = Server(put)
    async with serving(store) as origin:
        yield Bench(Site(root, origin), store)


def ended(daemon: Daemon, *paths: str) -> Callable[[], bool]:
    """Whether each of these paths has been archived at least once."""
    return lambda: {*paths} <= {event["path"] for event in daemon.named("file_archived")}
