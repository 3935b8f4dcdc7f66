"""What happened to a file, as people and programs are shown it."""

from dataclasses import asdict
from typing import Any

from tablefeed.ledger.records import Record
from tablefeed.model import State, printable
from tablefeed.status import FileTrouble
from tablefeed.units import iso

_PATHS = ("path", "destination", "reason")
_TIMES = ("dropped_at", "queued_at", "due_at", "closed_at", "failed_at", "started_at", "finished_at", "removed_at")


def plain(record: Record) -> dict[str, Any]:
    """A record for JSON: paths as text, times in ISO 8601, UTC."""
    values = asdict(record)
    for name in _PATHS:
        values[name] = values[name] and printable(values[name])
    for name in _TIMES:
        values[name] = values[name] and iso(values[name])
    return values


def what(record: Record) -> str:
    """The rest of a record in a few words: where the file is, or why it is not further."""
    match State(record.state):
        case State.REJECTED | State.QUEUED if record.reason:
            return printable(record.reason)
        case State.UPLOADED if record.reason:
            return f"delivered, not archived yet: {printable(record.reason)}"
        case State.SKIPPED:
            return f"same content as {record.duplicate_of}"
        case State.GONE:
            return "it vanished, or was replaced, before it was sent"
        case State.ARCHIVED if record.removed_at:
            return "deleted from the archive since"
        case State.ARCHIVED if record.left_in_place:
            return "left where it was dropped"
        case _:
            return printable(record.destination or "")


def is_refused(record: Record) -> bool:
    """Whether it was set aside and has not been put back."""
    return record.state == State.REJECTED and bool(record.destination or record.left_in_place)


def trouble_of(record: Record, now: int) -> FileTrouble:
    """What is wrong with a file that was refused or has failed; `now` in Unix milliseconds."""
    return FileTrouble(
        record.id,
        record.feed,
        record.path,
        record.state,
        record.reason or "",
        record.attempts,
        record.changed_at,
        None if record.closed_at else max(record.due_at, now),
        record.node,
    )
