"""The end of archived files that have been kept for long enough. Everything here blocks."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tablefeed.archive.directories import certain
from tablefeed.archive.moves import Disk, lstat, resembles
from tablefeed.model import Feed, FileVersion, Ready, printable


@dataclass(frozen=True, slots=True)
class Old:
    """One archived file."""

    entry_id: int
    version: FileVersion
    path: Path


@dataclass(slots=True)
class Removal:
    """What has become of old files."""

    removed: int = 0
    settled: list[int] = field(default_factory=list)
    """Ids of those that nothing more is to be done about: deleted, gone, or another file by now."""
    strangers: list[str] = field(default_factory=list)
    """Paths that hold something else than was archived there: they stay."""
    troubles: dict[str, str] = field(default_factory=dict)
    """Paths that could not be deleted, with the reason of each."""


def remove_old(feed: Feed, files: Sequence[Old], disk: Disk) -> Removal:
    """Delete archived files that are still what was archived, their markers, and the directories that end up empty."""
    removal = Removal()
    base = certain(feed.directory, feed.archive)
    touched: set[Path] = set()
    for old in files:
        try:
            _remove(feed, old, base, disk, removal, touched)
        except OSError as error:
            removal.troubles[printable(old.path)] = error.strerror or type(error).__name__
    for directory in touched:
        with suppress(OSError):
            disk.sync(directory)
        _tidy(directory, base)
    return removal


def _remove(feed: Feed, old: Old, base: Path, disk: Disk, removal: Removal, touched: set[Path]) -> None:
    found = lstat(old.path)
    if found is None:
        # An archive that shows nothing at all may be on a file system that is not mounted now.
        if old.path.is_relative_to(base) and next(base.iterdir(), None) is None:
            return
        removal.settled.append(old.entry_id)
    elif not resembles(found, old.version.size, old.version.mtime_ns):
        removal.strangers.append(printable(old.path))
        removal.settled.append(old.entry_id)
    else:
        disk.unlink(old.path)
        touched.add(old.path.parent)
        if feed.ready is Ready.MARKER:
            disk.unlink(old.path.with_name(old.path.name + feed.marker_suffix))
        removal.removed += 1
        removal.settled.append(old.entry_id)


def _tidy(directory: Path, base: Path) -> None:
    """Remove directories below `base` as long as they are empty."""
    while directory != base and directory.is_relative_to(base):
        try:
            directory.rmdir()
        except OSError:
            return
        directory = directory.parent
