"""Durations, sizes and rates as people write them: `30s`, `1h30m`, `64MiB`, `20MiB/s`. Pure.

Parsers raise ValueError with a text that says what would be right.
"""

import re

_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
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
_NUMBER = r"\d{1,15}(?:\.\d{1,9})?"
_PART = re.compile(rf"({_NUMBER})(ms|[dhms])")
_DURATION = re.compile(rf"(?:{_NUMBER}(?:ms|[dhms]))+")
_SIZE = re.compile(rf"({_NUMBER}) ?([KMGT]i?B|B)?")


def parse_duration(text: str) -> float:
    """Seconds. Units are d, h, m, s and ms, the largest first, each at most once."""
    parts = _PART.findall(text) if _DURATION.fullmatch(text) else []
    units = [unit for _, unit in parts]
    if not parts or units != sorted(set(units), key=list(_SECONDS).index):
        raise ValueError(f'"{_short(text)}" is not a duration; write it like "30s", "5m", "1h30m", "7d" or "500ms"')
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as these seconds, to the millisecond."""
    rest = round(seconds * 1000)
    text = ""
    for unit, length in _SECONDS.items():
        count, rest = divmod(rest, round(length * 1000))
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def parse_size(text: str) -> int:
    """Bytes. Units are B, KB … TB (powers of 1,000) and KiB … TiB (powers of 1,024); none means bytes."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f'"{_short(text)}" is not a size; write it like "64MiB", "5GiB" or "500KB"')
    return round(float(match[1]) * _BYTES[match[2] or "B"])


def format_size(count: float) -> str:
    """The size in the largest binary unit of which there is at least one: `5GiB`, `1.5MiB`, `12B`."""
    unit = next((unit for unit in ("TiB", "GiB", "MiB", "KiB") if count >= _BYTES[unit]), "B")
    value = f"{count / _BYTES[unit]:.1f}".removesuffix(".0")
    return f"{value}{unit}"


def parse_rate(text: str) -> float:
    """Bytes a second."""
    size, slash, second = text.rpartition("/")
    if not slash or second.strip() != "s":
        raise ValueError(f'"{_short(text)}" is not a rate; write it like "20MiB/s"')
    return float(parse_size(size))


def format_rate(rate: float) -> str:
    """The rate in the largest binary unit of which there is at least one a second."""
    return f"{format_size(rate)}/s"


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "…"
