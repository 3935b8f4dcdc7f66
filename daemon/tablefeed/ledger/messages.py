"""What nodes of a fleet tell each other: that files were queued, or that there is something to look at.

It goes by PostgreSQL's NOTIFY. What is lost on the way costs time and never a file: each node looks by itself now and
then.
"""

import json
import os
from dataclasses import dataclass
from typing import Any

LONGEST = 7_000
"""Bytes of one message; PostgreSQL takes 8,000."""


@dataclass(frozen=True, slots=True)
class Queued:
    """Files of a shared feed have been queued by some node."""

    feed: str


@dataclass(frozen=True, slots=True)
class Look:
    """A node has heard that these paths of a shared feed may hold something new; none: that all may."""

    feed: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PausesChanged:
    """Somebody has paused or resumed a feed."""


Message = Queued | Look | PausesChanged
_PAUSES = {"changed": "pauses"}


def written(message: Message) -> str:
    """A message as it is sent. One that would be too long says to look at everything."""
    match message:
        case Queued(feed):
            return json.dumps([feed])
        case Look(feed, paths):
            text = json.dumps([feed, [*paths]])
            return text if len(text) <= LONGEST else json.dumps([feed, []])
        case PausesChanged():
            return json.dumps(_PAUSES)


def understood(text: str) -> Message | None:
    """The message that was sent; None: it is of another version, or nobody's of ours."""
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if parts == _PAUSES:
        return PausesChanged()
    match parts:
        case [str(feed)]:
            return Queued(feed)
        case [str(feed), [*paths]] if all(map(_is_path, paths)):
            return Look(feed, tuple(paths))
        case _:
            return None


def _is_path(told: Any) -> bool:
    """Whether it may be the name of a file: whoever may connect to the database can tell nodes something."""
    try:
        return isinstance(told, str) and b"\0" not in os.fsencode(told)
    except UnicodeEncodeError:
        return False
