"""The file-system steps that a move is made of. Everything here blocks.

Paths are text where they are made for every file: a `Path` costs more than the system call it is made for.
`Disk` holds every step that changes something, one method each, so that a test can cut the power between any two.
"""

import ctypes
import errno
import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tablefeed.lease import Writer, writer_of
from tablefeed.model import FileVersion, signed64

StrPath = str | os.PathLike[str]

CHUNK = 2**20
"""Bytes that are copied in one step."""
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1  # linux/fcntl.h, linux/fs.h
_RENAMEAT2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_COARSE = 2_000_000_000
"""Nanoseconds by which some file systems round an mtime."""
_CANNOT_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOENT)
"""A file system without fsync of directories says the first two; a directory that is gone needs none."""
_CANNOT_LINK = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)
""""No hard links": the file system has none, or this user may not make one of another's file."""


class Replaced(Exception):  # noqa: N818 - not an error: the path holds another version
    """What was to be copied is not, or no longer, the version that was meant."""


class CutOff(Exception):  # noqa: N818 - not an error: the daemon ends
    """The copy was told to stop."""


def renameat2(source: bytes, target: bytes) -> int:
    """Rename unless `target` exists; returns 0 or the errno (rename(2)), ENOSYS where the C library lacks it."""
    if _RENAMEAT2 is None:
        return errno.ENOSYS
    done = _RENAMEAT2(_AT_FDCWD, source, _AT_FDCWD, target, _RENAME_NOREPLACE)
    return 0 if done == 0 else ctypes.get_errno()


class Disk:
    """Every step that changes something on disk. All raise OSError."""

    def __init__(self, renameat2: Callable[[bytes, bytes], int] = renameat2) -> None:
        """`renameat2`: as the function of that name in this module."""
        self._renameat2 = renameat2

    def take(self, source: StrPath, ours: StrPath) -> None:
        """Rename to a name that is ours alone.

        It must not be a second name of the same file, which a kill may have left: rename(2) does nothing then.
        """
        os.rename(source, ours)  # noqa: PTH104 - paths are text here

    def rename(self, source: StrPath, target: StrPath) -> None:
        """Rename without overwriting: FileExistsError when `target` exists.

        Where the kernel or the file system cannot do that in one step, the file gets its second name before it loses
        its first; a kill between the two leaves both, and the same call again removes the first. Where there are no
        hard links either, the name is reserved first, and a kill may leave it empty.
        """
        problem = self._renameat2(os.fsencode(source), os.fsencode(target))
        if problem in (errno.ENOSYS, errno.EINVAL):
            self._rename_by_link(source, target)
        elif problem:
            raise OSError(problem, os.strerror(problem), str(source), None, str(target))

    def _rename_by_link(self, source: StrPath, target: StrPath) -> None:
        try:
            self.link(source, target)
        except FileExistsError:
            if not same_file(source, target):
                raise
        except OSError as error:
            if error.errno not in _CANNOT_LINK:
                raise
            self._rename_to_reserved(source, target)
            return
        self.unlink(source)

    def _rename_to_reserved(self, source: StrPath, target: StrPath) -> None:
        os.close(self.create(target))
        try:
            self.take(source, target)
        except OSError:
            self.unlink(target)
            raise

    def link(self, source: StrPath, target: StrPath) -> None:
        """Give a file a second name; FileExistsError when that is used."""
        os.link(source, target, follow_symlinks=False)

    def is_written(self, path: StrPath) -> bool:
        """Whether a process has the file open for writing, as far as the kernel tells."""
        try:
            fd = os.open(path, _READ)
        except BlockingIOError:  # another process holds a write lease, as Samba does for its clients
            return True
        except PermissionError:
            return False
        try:
            return writer_of(fd) is Writer.OPEN
        finally:
            os.close(fd)

    def unlink(self, path: StrPath) -> None:
        """Remove a file; one that is missing is removed already."""
        with suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 - paths are text here

    def mkdir(self, directory: Path) -> None:
        """Make one directory, which gives nobody more than the one around it does."""
        around = stat.S_IMODE(directory.parent.stat().st_mode)
        directory.mkdir(mode=around & 0o1777 | stat.S_IRWXU, exist_ok=True)

    def create(self, path: StrPath) -> int:
        """A descriptor for writing a new file that only its owner may read."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def write(self, fd: int, chunk: bytes) -> None:
        """Write all of `chunk`."""
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(fd, rest) :]

    def seal(self, fd: int, mode: int, times: tuple[int, int] | None) -> None:
        """Give a written file its permissions and its (atime, mtime) in nanoseconds, and make it durable."""
        os.fchmod(fd, mode)
        if times is not None:
            os.utime(fd, ns=times)
        os.fsync(fd)

    def sync(self, directory: StrPath) -> None:
        """Make the names in a directory durable."""
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno not in _CANNOT_SYNC:
                raise OSError(error.errno, error.strerror, str(directory)) from None
        finally:
            os.close(fd)


def within(directory: str, name: str) -> str:
    """The path of a name in a directory."""
    return f"{directory}/{name}" if directory != "/" else f"/{name}"


def lstat(path: StrPath) -> os.stat_result | None:
    """What lies at a path, links not followed; None: nothing, also where the name is longer than any may be."""
    try:
        return os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return None
        raise


def same_file(one: StrPath, other: StrPath) -> bool:
    """Whether two paths are names of one file."""
    found, also = lstat(one), lstat(other)
    return found is not None and also is not None and os.path.samestat(found, also)


def resembles(found: os.stat_result, size: int, mtime_ns: int) -> bool:
    """Whether `found` may be of a copy, which has the size and the mtime of what was copied."""
    is_near = abs(signed64(found.st_mtime_ns - mtime_ns)) < _COARSE
    return stat.S_ISREG(found.st_mode) and found.st_size == size and is_near


def copy(disk: Disk, source: StrPath, target: StrPath, version: FileVersion, goes_on: Callable[[], bool]) -> str:
    """Copy one version durably to a new file, with its mtime and permissions; returns the MD5 in hexadecimal.

    Nothing is left at `target` after an error. Raises Replaced when `source` does not hold the version all the time,
    CutOff when `goes_on` says no, FileNotFoundError and other OSError.
    """
    try:
        origin = os.open(source, _READ)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise Replaced from None
        raise
    try:
        before = os.fstat(origin)
        if not stat.S_ISREG(before.st_mode) or not version.describes(before):
            raise Replaced
        disk.unlink(target)
        fd = disk.create(target)
        try:
            md5 = _pour(disk, origin, fd, goes_on)
            after = os.fstat(origin)
            if not version.describes(after) or after.st_ctime_ns != before.st_ctime_ns:
                raise Replaced
            disk.seal(fd, before.st_mode & 0o777, (before.st_atime_ns, before.st_mtime_ns))
        except Exception:
            with suppress(OSError):
                if os.path.samestat(os.fstat(fd), os.lstat(target)):  # and not another node's by now
                    disk.unlink(target)
            raise
        finally:
            os.close(fd)
    finally:
        os.close(origin)
    return md5


def _pour(disk: Disk, origin: int, fd: int, goes_on: Callable[[], bool]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    while chunk := os.read(origin, CHUNK):
        if not goes_on():
            raise CutOff
        disk.write(fd, chunk)
        digest.update(chunk)
    return digest.hexdigest()


def md5_of(path: StrPath) -> str:
    """The MD5 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb", buffering=0) as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
