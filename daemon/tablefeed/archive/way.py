"""The way from a drop directory to where its files go, made and looked at once for moves that are made together."""

import os
import stat
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path

from tablefeed.archive.job import Action, Job
from tablefeed.archive.moves import Disk, within
from tablefeed.archive.shelf import numbered
from tablefeed.errors import FeedBlocked
from tablefeed.model import printable


def clear(jobs: Iterable[Job]) -> list[Job]:
    """The jobs, each with a target that no other moved file is in the way of. Blocks.

    A directory of the feed may have the name that a file had before: its files then go to one with a number.
    """
    free = cache(_without_files)
    return [
        replace(job, target=free(job.target, depth))
        if job.action is Action.MOVE and (depth := job.version.path.count("/"))
        else job
        for job in jobs
    ]


def _without_files(target: str, depth: int) -> str:
    """The directory, whose last `depth` names are those of the feed's own and get a number where a file has them."""
    base, *names = target.rsplit("/", depth)
    for name in names:
        numbers = (within(base, numbered(name, number)) for number in count())
        base = next(path for path in numbers if not _is_file(path))
    return base


def _is_file(path: str) -> bool:
    """Whether a regular file lies there: what else is wrong is told by who makes the directory."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


class Way:
    """Two directories, for as long as one batch takes.

    What one move has made and seen holds for those after it, as it does within one move: where somebody removes a
    directory meanwhile, or mounts another there, the rename fails, and whoever meets that calls `forget`. A failure is
    not remembered: each move meets its own. All methods block, and raise OSError and FeedBlocked.
    """

    def __init__(self, disk: Disk, origin: str, target: str) -> None:
        """From `origin` to `target`, of which the second may be missing yet."""
        self._disk = disk
        self._origin = origin
        self._target = Path(target)
        self._is_made = False
        self._is_level: bool | None = None
        self.touched: set[str] = set()
        """Directories that hold names of new ones, which are not durable yet."""

    def make(self) -> None:
        """Make the target, and the directories above it that are missing."""
        if not self._is_made:
            self._make(self._target)
            self._is_made = True

    def _make(self, directory: Path) -> None:
        if directory.is_dir():
            return
        if directory.parent != directory:
            self._make(directory.parent)
        self._disk.mkdir(directory)
        self.touched.add(str(directory.parent))

    def forget(self) -> None:
        """Look again for the next move."""
        self._is_made, self._is_level = False, None

    def is_level(self) -> bool:
        """Whether both ends are on one file system, as far as their devices tell. The target has been made."""
        if self._is_level is None:
            origin, end = Path(self._origin).stat(), self._target.stat()
            if (origin.st_dev, origin.st_ino) == (end.st_dev, end.st_ino):
                raise FeedBlocked(
                    f"{printable(self._target)} is the directory that the feed's files are dropped in",
                    "Name another directory to move them to",
                )
            self._is_level = origin.st_dev == end.st_dev
        return self._is_level
