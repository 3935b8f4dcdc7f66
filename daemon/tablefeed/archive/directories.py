"""Whether a feed's directories can be used, told before anything is moved. Looks, and changes nothing."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from tablefeed.model import ARCHIVE_DELETE, ARCHIVE_LEAVE, Feed, printable


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and how to mend it."""

    what: str
    remedy: str


@dataclass(slots=True)
class Findings:
    """What was found: `problems` keep files from being delivered or moved, `notes` are good to know."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def problem(self, what: str, remedy: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(what, remedy))


def probe_directories(feed: Feed) -> Findings:
    """Look at the feed's directory, at its archive as far as its name is known, and at `failed`.

    Blocks. Permissions are those of the effective user, as access(2) knows them.
    """
    findings = Findings()
    _probe_drop(feed, findings)
    if not findings.problems:
        if feed.archive not in (ARCHIVE_DELETE, ARCHIVE_LEAVE):
            _probe_target(feed, "archive", certain(feed.directory, feed.archive), findings)
        if _may(feed.directory, os.W_OK):
            _probe_target(feed, "failed", feed.directory / feed.failed, findings)
    return findings


def _may(directory: Path, mode: int) -> bool:
    return os.access(directory, mode, effective_ids=True)


def _probe_drop(feed: Feed, findings: Findings) -> None:
    directory, named = feed.directory, printable(feed.directory)
    user = f"the user that runs tablefeed (uid {os.geteuid()})"
    try:
        found = directory.stat()
    except OSError as error:
        findings.problem(
            f"the directory {named} of feed {feed.name} cannot be used: {error.strerror}",
            f"Create or mount it, let {user} reach it, or correct `directory`",
        )
        return
    if not stat.S_ISDIR(found.st_mode):
        findings.problem(f"{named} of feed {feed.name} is not a directory", "Correct `directory`")
    elif not _may(directory, os.R_OK | os.X_OK):
        findings.problem(
            f"the directory {named} of feed {feed.name} cannot be read", f"Give {user} read and search permission on it"
        )
    elif _may(directory, os.W_OK):
        if found.st_mode & stat.S_ISVTX and os.geteuid() not in (0, found.st_uid):
            findings.notes.append(
                f"{named} has the sticky bit: files that other users drop there can be sent, but not moved"
            )
    elif feed.archive == ARCHIVE_LEAVE:
        findings.notes.append(f"{named} is not writable: files that are refused stay there")
    else:
        findings.problem(
            f"the directory {named} of feed {feed.name} is not writable, so that no file can be moved out of it",
            f'Give {user} write permission on it, or set archive = "leave"',
        )


def certain(directory: Path, template: str) -> Path:
    """The archive's directories down to the first one whose name depends on the date."""
    target = directory
    for part in Path(template).parts:
        if "%" in part:
            break
        target /= part
    return target


def _probe_target(feed: Feed, key: str, target: Path, findings: Findings) -> None:
    nearest = target
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    named = printable(target)
    try:
        found = nearest.stat()
    except OSError as error:
        findings.problem(f"`{key}` {named} of feed {feed.name} cannot be used: {error.strerror}", f"Correct `{key}`")
        return
    if not stat.S_ISDIR(found.st_mode):
        findings.problem(
            f"`{key}` {named} of feed {feed.name} cannot be used: {printable(nearest)} is not a directory",
            f"Move that file away, or correct `{key}`",
        )
        return
    if not _may(nearest, os.R_OK | os.W_OK | os.X_OK):
        findings.problem(
            f"`{key}` {named} of feed {feed.name} cannot be written to",
            f"Give the user that runs tablefeed (uid {os.geteuid()}) read, write and search permission on "
            f"{printable(nearest)}",
        )
    drop = feed.directory.stat()
    if nearest == target and os.path.samestat(found, drop):
        findings.problem(
            f"`{key}` of feed {feed.name} is the directory itself that its files are dropped in", f"Correct `{key}`"
        )
    if found.st_dev != drop.st_dev:
        findings.notes.append(
            f"`{key}` {named} of feed {feed.name} is on another file system than {printable(feed.directory)}: "
            "files are copied there, which is slower than a rename"
        )
