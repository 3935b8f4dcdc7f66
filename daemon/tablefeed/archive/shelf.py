"""The names that moved files get in a directory: their own, or a numbered one when that is used already."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import PurePath

from tablefeed.archive.moves import Disk, lstat, same_file, within

NAME_MAX = 255
"""Bytes that Linux allows in one name."""
_LONGEST_SUFFIX = 32
"""Bytes up to which the part after the last dot of a name is kept when the name is shortened."""


def numbered(name: str, number: int, room: int = 0) -> str:
    """The name with a number before its suffix (`orders-1.csv`), and without one for 0.

    It is shortened, at a character's boundary, so that `room` bytes can be put behind it.
    """
    if not number and len(os.fsencode(name)) <= NAME_MAX - room:
        return name
    whole = PurePath(name)
    stem, suffix = whole.stem, whole.suffix
    if len(os.fsencode(suffix)) > _LONGEST_SUFFIX:
        stem, suffix = name, ""
    tail = (f"-{number}" if number else "") + suffix
    most = NAME_MAX - room - len(os.fsencode(tail))
    while stem and len(os.fsencode(stem)) > most:
        stem = stem[:-1]
    return stem + tail


_NUMBER = re.compile(r"-([1-9][0-9]{0,17})(?:\.[^.]*)?\Z")


def is_numbered(candidate: str, name: str, room: int = 0) -> bool:
    """Whether `candidate` is `name` with some number, or without one."""
    number = _NUMBER.search(candidate)
    return candidate == numbered(name, 0, room) or (
        number is not None and candidate == numbered(name, int(number[1]), room)
    )


def first_free(used: Callable[[int], bool]) -> int:
    """A number that is not used though the one before it is, where 0 is used; asks about 2 log2 of it times."""
    low, high = 0, 1
    while used(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if used(middle):
            low = middle
        else:
            high = middle
    return high


class Shelf:
    """The numbered names of one file in one directory. All methods block, and raise OSError."""

    def __init__(self, disk: Disk, directory: str, name: str, companions: tuple[str, ...] = ()) -> None:
        """`companions` are suffixes: a name counts as used as well when it is with one of them."""
        self.directory = directory
        self._disk = disk
        self._name = name
        self._suffixes = ("", *companions)
        self._room = max(len(os.fsencode(suffix)) for suffix in self._suffixes) if companions else 0

    def place(self, path: str) -> str:
        """Rename `path` to a name that is not used, and never overwrite; returns where it lies now."""
        number = first_free(self._used) if len(self._suffixes) > 1 and self._used(0) else 0
        while True:
            if number and same_file(path, last := self._path(number - 1)):  # a kill in the midst of giving it that name
                self._disk.unlink(path)
                return last
            final = self._path(number)
            try:
                self._disk.rename(path, final)
            except FileExistsError:
                number = first_free(self._used)
            else:
                return final

    def last(self, is_ours: Callable[[os.stat_result], bool]) -> str | None:
        """The path that was given out last, as long as none of them has been removed since, if its file is ours."""
        if not self._used(0):
            return None
        path = self._path(first_free(self._used) - 1)
        found = lstat(path)
        return path if found is not None and is_ours(found) else None

    def paths(self) -> Iterator[str]:
        """All paths in the directory that may have been given out."""
        start = PurePath(self._name).stem[:16]
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name.startswith(start) and is_numbered(entry.name, self._name, self._room):
                    yield within(self.directory, entry.name)

    def _path(self, number: int) -> str:
        return within(self.directory, numbered(self._name, number, self._room))

    def _used(self, number: int) -> bool:
        path = self._path(number)
        return any(lstat(path + suffix) for suffix in self._suffixes)
