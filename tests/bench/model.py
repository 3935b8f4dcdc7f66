"""What a benchmark gives: series of measured values, and claims about them."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from statistics import median
from typing import TypeVar

T = TypeVar("T")


class Bound(Enum):
    """On which side of its limit a claim holds."""

    AT_LEAST = "at least"
    AT_MOST = "at most"


class Scale(Enum):
    """How much work is done."""

    FULL = "full"
    """As much as the table says."""
    SHORT = "short"
    """As little as shows that everything still runs."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What all rows are told."""

    scale: Scale
    runs: int
    """How often each contender is measured, in turn with the others."""
    scratch: Path
    """A directory of the benchmark's own, on a real disk."""

    def pick(self, full: T, short: T) -> T:
        """The one that fits the scale."""
        return full if self.scale is Scale.FULL else short


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity of one contender, run by run."""

    name: str
    """The contender, such as "tablefeed" or "curl -T"."""
    unit: str
    """Such as "files/s", "CPU s/GiB", "MiB", "ms"."""
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.values)


@dataclass(frozen=True, slots=True)
class Claim:
    """A figure and what it must reach."""

    text: str
    """What is compared with what, such as "tablefeed / curl -T"."""
    unit: str
    """Empty for ratios."""
    values: tuple[float, ...]
    """A ratio is taken within each run, so that what disturbs a run disturbs both sides."""
    bound: Bound
    limit: float

    @property
    def median(self) -> float:
        """The middle one; it is what is compared with the limit."""
        return median(self.values)

    @property
    def holds(self) -> bool:
        """Whether the limit is reached."""
        return self.median >= self.limit if self.bound is Bound.AT_LEAST else self.median <= self.limit


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the time in which the GIL was held."""

    thread: str
    """What the thread is for."""
    module: str
    """Which module of tablefeed was at work; empty where none was."""
    library: str
    """In which package that called; empty where tablefeed's own code ran."""
    share: float
    """0 to 1."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time goes, in a run that was not measured otherwise."""

    rate: float
    """Files per second, slowed down by the recording."""
    held: float
    """Share of the time in which some thread held the GIL, 0 to 1."""
    switches: float
    """How often a thread stopped running for another or to wait, per file."""
    threads: tuple[tuple[str, float], ...]
    """CPU microseconds per file, by what a thread is for."""
    parts: tuple[Part, ...]
    missing: str = ""
    """Why there are no parts."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    number: int
    title: str
    series: tuple[Series, ...]
    claims: tuple[Claim, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader must know, such as what was left out and why."""
    profile: Profile | None = None


def ratios(ours: Series, theirs: Series) -> tuple[float, ...]:
    """Ours by theirs, run by run."""
    return tuple(a / b for a, b in zip(ours.values, theirs.values, strict=True))
