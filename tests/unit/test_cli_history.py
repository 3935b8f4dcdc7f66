"""What `tablefeed history` shows on terminals of different widths."""

import io
from typing import Any

from rich.console import Console

from tablefeed.cli.history import fitting
from tablefeed.ledger.records import Record

REASON = "its 6442450944 bytes are more than `max_size` (5368709120 bytes). Let the export write smaller files"


def record(number: int) -> Record:
    unknown: dict[str, Any] = dict.fromkeys(
        (
            *("md5", "etag", "verified", "status", "request_id", "origin", "started_at", "finished_at"),
            *("destination", "target", "duplicate_of", "removed_at", "dropped_at", "failed_at"),
        )
    )
    return Record(
        id=number, feed="orders", path=f"orders-{number}.csv", device=1, inode=number, size=10, mtime_ns=0,
        state="rejected", queued_at=0, due_at=0, closed_at=0, attempts=0, error="FileRefused", reason=REASON,
        left_in_place=False, node="plant-1", **unknown,
    )  # fmt: skip


def lines(width: int) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    console.print(fitting([record(1), record(2)], console, with_nodes=False))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_what_happened_has_a_column_where_there_is_room() -> None:
    """Also where it is longer than that room, since it folds."""
    assert lines(140)[0].split()[-2:] == ["FILE", "WHAT"]
    assert len(lines(200)) == 3


def test_what_happened_stands_below_the_file_on_a_narrow_terminal() -> None:
    """A column of a few letters would break each reason into a tower, and the file's name with it."""
    narrow = lines(80)
    assert narrow[0].split()[-1] == "FILE"
    first = narrow[1 : len(narrow) // 2 + 1]
    assert first[0].endswith("orders-1.csv")
    assert " ".join(line.strip() for line in first[1:]) == REASON
    assert len(first) < 8
