"""What lies in a directory: a walk in batches that neither blocks the loop nor holds more than one batch in memory."""

import asyncio
import os
import re
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from tablefeed.errors import DiskTrouble, FeedBlocked
from tablefeed.model import ARCHIVE_DELETE, ARCHIVE_LEAVE, OWN_PREFIX, Feed

BATCH = 1_000
"""Entries in one batch, at most."""

T = TypeVar("T")


class InThread(Protocol):
    """Runs a blocking function in a thread and gives its result, as `asyncio.to_thread` does."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True)
class Problem:
    """What a scan passed by that somebody may miss: its path relative to the root, and why."""

    path: str
    cause: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Regular files with their lstat, and what was passed by since the last batch."""

    entries: list[tuple[str, os.stat_result]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class Selection:
    """Which paths of a feed's directory are its files, and which directories are entered.

    Patterns are compared without case. One without "/" is for the file's name, one with "/" for the whole relative
    path, where `**/` stands for any directories. As in a shell, a leading dot is matched only by a dot. Not entered are
    hidden directories, and those that the feed moves its files to.
    """

    def __init__(self, feed: Feed, holds: Callable[[str], bool] | None = None) -> None:
        """Compile the feed's patterns. `holds` tells which paths the ledger can hold; None: any."""
        self.holds = holds
        self._recursive = feed.recursive
        self.fits = _compile(feed.include, feed.exclude).fullmatch
        """Whether a relative path is that of one of the feed's files, given that its directory is entered."""
        self._feed = feed
        self._named = self._targets = _targets(feed, str)

    def takes(self, path: str) -> bool:
        """Whether a relative path is that of one of the feed's files."""
        return self.fits(path) is not None and self._reaches(path) and (self.holds is None or self.holds(path))

    def enters(self, path: str) -> bool:
        """Whether a directory at a relative path is looked into."""
        return self._recursive and not _is_hidden(path) and not self._is_target(path)

    def follow_links(self) -> None:
        """Leave what the feed moves its files to also where only a link tells that it lies in its directory. Blocks."""
        if self._recursive:
            self._targets = self._named + _targets(self._feed, os.path.realpath)

    def misses(self, path: str) -> bool:
        """Whether a directory that is not entered has the name of one of the feed's files."""
        return not self._recursive and self.takes(path) and not self._is_target(path)

    def _is_target(self, directory: str) -> bool:
        return f"{directory}/".startswith(self._targets)

    def _reaches(self, path: str) -> bool:
        directory = path.rpartition("/")[0]
        return not directory or self.enters(directory)


def _is_hidden(directory: str) -> bool:
    return any(part.startswith(".") for part in directory.split("/"))


def _targets(feed: Feed, where: Callable[[str], str]) -> tuple[str, ...]:
    """How the paths of all directories begin that the feed moves its files to; `where` as in `_target`."""
    found = [_target(str(feed.directory), template, where) for template in (feed.archive, feed.failed)]
    return tuple(target for target in found if target is not None)


def _target(directory: str, template: str, where: Callable[[str], str]) -> str | None:
    """How the paths of the directories begin that a template with strftime codes names below the feed's directory.

    Only the part before the first code is certain. None when it lies elsewhere. `where` tells where a directory is:
    by its name alone, or with links followed.
    """
    if template in (ARCHIVE_DELETE, ARCHIVE_LEAVE):
        return None
    certain, code, _ = template.partition("%")
    path = os.path.join(directory, certain)  # noqa: PTH118  (a Path drops the last slash)
    around, _, start = path.rpartition("/")
    cut = "\0" if code else ""
    below = os.path.relpath(f"{where(around or '/')}/{start}{cut}" if code else where(path), where(directory))
    if below in (".", "..") or below.startswith("../"):
        return None
    start = below.removesuffix(cut)
    return start if code else f"{start}/"


def _compile(include: tuple[str, ...], exclude: tuple[str, ...]) -> re.Pattern[str]:
    """One pattern for whole paths, since a scan asks it for each of a million."""
    ours = rf"(?!(?-i:(?:.*/)?{re.escape(OWN_PREFIX)}[^/]*\Z))"
    return re.compile(ours + rf"(?!(?:{_any(exclude)})\Z)(?:{_any(include)})", re.IGNORECASE | re.DOTALL)


def _any(patterns: tuple[str, ...]) -> str:
    alternatives = [_translate(pattern) if "/" in pattern else "(?:.*/)?" + _translate(pattern) for pattern in patterns]
    return "|".join(alternatives) or r"(?!)"


_TOKEN = re.compile(
    r"(?P<deep>(?<![^/])(?:\*\*/)+)|(?P<many>\*+)|(?P<one>\?)|\[(?P<set>!?\]?[^\]/]*)\]|(?P<char>.)", re.DOTALL
)


def _translate(pattern: str) -> str:
    """A shell pattern as a regular expression: no wildcard crosses a "/" or stands for a leading dot."""
    out = []
    fresh = True
    for token in _TOKEN.finditer(pattern.removeprefix("./").removeprefix("/")):
        guard = r"(?!\.)" if fresh else ""
        fresh = False
        if token["deep"]:
            out.append(r"(?:(?!\.)[^/]+/)*")
            fresh = True
        elif token["many"]:
            out.append(guard + "[^/]*")
        elif token["one"]:
            out.append(guard + "[^/]")
        elif token["set"] is not None:
            out.append(guard + _character_set(token["set"]))
        else:
            out.append(re.escape(token["char"]))
            fresh = token["char"] == "/"
    return "".join(out)


def _character_set(inside: str) -> str:
    negated = inside.startswith("!")
    body = re.sub(r"([\\\[\]^&~|]|(?<=-)-)", r"\\\1", inside[negated:])
    expression = f"[{'^/' if negated else ''}{body}]"
    try:
        re.compile(expression)
    except re.error:
        return re.escape(f"[{inside}]")
    return expression


async def scan(
    root: Path, selection: Selection, below: str = "", *, run: InThread = asyncio.to_thread
) -> AsyncGenerator[Batch, None]:
    """Every file that the selection takes, from the directory at `below` (relative to `root`) on down, in batches.

    Each batch is one thread hop; the next is not begun before it is asked for. Raises FeedBlocked when the root is
    missing, is no directory or may not be read, DiskTrouble when the file system fails there. Trouble below it
    is a Problem of the batch, and what vanishes is no trouble.
    """
    batches = _walk(root, selection, below)
    while (batch := await run(lambda: next(batches, None))) is not None:
        yield batch


def is_empty(root: Path) -> bool:
    """Whether nothing at all is there. Blocks; raises as `scan` does."""
    try:
        with _opened(root, "") as fd, os.scandir(fd) as entries:
            return next(entries, None) is None
    except OSError as error:
        raise _root_trouble(root, error) from error


def _walk(root: Path, selection: Selection, below: str) -> Iterator[Batch]:
    selection.follow_links()
    batch = Batch()
    directories = [below]
    while directories:
        directory = directories.pop()
        try:
            with _opened(root, directory) as fd, os.scandir(fd) as entries:
                while not _fill(batch, entries, directory, selection, directories):
                    yield batch
                    batch = Batch()
        except OSError as error:
            if not directory:
                raise _root_trouble(root, error) from error
            if not isinstance(error, FileNotFoundError):
                batch.problems.append(Problem(directory, error.strerror or str(error)))
    if batch.entries or batch.problems:
        yield batch


def _fill(
    batch: Batch, entries: Iterator["os.DirEntry[str]"], directory: str, selection: Selection, directories: list[str]
) -> bool:
    """Put what follows in a directory into the batch, and what is to be entered into `directories`.

    Returns whether that was all; False: the batch is full.
    """
    files, problems, fits, holds = batch.entries, batch.problems, selection.fits, selection.holds
    prefix = f"{directory}/" if directory else ""
    for entry in entries:
        path = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            if selection.enters(path):
                directories.append(path)
            elif selection.misses(path):
                problems.append(Problem(path, _kind(stat.S_IFDIR)))
        elif not fits(path):
            pass
        elif holds is None or holds(path):
            _see(batch, entry, path)
        else:
            problems.append(Problem(path, "its path is longer than an index of PostgreSQL takes: shorten it"))
        if len(files) + len(problems) >= BATCH:
            return False
    return True


def _see(batch: Batch, entry: "os.DirEntry[str]", path: str) -> None:
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return
    except OSError as error:
        batch.problems.append(Problem(path, error.strerror or str(error)))
        return
    if stat.S_ISREG(found.st_mode):
        batch.entries.append((path, found))
    else:
        batch.problems.append(Problem(path, _kind(found.st_mode)))


def _kind(mode: int) -> str:
    """Why what a pattern takes is no file to deliver."""
    match stat.S_IFMT(mode):
        case stat.S_IFLNK:
            return "it is a symbolic link, and links are not followed"
        case stat.S_IFDIR:
            return "it is a directory, and the feed is not recursive"
        case stat.S_IFIFO:
            return "it is a pipe, not a file"
        case stat.S_IFSOCK:
            return "it is a socket, not a file"
        case _:
            return "it is a device, not a file"


@contextmanager
def _opened(root: Path, below: str) -> Iterator[int]:
    """A directory, opened without following a link at its end (the root itself may be one)."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if below else 0)
    fd = os.open(root / below, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def _root_trouble(root: Path, error: OSError) -> FeedBlocked | DiskTrouble:
    match error:
        case FileNotFoundError():
            return FeedBlocked(f"the directory {root} does not exist", "Create it, or correct the feed's `directory`")
        case NotADirectoryError():
            return FeedBlocked(f"{root} is not a directory", "Correct the feed's `directory`")
        case PermissionError():
            return FeedBlocked(
                f"the directory {root} may not be read by the user that runs tablefeed",
                "Give that user read, write and search permission on it",
            )
        case _:
            return DiskTrouble(str(root), error.strerror or str(error))
