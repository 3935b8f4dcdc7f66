"""The query of the presign call, in both versions of its contract.

The vendor's README demands `datasetid`, `filename`, `filesize` and `filelastmodified` (here: strict); the
first version of its guide calls without any query. What is sent is checked in both.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tablefeed.sandbox.sigv4 import MAX_LIFETIME

MAX_FILE_NAME = 900
"""Bytes: leaves room in a key for the rest."""
DEMANDED = ("datasetid", "filename", "filesize", "filelastmodified")


@dataclass(frozen=True, slots=True)
class UploadQuery:
    """What the caller said about the file; None where it said nothing."""

    dataset_id: str | None
    file_name: str | None
    lifetime: int | None
    """Seconds."""


class QueryError(Exception):
    """The query is incomplete or wrong; the message lists everything at once."""


def parse(query: Mapping[str, str], demanded: tuple[str, ...] = ()) -> UploadQuery:
    """Return what the query says, or raise QueryError. `demanded` are the parameters that must be there."""
    problems = [f"{name} is missing" for name in demanded if name not in query]
    problems += [
        f"{name} must be {rule}" for name, (rule, holds) in _RULES.items() if name in query and not holds(query[name])
    ]
    if problems:
        raise QueryError("; ".join(problems))
    lifetime = query.get("validforseconds")
    return UploadQuery(
        dataset_id=query.get("datasetid"),
        file_name=query.get("filename"),
        lifetime=None if lifetime is None else int(lifetime),
    )


def _whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


def _milliseconds(text: str) -> bool:
    try:
        number = float(text)
    except ValueError:
        return False
    return math.isfinite(number) and number >= 0


_RULES: dict[str, tuple[str, Callable[[str], bool]]] = {
    "datasetid": ("the id of a dataset", bool),
    "filename": (
        f"a name of 1 to {MAX_FILE_NAME} bytes",
        lambda text: 1 <= len(text.encode()) <= MAX_FILE_NAME,
    ),
    "filesize": ("a whole number of bytes", _whole),
    "filelastmodified": ("a number of milliseconds since 1970", _milliseconds),
    "validforseconds": (
        f"a whole number of seconds from 1 to {MAX_LIFETIME}",
        lambda text: _whole(text) and 1 <= int(text) <= MAX_LIFETIME,
    ),
}
