"""Producers of all kinds. Each notes a version in the books before anybody can see it, and none is made twice."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

from faults.books import Books, Drop, Fate
from faults.crash_site import TOO_LARGE
from faults.faulty import REFUSED_NAME
from support.daemon import Site
from tablefeed.archive.moves import renameat2

SMALL, LARGE = 20_000, 5 * 2**20
CROWD = 80
"""Files in a directory with which a producer holds back."""


class Producer:
    """Everybody who drops files into one feed's directory, until `stop`."""

    def __init__(self, site: Site, feed: str, books: Books, random: Random) -> None:
        self._feed = feed
        self._directory = Path(site.feeds[feed]["directory"])
        self._books = books
        self._random = random
        self._stopped = asyncio.Event()
        self._made = 0
        self._kinds: list[Callable[[], Awaitable[None]]]
        if site.feeds[feed].get("ready") == "marker":
            self._kinds = [self._marked, self._marked, self._marked_again]
        else:
            self._kinds = [
                *[self._renamed, self._several] * 3,
                *[self._slow, self._appended, self._replaced, self._again] * 2,
                *[self._withdrawn, self._too_large, self._refused_by_store],
            ]
        if site.feeds[feed].get("recursive"):
            self._kinds += [self._deep] * 4
        self._rest = 1.0 if site.feeds[feed].get("strict") else 0.5

    def stop(self) -> None:
        """End the file that is being made, and make no other."""
        self._stopped.set()

    async def run(self) -> None:
        """Drop one thing after the other."""
        while not self._stopped.is_set():
            if sum(1 for _ in os.scandir(self._directory)) < CROWD:
                await self._random.choice(self._kinds)()
            await self._pause(self._rest)

    async def _pause(self, longest: float) -> None:
        await asyncio.sleep(self._random.uniform(0, longest))

    def _name(self, kind: str) -> str:
        self._made += 1
        return f"{kind}-{self._made}.csv"

    def _content(self) -> bytes:
        size = self._random.randrange(1, SMALL if self._random.random() < 0.9 else LARGE)
        return f"{self._feed} {self._made} {self._random.random()}\n".encode() + self._random.randbytes(size)

    def _hidden(self, content: bytes) -> Path:
        """Content under a name that the daemon leaves alone; one of four with an old mtime."""
        self._made += 1
        path = self._directory / f".{self._made}.part"
        path.write_bytes(content)
        if self._random.random() < 0.25:
            when = path.stat().st_mtime_ns - self._random.randrange(10**17)
            os.utime(path, ns=(when, when))
        return path

    def _drop(self, name: str, content: bytes, fate: Fate = Fate.DUE) -> Drop:
        """Rename in."""
        hidden = self._hidden(content)
        drop = self._books.note(self._feed, name, content, fate)
        hidden.rename(self._directory / name)
        return drop

    async def _renamed(self) -> None:
        self._drop(self._name("renamed"), self._content())

    async def _several(self) -> None:
        for _ in range(self._random.randrange(2, 8)):
            self._drop(self._name("several"), self._content()[:3_000])

    async def _slow(self) -> None:
        """Written in place with pauses, and open all the time."""
        name, content = self._name("slow"), self._content()
        self._books.note(self._feed, name, content)
        with (self._directory / name).open("wb", buffering=0) as file:
            for piece in self._pieces(content):
                file.write(piece)
                await self._pause(0.3)

    def _pieces(self, content: bytes) -> list[bytes]:
        cuts = sorted(self._random.randrange(len(content)) for _ in range(3))
        return [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]

    async def _appended(self) -> None:
        """A whole file that grows later, if it is still there."""
        name, content = self._name("appended"), self._content()
        first = self._drop(name, content)
        await self._pause(1.0)
        try:
            file = (self._directory / name).open("r+b", buffering=0)
        except FileNotFoundError:
            return
        with file:
            more = self._content()
            first.fate = Fate.OPTIONAL
            self._books.note(self._feed, name, content + more)
            file.seek(0, os.SEEK_END)
            await self._pause(0.2)
            file.write(more)

    async def _replaced(self) -> None:
        """Another version renamed over the first, if that is still there."""
        name = self._name("replaced")
        first = self._drop(name, self._content())
        await self._pause(1.0)
        content = self._content()
        hidden = self._hidden(content)
        self._books.note(self._feed, name, content)
        if renameat2(os.fsencode(hidden), os.fsencode(self._directory / name)):
            first.fate = Fate.OPTIONAL
            hidden.rename(self._directory / name)

    async def _again(self) -> None:
        """One name as often as it becomes free."""
        name = self._name("again")
        for _ in range(4):
            content = self._content()
            hidden = self._hidden(content)
            drop = self._books.note(self._feed, name, content)
            if not await self._when_free(lambda hidden=hidden: not self._renames(hidden, name)):  # type: ignore[misc]
                self._books.forget(drop)
                hidden.unlink()
                return

    def _renames(self, hidden: Path, name: str) -> bool:
        """Whether the name is used still; else the hidden file has it now."""
        return renameat2(os.fsencode(hidden), os.fsencode(self._directory / name)) != 0

    async def _when_free(self, attempt: Callable[[], bool]) -> bool:
        """Try until it succeeds, or nobody wants it any more."""
        while not attempt():
            if self._stopped.is_set():
                return False
            await asyncio.sleep(0.02)
        return True

    async def _withdrawn(self) -> None:
        """Taken away by its producer, if it is still there."""
        name = self._name("withdrawn")
        drop = self._drop(name, self._content())
        await self._pause(0.6)
        if (self._directory / name).exists():
            drop.fate = Fate.OPTIONAL
            (self._directory / name).unlink(missing_ok=True)

    async def _too_large(self) -> None:
        name = self._name("large")
        self._drop(name, bytes(TOO_LARGE + self._books.next_number), Fate.REFUSED)

    async def _refused_by_store(self) -> None:
        self._drop(self._name(REFUSED_NAME.rstrip("-")), self._content(), Fate.REFUSED)

    async def _deep(self) -> None:
        """Directories that are new, with files in them."""
        below = f"{self._random.choice('abc')}/{self._random.randrange(1000)}"
        (self._directory / below).mkdir(parents=True, exist_ok=True)
        for _ in range(3):
            self._drop(f"{below}/{self._name('deep')}", self._content()[:3_000])

    async def _marked(self) -> None:
        await self._mark(self._name("marked"))

    async def _marked_again(self) -> None:
        """One name as often as it and its marker are free."""
        name = self._name("marked-again")
        places = [self._directory / name, self._directory / f"{name}.done"]
        for _ in range(3):
            if not await self._when_free(lambda: not any(map(os.path.lexists, places))):
                return
            await self._mark(name)

    async def _mark(self, name: str) -> None:
        """Written in pieces, closed after each, and whole only when its marker is there."""
        content = self._content()
        self._books.note(self._feed, name, content)
        for piece in self._pieces(content):
            with (self._directory / name).open("ab") as file:
                file.write(piece)
            await self._pause(0.3)
        (self._directory / f"{name}.done").write_bytes(b"" if self._random.random() < 0.5 else content[:20])
