"""The marker file of a feed with `ready = "marker"`, while its file is moved. Everything here blocks."""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tablefeed.archive.moves import Disk, copy, lstat, md5_of, resembles, same_file
from tablefeed.archive.shelf import Shelf
from tablefeed.model import FileVersion


class Marker:
    """The marker of one file: taken to a hidden name before its file is, then carried to wherever the file goes.

    A feed without markers has one that never does anything. All methods raise OSError.
    """

    def __init__(self, disk: Disk, file: str, suffix: str, *, taken: str, temp: str) -> None:
        """`file` is the dropped one; `taken` the hidden name beside it, `temp` one in the directory to move to."""
        self._disk = disk
        self._suffix = suffix
        self._path = file + suffix
        self._taken = taken
        self._temp = temp
        self._made_at = 0

    @property
    def is_taken(self) -> bool:
        """Whether it lies under its hidden name, from now or from a try before."""
        return bool(self._suffix) and lstat(self._taken) is not None

    def take(self) -> None:
        """Take it, if there is one."""
        found = lstat(self._path) if self._suffix else None
        if found is not None and stat.S_ISREG(found.st_mode):
            self._made_at = found.st_ctime_ns
            if same_file(self._path, self._taken):  # a kill in the midst of putting it back
                self._disk.unlink(self._taken)
            with suppress(FileNotFoundError):
                self._disk.take(self._path, self._taken)

    def put_back(self) -> None:
        """Undo `take`; FileExistsError when there is another by now."""
        if self.is_taken:
            self._disk.rename(self._taken, self._path)

    def remove(self) -> None:
        """Remove it, if it is taken."""
        if self.is_taken:
            self._disk.unlink(self._taken)

    def may_vouch_for(self, file: str) -> bool:
        """Whether it was made no earlier than what lies at `file`.

        The ctime is asked before the marker is taken, since a rename renews it.
        """
        marker, found = lstat(self._taken), lstat(file)
        return marker is not None and found is not None and max(marker.st_mtime_ns, self._made_at) >= found.st_mtime_ns

    def carry(self, beside: str, goes_on: Callable[[], bool]) -> None:
        """Move it to the side of a file, if it is taken; under a numbered name when its own is used."""
        if not self.is_taken:
            return
        path = Path(beside + self._suffix)
        shelf = Shelf(self._disk, str(path.parent), path.name)
        try:
            shelf.place(self._taken)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy(shelf, goes_on)

    def _copy(self, shelf: Shelf, goes_on: Callable[[], bool]) -> None:
        found = os.lstat(self._taken)
        copied = shelf.last(lambda other: resembles(other, found.st_size, found.st_mtime_ns))
        if copied is None or md5_of(copied) != md5_of(self._taken):
            copy(self._disk, self._taken, self._temp, FileVersion.of("", "", found), goes_on)
            shelf.place(self._temp)
        # Its name is durable before the marker is gone; the caller syncs the directory that it is gone from.
        self._disk.sync(shelf.directory)
        self._disk.unlink(self._taken)
