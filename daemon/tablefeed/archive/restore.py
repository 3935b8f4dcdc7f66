"""The way back: a refused file returns to where it was dropped, to be found there like any other. Blocks."""

import errno
from pathlib import Path

from tablefeed.archive.moves import Disk, Replaced, copy, lstat, resembles
from tablefeed.archive.report import REPORT_SUFFIX
from tablefeed.errors import NotRestored
from tablefeed.model import OWN_PREFIX, Feed, FileVersion, Ready, printable


def restore(feed: Feed, entry_id: int, version: FileVersion, destination: Path | None, disk: Disk) -> None:
    """Move a refused file back; `destination` is where it was set aside, None when it was left in place.

    Its report is removed, its marker comes back with it, and nothing is overwritten. Raises NotRestored.
    """
    dropped = feed.directory / version.path
    if destination is None:
        found = lstat(dropped)
        if found is None or not version.describes(found):
            raise NotRestored(
                f"{printable(dropped)} is not there any more; if the daemon was killed while it set the file aside, "
                "its next start ends that, and then it can be tried again"
            )
        return
    found = lstat(destination)
    if found is None or not resembles(found, version.size, version.mtime_ns):
        raise NotRestored(f"{printable(destination)} is not there any more, or is another file by now")
    try:
        _make(dropped.parent, disk)
        _move(destination, dropped, FileVersion.of(version.feed, version.path, found), entry_id, disk)
        if feed.ready is Ready.MARKER:
            _bring_marker(feed, destination, dropped, disk)
        disk.unlink(destination.with_name(destination.name + REPORT_SUFFIX))
        for directory in (dropped.parent, destination.parent):
            disk.sync(directory)
    except FileExistsError:
        raise NotRestored(
            f"{printable(dropped)} is there again: retry {printable(destination)} once that file has been delivered"
        ) from None
    except Replaced:
        raise NotRestored(f"{printable(destination)} changed while it was copied: retry it once more") from None
    except OSError as error:
        raise NotRestored(
            f"{printable(destination)} cannot be moved back to {printable(dropped)}: {error.strerror}. "
            "Run this as the user that runs the daemon, and see that both directories are writable"
        ) from None


def _make(directory: Path, disk: Disk) -> None:
    if not directory.is_dir():
        _make(directory.parent, disk)
        disk.mkdir(directory)


def _move(source: Path, target: Path, version: FileVersion, entry_id: int, disk: Disk) -> None:
    try:
        disk.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        return
    temp = target.with_name(f"{OWN_PREFIX}{entry_id}-retry")
    copy(disk, source, temp, version, lambda: True)
    try:
        disk.rename(temp, target)
    except OSError:
        disk.unlink(temp)
        raise
    disk.sync(target.parent)
    disk.unlink(source)


def _bring_marker(feed: Feed, destination: Path, dropped: Path, disk: Disk) -> None:
    marker = destination.with_name(destination.name + feed.marker_suffix)
    found = lstat(marker)
    if found is not None:
        version = FileVersion.of("", marker.name, found)
        _move(marker, dropped.with_name(dropped.name + feed.marker_suffix), version, 0, disk)
