"""The other nodes that have a feed's directory. One at a time looks at its files, the rest tell it what they hear."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tablefeed.model import FileVersion


@dataclass(frozen=True, slots=True)
class Others:
    """What an intake asks of them, by the feed's name."""

    may_scan: Callable[[str], Awaitable[bool]]
    """Whether none of them looks at the directory, so that this node does."""
    look: Callable[[str, Sequence[str]], Awaitable[None]]
    """Tell the one that does that these paths may hold something new."""

    leave: Callable[[str], Awaitable[bool]]
    """Let one of them look at the directory, which this node cannot; returns whether there may be one."""
    last: Callable[[str], Awaitable[FileVersion | None]]
    """What was found there last, on any node; None: that is not known."""
    scans: Callable[[str], bool] = lambda _feed: True
    """Whether this node is the one that looks, as far as it knows now."""


async def _yes(_feed: str) -> bool:
    return True


async def _nothing(_feed: str, _paths: Sequence[str]) -> None:
    return


async def _no(_feed: str) -> bool:
    return False


async def _unknown(_feed: str) -> FileVersion | None:
    return None


NOBODY = Others(_yes, _nothing, _no, _unknown)
"""The directory is this daemon's alone."""
