"""Words of the commands: spans, moments, text that is safe on a terminal."""

from datetime import datetime

import pytest

from tablefeed.cli.words import clock_time, plural, shown, span


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-1, "0s"), (0.4, "0s"), (59, "59s"), (60, "1m"), (61, "1m1s"), (599, "9m59s"), (3_599, "59m"), (3_600, "1h"),
        (5_400, "1h30m"), (86_400, "24h"), (172_799, "47h"), (172_800, "2d"), (200_000, "2d7h"), (1_000_000, "11d"),
    ],
)  # fmt: skip
def test_spans_have_one_unit_or_two(seconds: float, told: str) -> None:
    """The second one while there is little of the first; hours go on to two days."""
    assert span(seconds) == told


def test_a_moment_of_another_day_has_its_date() -> None:
    """In local time."""
    now = datetime(2026, 3, 2, 12, 0, 0).astimezone().timestamp()
    assert clock_time(now - 60, now) == "11:59:00"
    assert clock_time(now - 86_400, now) == "2026-03-01 12:00:00"


def test_nothing_that_a_terminal_obeys_is_shown() -> None:
    """Escapes, line breaks, marks that turn the direction of writing, and bytes that are not UTF-8."""
    text = shown("a\x1b[2J\n\r\u202eb\u2028\x9b\x07\udcff.csv")
    assert text == r"a\x1b[2J\n\r\u202eb\u2028\x9b\x07\xff.csv"


def test_one_is_not_many() -> None:
    """As people say it."""
    assert (plural(1, "file"), plural(0, "file"), plural(2, "file")) == ("1 file", "0 files", "2 files")
