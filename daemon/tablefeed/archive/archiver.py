"""Where files end: delivered ones in the archive, refused ones in `failed/`. A move is durable when it returns.

Moves that arrive together are made in one thread hop and share their fsyncs. What must be copied to another file system
is copied apart, so that it holds up no rename.
"""

import asyncio
import errno
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

from tablefeed.archive.job import Action, Job, Moved
from tablefeed.archive.moves import CutOff, Disk, StrPath
from tablefeed.archive.relocate import Move
from tablefeed.archive.way import Way, clear
from tablefeed.batch import Batcher
from tablefeed.errors import DeliveryError, DiskTrouble, FeedBlocked, FileRefused, LeaseLost
from tablefeed.model import ARCHIVE_DELETE, ARCHIVE_LEAVE, OWN_PREFIX, Feed, FileVersion, Ready, printable
from tablefeed.threads import Threads

COPIES = 2
"""Copies to another file system at a time."""
_BATCH = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

T = TypeVar("T")


def delivered(feed: Feed, entry_id: int, version: FileVersion, uploaded_at: int, md5: str | None) -> Job:
    """What is to be done with a delivered file. The date in the archive's name is that of `uploaded_at`, in UTC."""
    action = {ARCHIVE_DELETE: Action.DELETE, ARCHIVE_LEAVE: Action.LEAVE}.get(feed.archive, Action.MOVE)
    below = _below(version)
    origin, target = _directory(feed.directory, below), str(feed.directory)
    if action is Action.MOVE:
        target = _directory(feed.directory, _dated(feed.archive, uploaded_at), below)
    return Job(feed.directory, origin, entry_id, version, action, target, _marker_suffix(feed), md5)


