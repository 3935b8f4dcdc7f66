"""The two pictures of the results."""

from collections.abc import Sequence

from bench.model import Bound, Claim, Row
from bench.plot import Bar, Group, chart, linear, logarithmic
from bench.report import figure
from bench.results import Result

_RATES = {1: "small files, nginx", 2: "small files, S3", 3: "CPU per GiB, plain HTTP", 4: "CPU per GiB, TLS"}
_GROWTH = {11: "by the length of the queue", 12: "by the number of feeds"}


ALTS = {
    "benchmark-rates.svg": "Ratios to the peers, rows 1 to 4",
    "benchmark-growth.svg": "Files per second as the work grows, rows 11 and 12",
}


def pictures(results: Sequence[Result]) -> dict[str, str]:
    """File names and SVG; a picture for which no row has figures is left out."""
    rows = [result.row for result in results]
    made = dict(zip(ALTS, (_rates(rows), _growth(rows)), strict=True))
    return {name: svg for name, svg in made.items() if svg}


def _rates(rows: Sequence[Row]) -> str:
    groups = []
    for row in rows:
        if row.number in _RATES and row.claims:
            better = "more is better" if row.claims[0].bound is Bound.AT_LEAST else "less is better"
            bars = [
                Bar(
                    _label(claim),
                    min(claim.values),
                    claim.median,
                    max(claim.values),
                    f"{figure(claim.median)} ×, limit {claim.limit:g}: {'reached' if claim.holds else 'missed'}",
                    claim.holds,
                    claim.limit,
                )
                for claim in row.claims
            ]
            groups.append(Group(f"{row.number}. {_RATES[row.number]} ({better})", bars))
    if not groups:
        return ""
    values = [value for group in groups for bar in group.bars for value in (bar.low, bar.high, bar.limit or 1.0)]
    subtitle = "Ratio within each run: median, minimum and maximum; the thick mark is the limit; logarithmic scale"
    return chart("tablefeed beside its peers", subtitle, groups, logarithmic(values))


def _label(claim: Claim) -> str:
    ours, _, theirs = claim.text.partition(" / ")
    how = ours.removeprefix("tablefeed").lstrip(", ")
    return f"{how}, beside {theirs}" if how else f"beside {theirs}"


def _growth(rows: Sequence[Row]) -> str:
    groups = [
        Group(
            f"{row.number}. {_GROWTH[row.number]}",
            [
                Bar(
                    series.name,
                    min(series.values),
                    series.median,
                    max(series.values),
                    f"{figure(series.median)} files/s",
                )
                for series in row.series
                if series.unit == "files/s"
            ],
        )
        for row in rows
        if row.number in _GROWTH and row.series
    ]
    if not groups:
        return ""
    values = [bar.high for group in groups for bar in group.bars]
    subtitle = "Files per second: median, minimum and maximum"
    return chart("Speed as the work grows", subtitle, groups, linear(values))
