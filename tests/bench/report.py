"""The results in words: the table that is printed, and `benchmark.md`."""

from collections.abc import Mapping, Sequence
from math import isclose

from bench.model import Bound, Claim, Profile, Row, Series, ratios
from bench.results import Result

INTRODUCTION = """\
# Benchmark

tablefeed beside what people would use instead, measured by `make bench`, which also writes this page, its pictures and
`benchmark.json` with the values of every run. Contenders take turns: each is measured once before any is measured
again, and each run begins with another one. A ratio is taken within a run, and its median is what is compared with the
limit. Absolute figures say more about the machine than about a program; ratios and CPU seconds carry over.
"""
NOTHING = "–"
HEAD = ("#", "measured", "tablefeed", "beside it", "min / median / max", "must reach", "result")


def figure(value: float) -> str:
    """Three significant digits, with a comma for thousands."""
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def spread(values: Sequence[float], middle: float) -> str:
    """Minimum, median and maximum."""
    return f"{figure(min(values))} / {figure(middle)} / {figure(max(values))}"


def sides(row: Row, claim: Claim) -> tuple[Series, Series] | None:
    """The two series whose ratio a claim is about; None where it is about something else."""
    for ours in row.series:
        for theirs in row.series:
            comparable = ours is not theirs and ours.unit == theirs.unit and len(ours.values) == len(claim.values)
            if not comparable or len(theirs.values) != len(ours.values) or 0 in theirs.values:
                continue
            pairs = zip(ratios(ours, theirs), claim.values, strict=True)
            if all(isclose(a, b, rel_tol=2e-3) for a, b in pairs):
                return ours, theirs
    return None


def verdict(claim: Claim) -> str:
    """Whether a claim is reached, or by how much it is missed."""
    if claim.holds:
        return "reached"
    missed = abs(claim.median / claim.limit - 1)
    return f"missed: {missed:.0%} {'short' if claim.bound is Bound.AT_LEAST else 'over'}"


def lines(row: Row) -> list[tuple[str, ...]]:
    """What the table says of a row, one line a claim."""
    if not row.claims:
        return [(str(row.number), _headed(row.title), *[NOTHING] * 4, "not measured" if not row.series else "no limit")]
    told: list[tuple[str, ...]] = []
    for claim in row.claims:
        pair = sides(row, claim)
        unit = f" {claim.unit}" if claim.unit else ""
        ours, theirs = (NOTHING, NOTHING) if pair is None else (f"{figure(side.median)} {side.unit}" for side in pair)
        told.append(
            (
                str(row.number),
                f"{_headed(row.title)}: {claim.text}",
                ours if claim.unit == "" else f"{figure(claim.median)}{unit}",
                theirs,
                spread(claim.values, claim.median) + (unit or " ×" * (pair is not None)),
                f"{'≥' if claim.bound is Bound.AT_LEAST else '≤'} {claim.limit:,g}{unit or ' ×' * (pair is not None)}",
                verdict(claim),
            )
        )
    return told


def plain(results: Sequence[Result]) -> str:
    """The same for a terminal: each row with what it claims, or why it was left out."""
    told = []
    for result in results:
        row = result.row
        told.append(f"{row.number}. {_headed(row.title)}")
        for claim, line in zip(row.claims, lines(row), strict=False):
            _, _, ours, theirs, middle, limit, result_told = line
            beside = f"{ours} beside {theirs}; " if theirs != NOTHING else ""
            told.append(f"   {claim.text}: {beside}{middle}; {limit}: {result_told}")
        if not row.series:
            told += [f"   {note}" for note in row.notes]
    return "\n".join(told)


def markdown(results: Sequence[Result], shown: Mapping[str, str]) -> str:
    """The page; `shown` are the file names of its pictures and what they show."""
    parts = [INTRODUCTION, "## Results\n", _table(HEAD, [line for result in results for line in lines(result.row)])]
    parts += [f"\n![{alt}]({name})" for name, alt in shown.items()]
    parts.append("\n## Each row\n")
    parts += [_detail(result) for result in results]
    parts.append(_measured_on(results))
    return "\n".join(parts)


def _headed(title: str) -> str:
    return title[:1].upper() + title[1:]


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _detail(result: Result) -> str:
    row, setting = result.row, result.setting
    runs = f"{setting.runs} {'run' if setting.runs == 1 else 'runs'}"
    busy = f", on a machine that others used as well (load {setting.load:.1f} a core)" if setting.load >= 0.5 else ""
    parts = [f"### {row.number}. {_headed(row.title)}\n", f"Measured on {setting.date}, {runs}{busy}.\n"]
    if setting.scale != "full":
        parts.append("This is the short form, whose figures say only that it works.\n")
    if row.series:
        body = [
            (series.name, series.unit, figure(min(series.values)), figure(series.median), figure(max(series.values)))
            for series in row.series
        ]
        parts.append(_table(("contender", "unit", "min", "median", "max"), body) + "\n")
    parts += [f"- {note}" for note in row.notes]
    if row.profile:
        parts.append("\n" + _profiled(row.profile))
    return "\n".join(parts) + "\n"


def _profiled(profile: Profile) -> str:
    """Where the time goes, in a sentence and a table that a reader may open."""
    told = f"Profile, in one more run: the GIL was held {profile.held:.0%} of the time.\n"
    if profile.threads:
        cpu = ", ".join(f"{name} {figure(spent)}" for name, spent in profile.threads)
        told += f"Threads stopped running {figure(profile.switches)} times a file. CPU in µs a file: {cpu}.\n"
    if profile.missing:
        return f"{told}\n{profile.missing}.\n"
    body = [
        (part.thread, part.module or NOTHING, part.library or NOTHING, f"{part.share:.1%}") for part in profile.parts
    ]
    table = _table(("thread", "module of tablefeed", "in", "share"), body)
    return f"{told}\n<details><summary>Who held the GIL, by py-spy</summary>\n\n{table}\n\n</details>\n"


def _measured_on(results: Sequence[Result]) -> str:
    parts = ["## Machines and versions\n"]
    kinds: dict[str, list[int]] = {}
    for result in results:
        facts = result.setting.machine | result.setting.versions
        words = ", ".join(f"{name} {value}" for name, value in facts.items())
        numbers = kinds.setdefault(words, [])
        if result.row.number not in numbers:
            numbers.append(result.row.number)
    parts += [f"- rows {', '.join(map(str, numbers))}: {words}" for words, numbers in kinds.items()]
    return "\n".join(parts) + "\n"
