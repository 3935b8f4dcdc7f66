"""What is to be done with one file, and what has become of it."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tablefeed.archive.moves import within
from tablefeed.model import FileVersion


class Action(StrEnum):
    """What becomes of the file."""

    MOVE = "move"
    DELETE = "delete"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Job:
    """One move."""

    directory: Path
    """The feed's."""
    origin: str
    """The directory that the file was dropped in: the feed's, or one below it."""
    entry_id: int
    version: FileVersion
    action: Action
    target: str
    """The directory to move to; the feed's own when nothing is moved."""
    marker_suffix: str = ""
    """Empty: the feed has no markers."""
    md5: str | None = None
    """Of the bytes that were delivered, in hexadecimal."""
    report: bytes | None = None
    """What to write beside the moved file."""

    @property
    def source(self) -> str:
        """Where the file was dropped."""
        return within(self.origin, self.version.name)


@dataclass(frozen=True, slots=True)
class Moved:
    """What has become of a file."""

    destination: str | None = None
    """Absolute; None: it was deleted or left, or was gone already."""
    left_in_place: bool = False
    stranger: bool = False
    """The path holds something else now, which is to be looked at."""
