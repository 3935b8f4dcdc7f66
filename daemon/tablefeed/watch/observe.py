"""How a file looks: what lstat says of it, whether its marker is there, and, once it is worth opening, who writes it.

Everything here blocks and runs in threads. Symbolic links are never followed, neither the file itself nor a directory
on the way to it; what is not a regular file is never opened.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tablefeed.errors import DiskTrouble
from tablefeed.lease import Writer, writer_of
from tablefeed.model import FileVersion
from tablefeed.readiness import Marker, Observation

_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def look(root: Path, path: str) -> os.stat_result | None:
    """What lies at `path` below `root`; None when there is nothing. Raises DiskTrouble when the file system fails."""
    try:
        with _parent(root, path) as (directory, name):
            return os.lstat(name, dir_fd=directory)
    except OSError as error:
        if error.errno in _VANISHED:
            return None
        raise _trouble(root, path, error) from error


def without_links(root: Path, path: str) -> str | None:
    """The path below `root` of what lies at `path` when the links on the way are followed; None when it leads out.

    The kernel tells of a directory that is reached in two ways by one of them alone, and that may be the link.
    """
    directory, _, name = path.rpartition("/")
    base = os.path.realpath(root)
    real = os.path.join(os.path.realpath(root / directory), name)  # noqa: PTH118  (paths as text)
    return real.removeprefix(base).lstrip("/") if real.startswith(base.rstrip("/") + "/") else None


def glance(root: Path, feed: str, path: str, found: os.stat_result, suffix: str | None, now: float) -> Observation:
    """What `found` (of `look` or a scan) says of the file, and whether its marker lies beside it.

    `suffix` is the marker's, None where the feed has none. `now` is the Unix time in seconds.
    Raises DiskTrouble when the file system fails.
    """
    marker = None if suffix is None else look(root, path + suffix)
    return Observation(
        version=FileVersion.of(feed, path, found),
        ctime_ns=found.st_ctime_ns,
        regular=stat.S_ISREG(found.st_mode),
        taken_at=now,
        marker=Marker(marker.st_mtime_ns, marker.st_ctime_ns) if marker and stat.S_ISREG(marker.st_mode) else None,
    )


def probe(root: Path, seen: Observation, now: float, writer: Callable[[int], Writer] = writer_of) -> Observation | None:
    """Open the file that a glance has shown and ask who writes it; None when it has vanished.

    What is returned describes the file as it was after `writer` had answered, so that what was written before shows in
    its times. `now` is the Unix time in seconds. Raises DiskTrouble when the file system fails.
    """
    path = seen.version.path
    try:
        with _parent(root, path) as (directory, name):
            found = os.lstat(name, dir_fd=directory)
            if not stat.S_ISREG(found.st_mode):
                return _seen_again(seen, found, now)
            try:
                fd = os.open(name, _READ, dir_fd=directory)
            except BlockingIOError:  # another process holds a write lease, as Samba does for its clients
                return replace(_seen_again(seen, found, now), writer=Writer.OPEN)
            except PermissionError:
                return replace(_seen_again(seen, found, now), readable=False)
            try:
                answer = writer(fd)
                return replace(_seen_again(seen, os.fstat(fd), now), writer=answer)
            finally:
                os.close(fd)
    except OSError as error:
        if error.errno in _VANISHED:
            return None
        raise _trouble(root, path, error) from error


def _seen_again(seen: Observation, found: os.stat_result, now: float) -> Observation:
    return replace(
        seen,
        version=FileVersion.of(seen.version.feed, seen.version.path, found),
        ctime_ns=found.st_ctime_ns,
        regular=stat.S_ISREG(found.st_mode),
        taken_at=now,
    )


@contextmanager
def _parent(root: Path, path: str) -> Iterator[tuple[int, str]]:
    """The directory that holds `path`, opened without following links below `root`, and the last component."""
    *steps, name = path.split("/")
    directory = os.open(root, _STEP)
    try:
        for step in steps:
            below = os.open(step, _STEP | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = below
        yield directory, name
    finally:
        os.close(directory)


def _trouble(root: Path, path: str, error: OSError) -> DiskTrouble:
    return DiskTrouble(str(root / path), error.strerror or str(error))
