"""Disks that fail: a small one that can be filled, and one whose fsync says EIO or does not return."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.mounts import tmpfs

SOURCE = Path(__file__).with_name("faulty_disk.c")


class Broken:
    """A disk on which nothing becomes durable while it is told so; by way of the C library, so for SQLite as well."""

    def __init__(self, directory: Path, work: Path) -> None:
        """`directory`: below it fsync fails; `work` takes the library and its switch.

        The test is skipped where there is no C compiler.
        """
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("there is no C compiler (cc) to make fsync fail with")
        library = work / "faulty_disk.so"
        built = subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"],
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode:
            pytest.skip(f"cc cannot build a library: {built.stderr.strip()}")
        self._switch = work / "fsync-fails"
        self._hangs = work / "fsync-fails.hangs"
        self.environ = {
            "LD_PRELOAD": str(library),
            "FAULTY_DISK": str(directory),
            "FAULTY_DISK_SWITCH": str(self._switch),
        }
        """What a process needs in its environment to have this disk."""

    def fail(self) -> None:
        """From now on fsync says EIO."""
        self._switch.touch()

    def hang(self) -> None:
        """From now on neither fsync nor the reading of a directory returns."""
        self._hangs.touch()

    def mend(self) -> None:
        """From now on it works."""
        self._switch.unlink(missing_ok=True)
        self._hangs.unlink(missing_ok=True)


class Small:
    """A file system of a few megabytes, to be filled."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ballast = directory / "ballast"

    def fail(self) -> None:
        """Fill it to the last byte."""
        fd = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        size = 2**20
        try:
            while size:
                try:
                    os.write(fd, b"x" * size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2
        finally:
            os.close(fd)

    def mend(self) -> None:
        """Make room again."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small(directory: Path, megabytes: int) -> Iterator[Small]:
    """A file system of that size at a new directory; the test is skipped where none may be mounted."""
    with tmpfs(directory, f"{megabytes}m"):
        yield Small(directory)
