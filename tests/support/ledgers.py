"""Real ledgers on real files, with a clock that the test sets."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config

import tablefeed.ledger
from tablefeed.clock import steady
from tablefeed.ledger import Ledger, engine
from tablefeed.ledger.member import Member
from tablefeed.model import FileVersion, Grant, Receipt


class Clock:
    """Unix seconds that stand still until they are set."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    @property
    def ms(self) -> int:
        return round(self.now * 1000)


@asynccontextmanager
async def opened(path: Path, clock: Clock | None = None, owner: str = "me") -> AsyncIterator[Ledger]:
    """A ledger in `path`, closed at the end."""
    ledger = Ledger(f"sqlite:///{path}", owner=owner, clock=clock or Clock(), sleep=asyncio.sleep)
    async with _open(ledger):
        yield ledger


@asynccontextmanager
async def joined(
    url: str,
    node: str = "one",
    clock: Clock | None = None,
    lease: float = 60.0,
    now: Callable[[], float] = steady,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[Ledger]:
    """A ledger on PostgreSQL as a node of its fleet has it, left at the end; `now` is the node's own steady clock."""
    member = Member(node, lease, now)
    ledger = Ledger(url, owner="", clock=clock or Clock(), sleep=sleep, member=member)
    async with _open(ledger):
        yield ledger


@asynccontextmanager
async def _open(ledger: Ledger) -> AsyncIterator[None]:
    await ledger.open()
    try:
        yield
    finally:
        await ledger.close()


def version(
    path: str = "a.csv", *, feed: str = "orders", size: int = 10, mtime_ns: int = 5, inode: int = 1
) -> FileVersion:
    """A file version like any other."""
    return FileVersion(feed=feed, path=path, device=1, inode=inode, size=size, mtime_ns=mtime_ns)


GRANT = Grant("https://s.example/k?X-Amz-Signature=abc", 1_700_003_600_000, 3600.0, {"Content-Type": "text/csv"})
RECEIPT = Receipt(
    size=10,
    md5="0" * 32,
    etag='"' + "0" * 32 + '"',
    verified=True,
    status=200,
    request_id="r-1",
    origin="https://s.example",
    started_at=1_700_000_000_000,
    finished_at=1_700_000_001_000,
)


def migrations() -> Config:
    """The migrations, as Alembic is given them."""
    config = Config()
    config.set_main_option("script_location", str(Path(tablefeed.ledger.__file__).parent / "migrations"))
    return config


def upgraded(url: str, revision: str) -> None:
    """Bring a ledger to this version of its schema, as a program of that time did."""
    config = migrations()
    made = engine.make_engine(url)
    with made.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()
    made.dispose()


def states(ledger: Path, feed: str) -> dict[str, str]:
    """The state of the latest row of each path of a feed."""
    with sqlite3.connect(ledger) as raw:
        return dict(raw.execute("SELECT path, state FROM files WHERE feed = ? ORDER BY id", (feed,)))
