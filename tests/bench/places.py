"""Where the benchmark keeps what it makes."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.model import Plan

_MEMORY = Path("/dev/shm")  # noqa: S108  # a directory with a name of its own is made in it
_REAL_DISK = Path("/var/tmp")  # noqa: S108  # so is this
_ENOUGH = 2**29


@contextmanager
def light_directory(plan: Plan) -> Iterator[Path]:
    """A directory in memory where there is one, for a server's small files; it is removed.

    A real server is another machine: what it writes does not go into the journal of the file system whose commits the
    ledger waits for.
    """
    fits = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ENOUGH
    with tempfile.TemporaryDirectory(prefix="tablefeed-bench-", dir=_MEMORY if fits else plan.scratch) as name:
        yield Path(name)


@contextmanager
def public_directory(plan: Plan) -> Iterator[Path]:
    """A directory that every user may enter, for a server that does not run as root; it is removed.

    It is beside the benchmark's own, on the same disk, unless others may not go there.
    """
    beside = plan.scratch.parent
    open_to_all = all(path.stat().st_mode & 0o001 for path in (beside, *beside.parents))
    where = beside if open_to_all else _REAL_DISK
    with tempfile.TemporaryDirectory(prefix="tablefeed-bench-", dir=where) as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


def file_system(directory: Path) -> str:
    """The type of the file system that a directory is on, such as "ext4"."""
    target = directory.resolve()
    best, found = -1, "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mounted, kind, *_ = line.split()
        place = Path(mounted.encode().decode("unicode_escape"))
        if target.is_relative_to(place) and len(place.parts) >= best:
            best, found = len(place.parts), kind
    return found
