"""The file while it is sent: opened once, read and hashed in one go, and compared with its version before and after.

Everything here blocks and runs in threads.
"""

import errno
import io
import os
import stat
from collections.abc import Callable, Collection
from pathlib import Path

from tablefeed.errors import DiskTrouble, FeedBlocked, SourceChanged
from tablefeed.lease import Writer
from tablefeed.model import FileVersion
from tablefeed.upload.checks import Digest, Hashes


class HashedFile(io.FileIO):
    """A file that hashes what is read from it, so that reading and hashing cost one thread hop together."""

    def __init__(self, fd: int, hashes: Hashes) -> None:
        """Read from a descriptor, which its owner closes."""
        super().__init__(fd, "rb", closefd=False)
        self.hashes = hashes

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes; empty at the end of the file."""
        chunk = super().read(-1 if size is None else size) or b""
        self.hashes.update(chunk)
        return chunk


class Source:
    """One file version, open for sending."""

    def __init__(
        self,
        directory: Path,
        version: FileVersion,
        first: int,
        writer_of: Callable[[int], Writer],
        digests: Collection[Digest] = (),
    ) -> None:
        """Open it and read its first bytes, at most `first`. `writer_of` tells who has it open for writing.

        `digests` are computed of what is read.

        Raises SourceChanged when the path holds something else by now or somebody writes it, FeedBlocked when its
        directory may not be read, DiskTrouble when the file may not or the file system fails.
        """
        self.path = str(directory / version.path)
        self.version = version
        fd = _open(self.path)
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode) or not version.describes(before):
                raise SourceChanged(self.path, "changed")
            if writer_of(fd) is Writer.OPEN:
                raise SourceChanged(self.path, "was opened for writing")
            self._ctime_ns = before.st_ctime_ns
            self._fd = fd
            self.file = HashedFile(fd, Hashes(digests))
            self._first = self.file.read(min(first, version.size)) if version.size else b""
        except OSError as error:
            os.close(fd)
            raise DiskTrouble(self.path, f"it cannot be read: {error.strerror}") from error
        except BaseException:
            os.close(fd)
            raise

    def take_first(self) -> bytes:
        """The bytes that were read when it was opened; they are not kept."""
        first, self._first = self._first, b""
        return first

    def check_unchanged(self) -> None:
        """Make sure that what was read is the version, still.

        A changed ctime alone counts as a change: an mtime can be set back, a ctime cannot.
        Raises SourceChanged, and DiskTrouble when the file system cannot tell.
        """
        try:
            after = os.fstat(self._fd)
        except OSError as error:
            raise DiskTrouble(self.path, f"it cannot be looked at any more: {error.strerror}") from None
        if not self.version.describes(after) or after.st_ctime_ns != self._ctime_ns:
            raise SourceChanged(self.path, "changed while it was sent")

    def finish(self) -> None:
        """Close the file, and make sure that what was read is the version, still. Raises as `check_unchanged`."""
        try:
            self.check_unchanged()
        finally:
            self.close()

    def close(self) -> None:
        """Close the file."""
        self.file.close()
        os.close(self._fd)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise SourceChanged(path, "vanished") from None
    except PermissionError:
        parent = Path(path).parent
        if not os.access(parent, os.R_OK | os.X_OK, effective_ids=True):
            raise FeedBlocked(
                f"the directory {parent} may not be read any more",
                "Give the user that runs tablefeed read and search permission on it",
            ) from None
        raise DiskTrouble(path, "it may not be read; give the user that runs tablefeed read permission") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise SourceChanged(path, "was replaced by what is not a file") from None
        raise DiskTrouble(path, f"it cannot be opened: {error.strerror}") from error
