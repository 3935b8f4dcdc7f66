"""One move, from the drop directory to where the file ends, safe to repeat after a crash at any step.

The file is first *taken*: renamed, within its own directory, to a hidden name that nobody else uses. Only then is it
looked at; a stranger that a producer put there in that instant is given back, also by the next start after a crash.
What was taken goes on by rename. Where that is impossible it is copied first, and the source is taken and removed when
the copy is durable. Everything here blocks.
"""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import assert_never

from tablefeed.archive.job import Action, Job, Moved
from tablefeed.archive.marker import Marker
from tablefeed.archive.moves import CutOff, Disk, Replaced, copy, lstat, md5_of, resembles, same_file, within
from tablefeed.archive.report import REPORT_SUFFIX, Report
from tablefeed.archive.shelf import Shelf
from tablefeed.archive.way import Way
from tablefeed.errors import DiskTrouble
from tablefeed.model import OWN_PREFIX, printable, signed64
from tablefeed.presence import assert_present


class Move:
    """A job while it is done. All methods raise OSError, DiskTrouble and FeedBlocked."""

    def __init__(self, job: Job, disk: Disk, goes_on: Callable[[], bool], way: Way | None = None) -> None:
        """`goes_on` says whether a long copy may go on, and what it leads to be done; `way` is the job's, where other
        moves share it."""
        self.job = job
        self.touched: set[str] = set()
        """Directories that hold names which are not durable yet."""
        self._disk = disk
        self._goes_on = goes_on
        self._way = way or Way(disk, job.origin, job.target)
        self._source = job.source
        version = job.version
        own = f"{OWN_PREFIX}{job.entry_id}-{version.inode % 2**64:x}-{version.mtime_ns % 2**64:x}"
        self._taken = within(job.origin, own)
        there = within(job.target, own)
        self._temp = there + "-copy"
        self._marker = Marker(disk, self._source, job.marker_suffix, taken=self._taken + "-marker", temp=self._temp)
        self._report = Report(disk, job.report, there + "-report")
        suffixes = (job.marker_suffix, REPORT_SUFFIX if job.report else "")
        self._shelf = Shelf(disk, job.target, version.name, tuple(filter(None, suffixes)))

    def quick(self) -> Moved | None:
        """Move without copying or searching; None: only `slow` can do it."""
        here = self._locate()
        match self.job.action:
            case Action.MOVE:
                return None if here is None else self._rename(here)
            case Action.DELETE:
                return self._missing() if here is None else self._delete(here)
            case Action.LEAVE:
                if here == self._taken:
                    self._undo()
                return self._missing() if here is None else self._done(left_in_place=True)
            case _:
                assert_never(self.job.action)

    def slow(self) -> Moved:
        """Move by copying, or find the file where an earlier try has put it."""
        if lstat(self._temp):
            self._disk.unlink(self._temp)
        here = self._locate()
        if here is not None:
            try:
                return self._move_by_copy(here)
            except Replaced:
                if self._locate() is not None:
                    raise DiskTrouble(printable(self._source), "it was touched while it was copied") from None
        found = self._find()
        return self._missing() if found is None else self._finish(found)

    def sync(self) -> None:
        """Make durable what was done until now."""
        for directory in sorted(self.touched):
            self._disk.sync(directory)
        self.touched.clear()

    def _locate(self) -> str | None:
        """Where the version lies, taken or not; a stranger that was taken is given back.

        Where it lies at the source, nothing does under the hidden name, which nobody else uses: `_take` need not look
        there again for what its rename would replace, or would silently do nothing for.
        """
        taken = lstat(self._taken)
        if taken is not None:
            if same_file(self._taken, self._source):  # a kill in the midst of giving it back
                self._disk.unlink(self._taken)
            elif self.job.version.describes(taken):
                return self._taken
            else:
                self._give_back(self._taken)
        dropped = lstat(self._source)
        return self._source if dropped is not None and self.job.version.describes(dropped) else None

    def _take(self) -> bool:
        """Take the marker, then the file; False: it was not the version, and all is as before.

        The marker goes first, so that it can never vouch for the next drop while that is half written.
        """
        self._marker.take()
        self.touched.add(self.job.origin)
        try:
            self._disk.take(self._source, self._taken)
        except FileNotFoundError:
            self._settle_marker(self._source)
            return False
        taken = lstat(self._taken)
        if taken is not None and self.job.version.describes(taken):
            return True
        self._settle_marker(self._source if taken is None else self._give_back(self._taken))
        return False

    def _require_closed(self) -> None:
        """Make sure that nobody writes what was taken, nor has since it was looked at: that would never be sent.

        Else it is put back. Whoever opened it before it was taken is seen by the first question or by the second.
        """
        try:
            written = self._disk.is_written(self._taken)
            written = written or not self.job.version.describes(os.lstat(self._taken))
        except OSError:
            self._undo()
            raise
        if written:
            self._undo()
            raise DiskTrouble(printable(self._source), "a process has it open for writing again")

    def _undo(self) -> None:
        """Put back what was taken, unless the path has been filled again: then a later try finds it where it is."""
        with suppress(OSError):
            self._disk.rename(self._taken, self._source)
            self._marker.put_back()

    def _give_back(self, stranger: str) -> str:
        """Put what is not ours back where it was; under a numbered name when that path has been filled again."""
        self.touched.add(self.job.origin)
        return Shelf(self._disk, self.job.origin, self.job.version.name).place(stranger)

    def _settle_marker(self, beside: str) -> None:
        """Find a place for a taken marker whose file we do not have.

        It stays with what lies at `beside` if it is not older, and so may have been made for that; else it was ours.
        """
        if not self._marker.is_taken:
            return
        if self._marker.may_vouch_for(beside):
            self._marker.carry(beside, self._goes_on)
        elif self.job.action is Action.MOVE:
            self._make_target()
            self._marker.carry(within(self.job.target, self.job.version.name), self._goes_on)
            self.touched.add(self.job.target)
        else:
            self._marker.remove()
        self.touched.add(self.job.origin)

    def _rename(self, here: str) -> Moved | None:
        self._make_target()
        if not self._way.is_level():
            return None
        self._report.write(here)
        if here == self._source and not self._take():
            return self._done()
        self._require_closed()
        try:
            final = self._shelf.place(self._taken)
        except OSError as error:
            self._undo()
            self._way.forget()
            if error.errno == errno.EXDEV:  # two mounts of one file system, for one
                return None
            raise
        self.touched |= {self.job.origin, self.job.target}
        moved = lstat(final)
        if moved is not None and not self.job.version.describes(moved):
            self._settle_marker(self._give_back(final))
            return self._done()
        return self._finish(final)

    def _delete(self, here: str) -> Moved:
        if here == self._taken or self._take():
            self._require_closed()
            self._marker.remove()
            self._disk.unlink(self._taken)
            self.touched.add(self.job.origin)
        return self._done()

    def _move_by_copy(self, here: str) -> Moved:
        self._make_target()
        self._report.write(here)
        final = self._complete_copy(here) or self._copy(here)
        self.touched.add(self.job.target)
        self.sync()
        self._require_to_go_on()
        if here == self._taken or self._take():
            self._require_closed()
            self._disk.unlink(self._taken)
        return self._finish(final)

    def _require_to_go_on(self) -> None:
        """Copying takes long: another node may have the file by now, and a copy of its own under the same name."""
        if not self._goes_on():
            raise CutOff

    def _copy(self, here: str) -> str:
        job = self.job
        md5 = copy(self._disk, here, self._temp, job.version, self._goes_on)
        self._require_to_go_on()
        try:
            if job.md5 is not None and md5 != job.md5:
                raise DiskTrouble(
                    printable(here), f"it reads differently than when it was sent (MD5 {md5}, then {job.md5})"
                )
            return self._shelf.place(self._temp)
        except (OSError, DiskTrouble):
            with suppress(OSError):
                self._disk.unlink(self._temp)
            raise

    def _complete_copy(self, here: str) -> str | None:
        """A whole copy that an earlier try has made."""
        last = self._shelf.last(self._resembles)
        return last if last is not None and md5_of(last) == (self.job.md5 or md5_of(here)) else None

    def _resembles(self, found: os.stat_result) -> bool:
        return resembles(found, self.job.version.size, self.job.version.mtime_ns)

    def _find(self) -> str | None:
        """The version in the target directory, moved there or copied."""
        if not Path(self.job.target).is_dir():
            return None
        for path in self._shelf.paths():
            found = lstat(path)
            if found is not None and (self.job.version.describes(found) or self._is_copy(path, found)):
                return path
        return None

    def _is_copy(self, path: str, found: os.stat_result) -> bool:
        if not self._resembles(found):
            return False
        if self.job.md5 is None:
            return signed64(found.st_mtime_ns) == self.job.version.mtime_ns
        return md5_of(path) == self.job.md5

    def _make_target(self) -> None:
        try:
            self._way.make()
        finally:
            self.touched |= self._way.touched

    def _finish(self, final: str) -> Moved:
        self._marker.carry(final, self._goes_on)
        self._report.publish(final)
        self.touched |= {self.job.origin, self.job.target}
        return self._done(destination=final)

    def _missing(self) -> Moved:
        """The version is nowhere: no more is to be done, unless its directory is away."""
        assert_present(self.job.directory, self.job.version)
        self._settle_marker(self._source)
        return self._done()

    def _done(self, destination: str | None = None, *, left_in_place: bool = False) -> Moved:
        """The result; whatever was drafted and not used is removed."""
        self._report.discard()
        dropped = lstat(self._source)
        stranger = dropped is not None and not self.job.version.describes(dropped)
        return Moved(destination, left_in_place, stranger)
