"""The report beside a refused file: drafted under a hidden name before the file is moved, published after it."""

import os
from contextlib import suppress

from tablefeed.archive.moves import Disk, lstat

REPORT_SUFFIX = ".error.json"


class Report:
    """The report of one move; one without a text never does anything. All methods block, and raise OSError."""

    def __init__(self, disk: Disk, text: bytes | None, draft: str) -> None:
        """`draft` is a hidden name in the directory that the file is moved to."""
        self._disk = disk
        self._text = text
        self._draft = draft

    def write(self, file: str) -> None:
        """Write the draft, as readable as `file`, while that is still in place: the disk may be full."""
        if self._text is None:
            return
        self._disk.unlink(self._draft)
        fd = self._disk.create(self._draft)
        try:
            self._disk.write(fd, self._text)
            self._disk.seal(fd, os.lstat(file).st_mode & 0o666, None)
        finally:
            os.close(fd)

    def publish(self, file: str) -> None:
        """Put it beside the moved `file`, unless one is there."""
        if self._text is None:
            return
        published = file + REPORT_SUFFIX
        if lstat(published) is None:
            if lstat(self._draft) is None:
                self.write(file)
            with suppress(FileExistsError):
                self._disk.rename(self._draft, published)

    def discard(self) -> None:
        """Remove a draft that was not published."""
        if self._text is not None and lstat(self._draft):
            self._disk.unlink(self._draft)
