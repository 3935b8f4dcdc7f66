"""The way from a drop directory to where its files go, made and looked at once for moves that are made together."""

from pathlib import Path

from tablefeed.archive.moves import Disk
from tablefeed.errors import FeedBlocked
from tablefeed.model import printable


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