def refused(feed: Feed, entry_id: int, version: FileVersion, error: FileRefused, at: int) -> Job:
    """What is to be done with a file that can never be delivered."""
    report = {
        "file": printable(feed.directory / version.path),
        "feed": feed.name,
        "datatable_id": feed.datatable_id,
        "reason": printable(error.reason),
        "remedy": printable(error.remedy),
        "size": version.size,
        "mtime": _utc(version.mtime_ns // 1_000_000).isoformat(),
        "refused_at": _utc(at).isoformat(),
        "to_try_again": f"tablefeed retry {entry_id}",
    }
    text = json.dumps(report, ensure_ascii=False, indent=2) + "\n"
    below, suffix = _below(version), _marker_suffix(feed)
    origin, target = _directory(feed.directory, below), _directory(feed.directory, feed.failed, below)
    return Job(feed.directory, origin, entry_id, version, Action.MOVE, target, suffix, report=text.encode())


@lru_cache(maxsize=1_000)
def _directory(base: Path, *parts: str) -> str:
    """The path of a directory. Most moves ask for the same few, and each would cost as much as a rename."""
    return str(base.joinpath(*parts))


def _below(version: FileVersion) -> str:
    """The directory below the feed's that a version was dropped in."""
    return version.path.rpartition("/")[0]


def _dated(template: str, at: int) -> str:
    return _utc(at).strftime(template) if "%" in template else template


def _marker_suffix(feed: Feed) -> str:
    return feed.marker_suffix if feed.ready is Ready.MARKER else ""


def _utc(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)


def _explained(error: OSError, job: Job) -> DeliveryError:
    """Our error for what the file system said about a job."""
    path = Path(error.filename2 or error.filename or job.target)
    named = printable(path.parent if path.name.startswith(OWN_PREFIX) else path)
    match error.errno:
        case errno.EACCES if _is_unreadable(path, job):
            return DiskTrouble(
                printable(job.source),
                f"it may not be read any more, and so not be copied to {printable(job.target)}; "
                f"give the user that runs tablefeed (uid {os.geteuid()}) read permission on it",
            )
        case errno.EACCES | errno.EPERM:
            directories = " and ".join(printable(end) for end in _closed(job) or _ends(job))
            return FeedBlocked(
                f"{printable(job.source)} cannot be moved or removed: {error.strerror}",
                f"Give the user that runs tablefeed (uid {os.geteuid()}) read, write and search permission on "
                f"{directories}; in a directory with the sticky bit it must own the files as well",
            )
        case errno.EROFS:
            return FeedBlocked(
                f"{named}: {error.strerror}",
                "Mount it for writing; a service of systemd needs it in ReadWritePaths= (`systemctl edit tablefeed`)",
            )
        case errno.EEXIST | errno.ENOTDIR:
            return FeedBlocked(
                f"{named} is not a directory",
                f"Move it away, or name another directory than {printable(job.target)} in the feed's settings",
            )
        case _:
            return DiskTrouble(named, error.strerror or str(error))


def _is_unreadable(path: Path, job: Job) -> bool:
    """Whether the file itself is what may not be read, and neither of a job's directories is closed."""
    return path.parent == Path(job.origin) and os.path.lexists(path) and not _may(path, os.R_OK) and not _closed(job)


def _ends(job: Job) -> list[str]:
    return list(dict.fromkeys([job.origin, job.target]))


def _closed(job: Job) -> list[str]:
    """Those of a job's directories that this user may not change."""
    return [end for end in _ends(job) if not _may(end, os.R_OK | os.W_OK | os.X_OK)]


def _may(path: StrPath, mode: int) -> bool:
    return os.access(path, mode, effective_ids=True)


def _attempt(job: Job, step: Callable[[], T]) -> T | DeliveryError:
    try:
        return step()
    except OSError as error:
        return _explained(error, job)
    except DeliveryError as error:
        return error
    except CutOff:
        return DiskTrouble(
            printable(job.target), "the copy was cut off, as the daemon ends or its lease may be over: it is made later"
        )


class Archiver:
    """Moves files. Every move can be repeated after a crash at any step, with the same arguments."""

    def __init__(
        self, executor: Executor, disk: Disk | None = None, holds: Callable[[int], bool] = lambda _: True
    ) -> None:
        """`executor` runs the renames, one batch at a time; copies have threads of their own.

        `holds` is asked on those threads, just before a move and during a copy, whether the row of a file is this
        daemon's still.
        """
        self._holds = holds
        self._disk = disk or Disk()
        self._batcher: Batcher[Job, Moved | None] = Batcher(self._quick, executor=executor, max_batch=_BATCH)
        self._copies = Threads(COPIES, "copy")
        self._copying: set[Future[Moved]] = set()
        self._ending = threading.Event()

    async def move_delivered(
        self, feed: Feed, entry_id: int, version: FileVersion, uploaded_at: int, md5: str | None = None
    ) -> Moved:
        """Move a delivered file to its feed's archive, or delete it, or leave it.

        `uploaded_at` in Unix milliseconds; `md5` in hexadecimal. Nothing but this very version is moved.
        Raises DiskTrouble and FeedBlocked; the file is in its place then, or is found by the next try.
        """
        return await self._run(delivered(feed, entry_id, version, uploaded_at, md5))

    async def set_aside(self, feed: Feed, entry_id: int, version: FileVersion, error: FileRefused, at: int) -> Moved:
        """Move a refused file to its feed's `failed` directory, and write the reason to `<name>.error.json` beside it.

        `at` in Unix milliseconds. Raises as `move_delivered`.
        """
        return await self._run(refused(feed, entry_id, version, error, at))

    async def close(self) -> None:
        """End the renames that have been asked for, and cut off the copies."""
        self._ending.set()
        await self._batcher.close()
        self._copies.shutdown(wait=False, cancel_futures=True)
        await asyncio.gather(*map(asyncio.wrap_future, [*self._copying]), return_exceptions=True)

    async def _run(self, job: Job) -> Moved:
        moved = await self._batcher.submit(job)
        if moved is None:
            left = threading.Event()
            copying = self._copies.submit(self._slow, job, left.is_set)
            self._copying.add(copying)
            copying.add_done_callback(self._copying.discard)
            try:
                moved = await asyncio.wrap_future(copying)
            finally:
                left.set()  # a copy that nobody waits for any more may be another node's by now
        return moved

    def _goes_on(self) -> bool:
        return not self._ending.is_set()

    def _quick(self, jobs: list[Job]) -> list[Moved | Exception | None]:
        jobs = clear(jobs)
        ways = {ends: Way(self._disk, *ends) for ends in {(job.origin, job.target) for job in jobs}}
        moves = [Move(job, self._disk, self._goes_on, ways[job.origin, job.target]) for job in jobs]
        outcomes = [_attempt(move.job, partial(self._fenced, move.job, move.quick)) for move in moves]
        troubles: dict[str, OSError] = {}
        for directory in sorted(set().union(*(move.touched for move in moves))):
            try:
                self._disk.sync(directory)
            except OSError as error:
                troubles[directory] = error
        return [
            next((_explained(troubles[place], move.job) for place in move.touched if place in troubles), outcome)
            for move, outcome in zip(moves, outcomes, strict=True)
        ]

    def _fenced(self, job: Job, step: Callable[[], T]) -> T:
        if not self._holds(job.entry_id):
            raise LeaseLost(printable(job.source))
        return step()

    def _slow(self, job: Job, is_left: Callable[[], bool]) -> Moved:
        [job] = clear([job])
        move = Move(job, self._disk, lambda: self._goes_on() and not is_left() and self._holds(job.entry_id))

        def move_and_sync() -> Moved:
            try:
                return move.slow()
            finally:
                move.sync()

        outcome = _attempt(job, partial(self._fenced, job, move_and_sync))
        if isinstance(outcome, DeliveryError):
            raise outcome
        return outcome
