"""Words that several commands use: counts, spans of time, and text that a terminal takes for text. Pure."""

from datetime import datetime
from itertools import pairwise

from tablefeed.model import printable

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_COARSE = 10
"""From so many units on, the next smaller one is left out."""


def plural(count: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def shown(path: str) -> str:
    """A text on one line, without anything that a terminal would take for a command."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in printable(path))


def span(seconds: float) -> str:
    """How long, in the largest unit and where that is few of it the next one: `45s`, `5m30s`, `26h`, `3d4h`."""
    whole = max(0, round(seconds))
    for (length, unit), (smaller, name) in pairwise(_UNITS):
        if whole >= length:
            count, rest = divmod(whole, length)
            # Hours go on to two days, since people set and say 26h.
            if unit == "d" and count < 2:
                return f"{whole // 3_600}h"
            return f"{count}{unit}" + (f"{rest // smaller}{name}" if count < _COARSE and rest >= smaller else "")
    return f"{whole}s"


def clock_time(moment: float, now: float) -> str:
    """A moment in local time, with the date where that is not today's; both in Unix seconds."""
    there, here = (datetime.fromtimestamp(it).astimezone() for it in (moment, now))
    return there.strftime("%H:%M:%S" if there.date() == here.date() else "%Y-%m-%d %H:%M:%S")


def moment(iso: object) -> float | None:
    """Unix seconds of a moment in ISO 8601; None for nothing."""
    return datetime.fromisoformat(iso).timestamp() if isinstance(iso, str) else None
