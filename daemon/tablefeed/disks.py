"""How much room there is where files are put, looked up beside the event loop. A share that hangs holds up no other."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 60.0
"""Seconds between two looks."""
PATIENCE = 5.0
"""Seconds that a file system gets for its answer."""

Place = tuple[str, str]
"""(what lies there, the feed; empty: of no feed)"""


@dataclass(frozen=True, slots=True)
class Space:
    """How much a file system takes, in bytes."""

    available: int
    """For those who are not root."""
    size: int


def space_at(path: Path) -> Space:
    """The file system that holds `path`, or would if it were made. Blocks. Raises OSError."""
    while True:
        try:
            found = os.statvfs(path)
        except FileNotFoundError:
            if path == path.parent:
                raise
            path = path.parent
        else:
            return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


class Disks:
    """Looks once in a while at the file systems of some places."""

    def __init__(
        self,
        places: Callable[[], Mapping[Place, Path]],
        sleep: Callable[[float], Awaitable[None]],
        look: Callable[[Path], Space] = space_at,
        patience: float = PATIENCE,
    ) -> None:
        """`places` is asked before each round. `look` may block for ever; after `patience` seconds others go on."""
        self._patience = patience
        self._places = places
        self._sleep = sleep
        self._look = look
        self._hung: set[Path] = set()
        self._found: dict[Path, Space] = {}

    @property
    def spaces(self) -> dict[Place, Space]:
        """What was found last; without what does not answer."""
        return {place: self._found[path] for place, path in self._places().items() if path in self._found}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            paths = {*self._places().values()}
            self._found = {path: space for path, space in self._found.items() if path in paths}
            for path in sorted(paths - self._hung):
                await self._visit(path)
            await self._sleep(INTERVAL)

    async def _visit(self, path: Path) -> None:
        answer: asyncio.Future[Space | None] = asyncio.get_running_loop().create_future()
        self._hung.add(path)
        # A thread that nobody waits for at the end: those of a pool would keep a hung daemon from ending.
        threading.Thread(target=self._ask, args=(path, answer), name="disk", daemon=True).start()
        try:
            async with asyncio.timeout(self._patience):
                space = await asyncio.shield(answer)
        except TimeoutError:
            space = None
        if space is None:
            self._found.pop(path, None)
        else:
            self._found[path] = space

    def _ask(self, path: Path, answer: "asyncio.Future[Space | None]") -> None:
        try:
            space = self._look(path)
        except OSError:
            space = None
        with suppress(RuntimeError):  # the daemon has ended meanwhile
            answer.get_loop().call_soon_threadsafe(self._answered, path, answer, space)

    def _answered(self, path: Path, answer: "asyncio.Future[Space | None]", space: Space | None) -> None:
        self._hung.discard(path)
        if not answer.done():
            answer.set_result(space)
