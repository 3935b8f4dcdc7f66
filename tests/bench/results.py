"""The results as they are kept: `benchmark.json`, into which a run that measures some rows puts these alone."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.model import Bound, Claim, Part, Profile, Row, Series


@dataclass(frozen=True, slots=True)
class Setting:
    """When and on what a row was measured."""

    date: str
    """YYYY-MM-DD, UTC."""
    scale: str
    runs: int
    load: float
    """The load average of the minute before, for each core: from 1 on, others worked as well."""
    machine: dict[str, str]
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Result:
    """A row, and where it comes from."""

    row: Row
    setting: Setting


def read(path: Path) -> list[Result]:
    """What is kept there; nothing where no file is."""
    if not path.exists():
        return []
    return [_result(raw) for raw in json.loads(path.read_text())["rows"]]


def merged(kept: Sequence[Result], new: Sequence[Result]) -> list[Result]:
    """The new ones, and those kept of the rows that were not measured, by number."""
    measured = {result.row.number for result in new}
    both = [*(result for result in kept if result.row.number not in measured), *new]
    return sorted(both, key=lambda result: result.row.number)


def write(path: Path, results: Sequence[Result]) -> None:
    """Keep them, all values with four digits."""
    path.write_text(json.dumps({"rows": [_raw(result) for result in results]}, indent=1, ensure_ascii=False) + "\n")


def _raw(result: Result) -> dict[str, Any]:
    row = result.row
    return {
        "number": row.number,
        "title": row.title,
        "series": [
            {"name": s.name, "unit": s.unit, "median": rounded(s.median), "values": [rounded(v) for v in s.values]}
            for s in row.series
        ],
        "claims": [
            {
                "text": claim.text,
                "unit": claim.unit,
                "median": rounded(claim.median),
                "values": [rounded(value) for value in claim.values],
                "bound": claim.bound.value,
                "limit": claim.limit,
                "holds": claim.holds,
            }
            for claim in row.claims
        ],
        "notes": list(row.notes),
        "profile": None if row.profile is None else asdict(row.profile),
        "measured": asdict(result.setting),
    }


def _result(raw: dict[str, Any]) -> Result:
    series = tuple(Series(s["name"], s["unit"], tuple(s["values"])) for s in raw["series"])
    claims = tuple(
        Claim(c["text"], c["unit"], tuple(c["values"]), Bound(c["bound"]), c["limit"]) for c in raw["claims"]
    )
    profile = _profile(raw["profile"]) if raw.get("profile") else None
    row = Row(raw["number"], raw["title"], series, claims, tuple(raw["notes"]), profile)
    return Result(row, Setting(**raw["measured"]))


def _profile(raw: dict[str, Any]) -> Profile:
    threads = tuple((name, spent) for name, spent in raw["threads"])
    return Profile(**raw | {"threads": threads, "parts": tuple(Part(**part) for part in raw["parts"])})


def rounded(value: float) -> float:
    """With four significant digits."""
    return float(f"{value:.4g}")
