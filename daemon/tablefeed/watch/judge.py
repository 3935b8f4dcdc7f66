"""What follows for each of a batch of paths: looks at the files and asks `readiness`.

Everything here blocks and runs in threads.
"""

import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from tablefeed import mounts
from tablefeed.clock import WatchedClock
from tablefeed.errors import DiskTrouble
from tablefeed.lease import writer_of, writer_unknown
from tablefeed.model import Feed, FileVersion, Ready
from tablefeed.readiness import RECHECK, Decision, History, Ignore, Rules, Wait, advance, decide, worth_probing
from tablefeed.watch import observe


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows for one file version, and since when it has looked as it does."""

    path: str
    version: FileVersion
    decision: Decision
    history: History | None


@dataclass(frozen=True, slots=True)
class Sightings:
    """What lies at the paths that were looked at."""

    files: list[tuple[str, os.stat_result]] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    """Nothing, or what is neither file nor directory."""
    elsewhere: list[str] = field(default_factory=list)
    """Where paths lead that have a link on the way."""
    troubles: list[tuple[str, Wait]] = field(default_factory=list)


class Judge:
    """Looks at the files of one feed."""

    def __init__(self, feed: Feed, rules: Rules, *, clock: WatchedClock, pause: float) -> None:
        """`clock` gives Unix seconds; after trouble with a file it is looked at again in `pause` seconds."""
        self._feed = feed
        self._rules = rules
        self._suffix = feed.marker_suffix if feed.ready is Ready.MARKER else None
        self._clock = clock
        self._pause = pause
        self._writer = writer_of
        self._root: int | None = None

    def prepare(self) -> None:
        """Find out what the kernel can tell of writers in the feed's directory, as it is mounted now."""
        with suppress(OSError):
            self._root = self._feed.directory.stat().st_ino
        mount = mounts.holding(self._feed.directory)
        self._writer = writer_unknown if mount is not None and mount.is_network else writer_of

    def look(self, paths: Sequence[str], takes: Callable[[str], bool]) -> Sightings:
        """What lies at these relative paths; of files only those that the feed `takes`."""
        sightings = Sightings()
        for path in paths:
            try:
                found = observe.look(self._feed.directory, path)
            except DiskTrouble as error:
                sightings.troubles.append((path, Wait(self._clock() + self._pause, str(error))))
                continue
            if found is not None and stat.S_ISREG(found.st_mode) and takes(path):
                sightings.files.append((path, found))
                continue
            sightings.others.append(path)
            if found is None and "/" in path:
                real = observe.without_links(self._feed.directory, path)
                if real is not None and real != path:
                    sightings.elsewhere.append(real)
            if found is not None and stat.S_ISDIR(found.st_mode):
                sightings.directories.append(path)
        return sightings

    def judge(self, files: Sequence[tuple[str, os.stat_result, History | None]]) -> list[Verdict]:
        """What follows for each file, given its lstat and its history."""
        return [self._judge(path, found, history) for path, found, history in files]

    def _judge(self, path: str, found: os.stat_result, history: History | None) -> Verdict:
        root, rules = self._feed.directory, self._rules
        version = FileVersion.of(self._feed.name, path, found, self._root)
        now = self._clock()
        try:
            seen = observe.glance(root, self._feed.name, path, found, self._suffix, now)
            seen = replace(seen, clock_set_at=self._clock.set_at)
            history = advance(history, seen)
            if not worth_probing(seen, history, rules, now):
                return Verdict(path, version, decide(seen, history, rules, now), history)
            now = self._clock()
            probed = observe.probe(root, seen, now, self._writer)
        except DiskTrouble as error:
            return Verdict(path, version, Wait(now + self._pause, str(error)), history)
        if probed is None:
            return Verdict(path, version, Ignore("it has vanished"), None)
        history = advance(history, probed)
        if probed.version != version:  # the ledger was asked about another one
            return Verdict(path, version, Wait(now + RECHECK, "it changed a moment ago"), history)
        return Verdict(path, version, decide(probed, history, rules, now), history)
