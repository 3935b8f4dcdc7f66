"""Durations, sizes and rates as text."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablefeed.units import (
    LARGEST,
    LONGEST,
    SLOWEST,
    format_duration,
    format_rate,
    format_size,
    parse_duration,
    parse_moment,
    parse_rate,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("0s", 0),
        ("5m", 300),
        ("1h30m", 5_400),
        ("7d", 604_800),
        ("1.5h", 5_400),
        ("0.1s", 0.1),
        ("1d1h1m1s1ms", 90_061.001),
        ("36500d", LONGEST),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    """A duration is the sum of its parts, exactly."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "30 s", "30S", "1m1h", "1s1s", "1e3s", "infs", "٣s", "30s\n", ".5s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """The refusal shows how a duration is written."""
    with pytest.raises(ValueError, match='is not a duration; write it like "30s"'):
        parse_duration(text)


def test_a_bare_number_is_no_duration() -> None:
    """The refusal shows the number with a unit."""
    with pytest.raises(ValueError, match='has no unit; write it like "30s"'):
        parse_duration("30")


@pytest.mark.parametrize("text", ["36500d1ms", "9" * 400 + "d"])
def test_too_long_durations_are_refused(text: str) -> None:
    """No duration leads to times that clocks and databases cannot hold."""
    with pytest.raises(ValueError, match='too long; the longest is "36500d"'):
        parse_duration(text)


@given(st.floats(min_value=0, max_value=LONGEST))
def test_durations_round_trip(seconds: float) -> None:
    """A formatted duration is read as the very same number."""
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.5, "500ms"), (60, "1m"), (90.5, "1m30.5s"), (5_400, "1h30m"), (86_400, "1d"), (604_801.0, "7d1s")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    """A duration is written in its largest units, and without those that are zero."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1024", 1024), ("12B", 12), ("64MiB", 2**26), ("5GiB", 5 * 2**30), ("10MB", 10**7), ("1.5KiB", 1536)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    """Decimal and binary units differ; no unit means bytes."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1 MiB", "64mb", "64Mib", "1e3", "1PiB", "1,5MiB", "1MiB\n"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """The refusal shows how a size is written."""
    with pytest.raises(ValueError, match='is not a size; write it like "64MiB"'):
        parse_size(text)


def test_too_large_sizes_are_refused() -> None:
    """No size is larger than what databases can hold."""
    assert parse_size(str(LARGEST)) == LARGEST
    with pytest.raises(ValueError, match="too large; the largest is"):
        parse_size(str(LARGEST + 1))


@given(st.integers(min_value=0, max_value=2**62))
def test_sizes_round_trip(size: int) -> None:
    """A formatted size is read as nearly the same, and written again as it was."""
    text = format_size(size)
    assert parse_size(text) == pytest.approx(size, rel=0.05)
    assert format_size(parse_size(text)) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (1023, "1023B"), (1536, "1.5KiB"), (2**20 - 1, "1MiB"), (5 * 2**30, "5GiB"), (2**50, "1024TiB")],
)
def test_sizes_are_short(size: int, text: str) -> None:
    """A size is written in its largest unit; what rounds up to the next unit is written in that."""
    assert format_size(size) == text


@given(st.integers(min_value=SLOWEST, max_value=2**62))
def test_rates_round_trip(rate: int) -> None:
    """A formatted rate is read as nearly the same, and written again as it was."""
    text = format_rate(rate)
    assert parse_rate(text) == pytest.approx(rate, rel=0.05)
    assert format_rate(parse_rate(text)) == text


@pytest.mark.parametrize("text", ["", "20MiB", "20MiB/m", "/s", "20MiB/ s", "fast/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    """The refusal shows how a rate is written."""
    with pytest.raises(ValueError, match='is not a rate; write it like "20MiB/s"'):
        parse_rate(text)


@pytest.mark.parametrize("text", ["0MiB/s", "0.1B/s", "1023B/s"])
def test_a_rate_of_next_to_nothing_is_refused(text: str) -> None:
    """A limit that lets nothing through would stop all uploads without a word."""
    with pytest.raises(ValueError, match='is too slow; the slowest is "1KiB/s"'):
        parse_rate(text)


@pytest.mark.parametrize("parse", [parse_duration, parse_size, parse_rate])
@pytest.mark.parametrize("text", ["s3cret-k3y", "9" * 40 + "k3y", "7" * 40])
def test_no_refusal_repeats_what_was_written(parse: Callable[[str], float], text: str) -> None:
    """It may be a secret that was written under a wrong name."""
    with pytest.raises(ValueError, match=" ") as refused:
        parse(text)
    assert text[:10] not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12h", 1_700_000_000 - 12 * 3600),
        ("2023-11-14T22:13:20Z", 1_700_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000),
    ],
)
def test_moments_are_read(text: str, seconds: float) -> None:
    """An age counts back from now; a time zone that is written counts."""
    assert parse_moment(text, 1_700_000_000) == seconds


def test_a_moment_without_a_zone_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the clock on the wall shows it."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert parse_moment("2023-11-14T17:13:20", 0) == 1_700_000_000
        assert parse_moment("2023-11-14", 0) == 1_700_000_000 - 17 * 3600 - 13 * 60 - 20
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "tomorrow", "2023-13-01", "0001-01-01"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    """The refusal shows how one is written."""
    with pytest.raises(ValueError, match="is no time; write it like 2026-03-01"):
        parse_moment(text, 0)
