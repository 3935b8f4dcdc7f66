"""Feeds and drops for the tests of moves, a disk whose power can be cut, and the books of what lies where."""

import ctypes
import errno
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.patience import PATIENCE
from tablefeed.archive import Archiver
from tablefeed.archive.moves import Disk, renameat2
from tablefeed.model import ApiAccess, Feed, FileVersion

UPLOADED_AT = 1_700_000_000_000  # 2023-11-14T22:13:20Z
MTIME_NS = 1_699_999_999_123_456_789


def feed_at(directory: Path, **settings: Any) -> Feed:
    """A feed of a directory."""
    api = ApiAccess("https://api.example", "tenant-1", "key")
    return Feed("orders", directory, "table-1", api, **settings)


def write(path: Path, content: bytes, *, mtime_ns: int = MTIME_NS, mode: int = 0o640) -> None:
    """Make a file, and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def drop(feed: Feed, path: str, content: bytes, **settings: int) -> FileVersion:
    """Drop a file, and give its version."""
    write(feed.directory / path, content, **settings)
    return seen(feed, path)


def seen(feed: Feed, path: str) -> FileVersion:
    """The version that lies at a path now."""
    return FileVersion.of(feed.name, path, (feed.directory / path).lstat())


def books(*roots: Path) -> dict[str, bytes]:
    """The content of every file below, by its path, our hidden ones too."""
    return {str(path): path.read_bytes() for root in roots for path in sorted(root.rglob("*")) if path.is_file()}


@contextmanager
def other_file_system(than: Path) -> Iterator[Path]:
    """A directory on another file system than a path; the test is skipped where there is none."""
    shm = Path("/dev/shm")  # noqa: S108 - the tmpfs that every Linux has
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == than.stat().st_dev:
        pytest.skip("there is no second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=shm) as directory:
        yield Path(directory)


@asynccontextmanager
async def archiving(disk: Disk | None = None, holds: Callable[[int], bool] = lambda _: True) -> AsyncIterator[Archiver]:
    """An archiver with a thread of its own."""
    with ThreadPoolExecutor(1) as executor:
        archiver = Archiver(executor, disk, holds)
        try:
            yield archiver
        finally:
            await archiver.close()


class PowerCut(BaseException):
    """The process was killed."""


STEPS = ("take", "rename", "link", "unlink", "mkdir", "create", "write", "seal", "sync")


class MortalDisk(Disk):
    """Dies before its nth step; a write that is cut short leaves half of its bytes. Dead, it does nothing more.

    The steps that a step of `disk` is made of count as well.
    """

    def __init__(self, dies_at: int, disk: Disk | None = None) -> None:
        super().__init__()
        mortal = disk or Disk()
        self._write = mortal.write
        self._left = dies_at
        self.died = False
        for name in STEPS:
            step = self._mortal(name, getattr(mortal, name))
            setattr(self, name, step)
            setattr(mortal, name, step)

    def _mortal(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            self._left -= 1
            if self._left <= 0:
                if name == "write" and not self.died:
                    self._write(arguments[0], arguments[1][: len(arguments[1]) // 2])
                self.died = True
                raise PowerCut
            return step(*arguments)

        return run


def as_path(argument: Any) -> Any:
    """An argument of a step of a disk, where a path is a `Path`."""
    return Path(argument) if isinstance(argument, str) else argument


class HookedDisk(Disk):
    """Calls a hook before steps of some kinds, with the paths (each a `Path`) or descriptors of that step."""

    def __init__(self, disk: Disk | None = None, **hooks: Callable[..., None]) -> None:
        super().__init__(disk._renameat2 if disk else renameat2)
        for step, hook in hooks.items():
            setattr(self, step, self._hooked(getattr(Disk, step), hook))

    def _hooked(self, step: Callable[..., Any], hook: Callable[..., None]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            hook(*map(as_path, arguments))
            return step(self, *arguments)

        return run


class Once:
    """A hook that acts the first time its condition holds."""

    def __init__(self, action: Callable[[], object], *, when: Callable[..., bool] = lambda *_: True) -> None:
        self._action = action
        self._when = when
        self.acted = False

    def __call__(self, *arguments: Any) -> None:
        if not self.acted and self._when(*arguments):
            self.acted = True
            self._action()


def failing(number: int, *, when: Callable[..., bool] = lambda *_: True) -> Callable[..., None]:
    """A hook that fails with an errno while its condition holds."""

    def fail(*arguments: Any) -> None:
        if when(*arguments):
            paths = [str(argument) for argument in arguments if isinstance(argument, Path)]
            raise OSError(number, os.strerror(number), *paths[:1], *([None, paths[1]] if len(paths) > 1 else []))

    return fail


def old_kernel(*, links: bool = True) -> Disk:
    """A disk that cannot rename without overwriting in one step, nor make hard links unless it is said to."""
    disk = Disk(lambda source, target: errno.EINVAL)
    if not links:
        disk.link = failing(errno.EPERM)  # type: ignore[method-assign]
    return disk


class Barrier:
    """A hook that holds back whoever calls it until it is opened, and counts those it holds."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._open = False
        self.held = 0

    def __call__(self, *_: Any) -> None:
        with self._condition:
            self.held += 1
            self._condition.notify_all()
            assert self._condition.wait_for(lambda: self._open, PATIENCE)
            self.held -= 1

    def await_held(self, count: int) -> None:
        """Wait until so many are held."""
        with self._condition:
            assert self._condition.wait_for(lambda: self.held >= count, PATIENCE)

    def open(self) -> None:
        """Let all go on, also those to come."""
        with self._condition:
            self._open = True
            self._condition.notify_all()


def exchange(one: Path, other: Path) -> int:
    """Swap two files in one step; returns 0 or the errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    at_fdcwd, rename_exchange = -100, 2
    done = libc.renameat2(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), rename_exchange)
    return 0 if done == 0 else ctypes.get_errno()


class Producer:
    """Drops one file after the other at a path, without rest, and keeps in its hands whatever it replaces.

    It exchanges the new file with the old one (renameat2), so that none is ever overwritten and the books must balance.
    """

    def __init__(self, path: Path, hands: Path) -> None:
        self._path = path
        self._hands = hands
        self._ending = threading.Event()
        self._dropped = threading.Condition()
        self._latest: tuple[os.stat_result, bytes] | None = None
        self._thread = threading.Thread(target=self._produce)
        self.made: list[bytes] = []

    def __enter__(self) -> "Producer":
        self._hands.mkdir()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Drop no more."""
        self._ending.set()
        self._thread.join()
        self.made.sort()

    def await_drop(self) -> tuple[os.stat_result, bytes]:
        """What was dropped last, and not asked for before."""
        with self._dropped:
            assert self._dropped.wait_for(lambda: self._latest is not None, PATIENCE)
            latest = self._latest
            self._latest = None
        assert latest is not None
        return latest

    def _produce(self) -> None:
        while not self._ending.is_set():
            content = b"drop %06d" % len(self.made)
            new = self._hands / f"{len(self.made)}"
            write(new, content, mtime_ns=MTIME_NS + len(self.made))
            found = new.lstat()
            if exchange(new, self._path) == errno.ENOENT and renameat2(os.fsencode(new), os.fsencode(self._path)):
                new.unlink()
                continue
            self.made.append(content)
            with self._dropped:
                self._latest = (found, content)
                self._dropped.notify()
