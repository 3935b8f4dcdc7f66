"""Durations, sizes, rates and moments as people write them: `30s`, `1h30m`, `64MiB`, `20MiB/s`, `2026-03-01`. Pure.

Parsers raise ValueError with a text that says what would be right. It does not repeat what was written, which may
be a secret under a wrong name. Formatted durations parse to the same value again; sizes and rates are shown with one
decimal.
"""

import re
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal

_SECONDS = {"d": Decimal(86_400), "h": Decimal(3_600), "m": Decimal(60), "s": Decimal(1), "ms": Decimal("0.001")}
_BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_DURATION = re.compile("".join(f"(?:(?P<{unit}>{_NUMBER}){unit})?" for unit in _SECONDS))
_SIZE = re.compile(f"({_NUMBER})({'|'.join(_BYTES)})?")

_LONGEST_NUMBER = 10
"""Digits of a number without a unit that is repeated with one."""

LONGEST = 36_500 * 86_400
"""Seconds: the longest duration that is accepted. It keeps every time within what clocks and databases can hold."""
LARGEST = 2**63 - 1
"""Bytes: the largest size that is accepted."""
SLOWEST = 2**10
"""Bytes a second: the lowest rate that is accepted. Below it stores give uploads up for dead."""


def parse_duration(text: str) -> float:
    """Seconds. Units are d, h, m, s and ms, the largest first, each at most once."""
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        bare = re.fullmatch(_NUMBER, text) is not None and len(text) <= _LONGEST_NUMBER
        right = f'"{text}s"' if bare else '"30s", "5m", "1h30m", "7d" or "500ms"'
        raise ValueError(f"{'has no unit' if bare else 'is not a duration'}; write it like {right}")
    parts = found.groupdict(default="0")
    seconds = sum(Decimal(parts[unit]) * length for unit, length in _SECONDS.items())
    if seconds > LONGEST:
        raise ValueError(f'is too long; the longest is "{format_duration(LONGEST)}"')
    return float(seconds)


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as exactly these seconds (0 or more, finite)."""
    rest = Decimal(repr(seconds))
    if 0 < rest < 1:
        return f"{_plain(rest / _SECONDS['ms'])}ms"
    text = ""
    for unit in ("d", "h", "m"):
        count, rest = divmod(rest, _SECONDS[unit])
        text += f"{count:f}{unit}" if count else ""
    return text + f"{_plain(rest)}s" if rest or not text else text


def parse_moment(text: str, now: float) -> float:
    """Unix seconds of a date or time in ISO 8601 (local unless it says otherwise), or of an age before `now`."""
    with suppress(ValueError):
        return now - parse_duration(text)
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError):
        raise ValueError("is no time; write it like 2026-03-01, 2026-03-01T22:00, 12h or 7d") from None


def iso(milliseconds: int) -> str:
    """A moment in ISO 8601, UTC, with milliseconds."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_size(text: str) -> int:
    """Bytes. Units are B, KB … TB (powers of 1,000) and KiB … TiB (powers of 1,024); none means bytes."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError('is not a size; write it like "64MiB", "5GiB" or "500KB"')
    size = Decimal(found[1]) * _BYTES[found[2] or "B"]
    if size > LARGEST:
        raise ValueError(f'is too large; the largest is "{LARGEST}B"')
    return round(size)


def format_size(count: float) -> str:
    """The size in the largest binary unit of which there is at least one: `5GiB`, `1.5MiB`, `12B`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        value = round(count / _BYTES[unit], 0 if unit == "B" else 1)
        if value < 1024:
            return f"{value:g}{unit}"
    return f"{count / _BYTES['TiB']:.1f}".removesuffix(".0") + "TiB"


def parse_rate(text: str) -> int:
    """Bytes a second."""
    size, _, second = text.rpartition("/")
    if second != "s" or not _SIZE.fullmatch(size):
        raise ValueError('is not a rate; write it like "20MiB/s"')
    rate = parse_size(size)
    if rate < SLOWEST:
        raise ValueError(f'is too slow; the slowest is "{format_rate(SLOWEST)}"')
    return rate


def format_rate(rate: float) -> str:
    """The rate in the largest binary unit of which there is at least one a second."""
    return f"{format_size(rate)}/s"


def _plain(number: Decimal) -> str:
    """Without an exponent, and without zeros at the end of a fraction."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
