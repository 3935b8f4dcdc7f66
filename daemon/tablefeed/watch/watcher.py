"""Events from the kernel: they say "look there now", and no more. What they miss, the scan finds.

Facts about watchfiles that shape this room: a burst beyond the kernel's queue is lost without a word; a root that is
deleted and made anew stays silent; one name that is not UTF-8 ends the watch; its waits end only at every `step`; where
it is to ignore denied permissions, it ignores a limit of the kernel too, and is silent for ever.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import structlog
import watchfiles
from watchfiles._rust_notify import WatchfilesRustInternalError

from tablefeed import mounts
from tablefeed.clock import steady
from tablefeed.threads import Threads

log = structlog.get_logger("watch")

FLOOD = 1_000
"""So many paths in one go mean that the kernel's queue (16,384 events, about four a file) may have run over."""
_QUIET_MS = 2_000
_DEBOUNCE_MS = 400
_LONGEST_PAUSE = 300.0
_SOUND = 60.0
"""Seconds that a watch must have lived for its failure to count as a first one."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A watch ended by an error."""

    cause: str


@dataclass(frozen=True, slots=True)
class RootChanged:
    """The directory that was watched may no longer be the one at the path."""


@dataclass(frozen=True, slots=True)
class RootMissing:
    """There is nothing at the path, or it may not be looked at."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The watch was told to stop."""


@dataclass(frozen=True, slots=True)
class NoEvents:
    """The directory lies on a network share, whose other writers make no events here."""

    file_system: str


Ended = Failed | NoEvents | RootChanged | RootMissing | Stopped


_Identity = tuple[int, int] | None


def _identity(root: str) -> _Identity:
    """What tells one directory from another; None when there is none that may be read."""
    try:
        found = Path(root).stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if os.access(root, os.R_OK | os.X_OK, effective_ids=True) else None


def _first_look(root: Path) -> tuple[_Identity, Ended | None]:
    """Which directory is to be watched, and why it cannot be. Blocks."""
    watched = _identity(str(root))
    if watched is None:
        return None, RootMissing()
    mount = mounts.holding(root)
    return watched, NoEvents(mount.kind) if mount is not None and mount.is_network else None


class Watcher:
    """Watches one directory for as long as it runs, and makes the watch anew whenever it has ended."""

    def __init__(
        self,
        root: Path,
        *,
        feed: str,
        recursive: bool,
        step: float,
        tick: float,
        on_changes: Callable[[list[str]], None],
        on_gap: Callable[[], None],
    ) -> None:
        """`on_changes` gets paths relative to `root` (the root itself is ""), `on_gap` says that events may be lost.

        Both are called in the event loop. An event is told after one `step` to two (seconds); the root is compared with
        the one that is watched every `tick` seconds.
        """
        self._root = root
        self._recursive = recursive
        self._step = step
        self._tick = tick
        self._on_changes = on_changes
        self._on_gap = on_gap
        self._log = log.bind(feed=feed, directory=str(root))
        self._told = ""

    async def run(self) -> None:
        """Watch until cancelled. No trouble with the watch ends it."""
        pause = self._tick
        while True:
            began = steady()
            ended = await self._watch()
            self._on_gap()
            match ended:
                case Failed(cause):
                    pause = min(pause * 2, _LONGEST_PAUSE)
                    if steady() - began > _SOUND:
                        pause, self._told = self._tick, ""
                    self._tell(cause, "watch_failed", reason=cause)
                    await asyncio.sleep(pause)
                case NoEvents(file_system):
                    self._tell(file_system, "no_events_on_network_share", file_system=file_system)
                    await asyncio.sleep(_LONGEST_PAUSE)
                case RootMissing():
                    await asyncio.sleep(self._tick)
                case RootChanged() | Stopped():
                    pause = self._tick

    def _tell(self, what: str, event: str, **fields: str) -> None:
        """Log a reason for scanning alone when it is another than the last."""
        if what != self._told:
            self._told = what
            remedy = "until it works again files are found by scans alone; lower watch.rescan if that stays so"
            self._log.warning(event, **fields, remedy=remedy)

    async def _watch(self) -> Ended:
        loop = asyncio.get_running_loop()
        # What may hang before the watch begins, in a thread that nobody waits for at the end. One that is in the midst
        # of the watch itself, which is not Python, must be waited for.
        looks = Threads(1, "tablefeed-look")
        try:
            watched, ended = await looks.call(_first_look, self._root)
        finally:
            looks.shutdown(wait=False)
        if ended is not None:
            return ended
        stop = threading.Event()
        thread = ThreadPoolExecutor(1, thread_name_prefix="tablefeed-watch")

        def post(callback: Callable[..., None], *args: object) -> None:
            if not stop.is_set():
                loop.call_soon_threadsafe(callback, *args)

        try:
            return await loop.run_in_executor(thread, self._follow, watched, stop, post)
        finally:
            stop.set()
            thread.shutdown(wait=False)

    def _follow(self, watched: _Identity, stop: threading.Event, post: Callable[..., None]) -> Ended:
        """Tell what changes until the watch ends. Runs in a thread of its own."""
        root = str(self._root)
        try:
            try:
                return self._tell_changes(self._changes(stop), root, watched, post)
            except (PermissionError, FileNotFoundError):
                # A directory below is closed, or has just vanished: only then, since this passes by limits too.
                changes = self._changes(stop, ignore_permission_denied=True)
                return self._tell_changes(changes, root, watched, post)
        except (OSError, UnicodeError, WatchfilesRustInternalError) as error:
            return Failed(str(error))

    def _changes(
        self, stop: threading.Event, *, ignore_permission_denied: bool = False
    ) -> Generator[set[watchfiles.main.FileChange], None, None]:
        step = max(1, round(self._step * 1000))
        return watchfiles.watch(
            str(self._root),
            watch_filter=None,
            debounce=max(_DEBOUNCE_MS, step),
            step=step,
            stop_event=stop,
            rust_timeout=_QUIET_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
            force_polling=False,
            recursive=self._recursive,
            ignore_permission_denied=ignore_permission_denied,
        )

    def _tell_changes(
        self,
        changes: Generator[set[watchfiles.main.FileChange], None, None],
        root: str,
        watched: _Identity,
        post: Callable[..., None],
    ) -> Ended:
        flooded = False
        checked = None
        with closing(changes):
            for batch in changes:
                paths = [_relative(path, root) for _, path in batch]
                if checked is None:
                    post(self._on_gap)  # what came before the watch began was not told
                    checked = steady()
                if len(paths) >= FLOOD:
                    flooded = True
                    post(self._on_gap)
                elif paths:
                    post(self._on_changes, paths)
                elif flooded:
                    flooded = False
                    post(self._on_gap)
                if "" in paths:
                    return RootChanged()  # when it was deleted, the next one often has the same inode number
                if steady() - checked >= self._tick:
                    checked = steady()
                    if _identity(root) != watched:
                        return RootChanged()
        return Stopped()


def _relative(path: str, root: str) -> str:
    return path.removeprefix(root).lstrip("/")
