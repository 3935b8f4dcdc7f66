"""The other nodes that have a feed's directory. One at a time looks at its files, the rest tell it what they hear."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Others:
    """What an intake asks of them, by the feed's name."""

    may_scan: Callable[[str], Awaitable[bool]]
    """Whether none of them looks at the directory, so that this node does."""
    look: Callable[[str, Sequence[str]], Awaitable[None]]
    """Tell the one that does that these paths may hold something new."""

    leave: Callable[[str], Awaitable[bool]]
    """Let one of them look at the directory, which this node cannot; returns whether there may be one."""


async def _yes(_feed: str) -> bool:
    return True


async def _nothing(_feed: str, _paths: Sequence[str]) -> None:
    return


async def _no(_feed: str) -> bool:
    return False


NOBODY = Others(_yes, _nothing, _no)
"""The directory is this daemon's alone."""
