"""Bars with whiskers as SVG, readable on light and dark pages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.sax.saxutils import escape

WIDTH = 890
_LEFT, _RIGHT, _TOP, _LINE, _HEADING, _BOTTOM = 310, 220, 64, 30, 34, 44
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 17px; font-weight: 600; }
  .faint { fill: #59636e; }
  .page { fill: #ffffff; }
  .grid { stroke: #d1d9e0; }
  .one { stroke: #59636e; stroke-width: 1.5; }
  .good { fill: #2f6fc4; }
  .bad { fill: #c4682f; }
  .whisker { stroke: #1f2328; stroke-width: 1.5; }
  .limit { stroke: #1f2328; stroke-width: 3; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .faint { fill: #9198a1; }
    .page { fill: #0d1117; }
    .grid { stroke: #30363d; }
    .one { stroke: #9198a1; }
    .good { fill: #5b9bf0; }
    .bad { fill: #e58b52; }
    .whisker, .limit { stroke: #e6edf3; }
  }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of a chart."""

    label: str
    low: float
    middle: float
    high: float
    told: str
    """What stands at its end."""
    good: bool = True
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Bars under a heading."""

    heading: str
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class Axis:
    """How values become places."""

    ticks: Sequence[float]
    origin: float
    """Where bars begin."""
    place: Callable[[float], float]
    """From a value to its part of the width, 0 to 1."""


def logarithmic(values: Sequence[float]) -> Axis:
    """For ratios: from whole power of ten to whole power of ten; bars begin at 1."""
    first, last = floor(log10(min(*values, 0.99))), ceil(log10(max(*values, 1.01)))
    steps = range(first, last + 1)
    ticks = [10.0**n for n in steps] if len(steps) > 3 else [m * 10.0**n for n in steps[:-1] for m in (1, 2, 5)]
    return Axis(ticks, 1.0, lambda value: (log10(value) - first) / (last - first))


def linear(values: Sequence[float]) -> Axis:
    """For quantities: from 0 to a round number."""
    highest = max(values)
    grain = 10.0 ** floor(log10(highest))
    step = next(grain * m for m in (0.2, 0.5, 1, 2) if highest / (grain * m) <= 6)
    count = ceil(highest / step)
    return Axis([step * n for n in range(count + 1)], 0.0, lambda value: value / (step * count))


def chart(title: str, subtitle: str, groups: Sequence[Group], axis: Axis) -> str:
    """The whole picture."""
    height = _TOP + sum(_HEADING + _LINE * len(group.bars) for group in groups) + _BOTTOM
    bottom = height - _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="6"/>',
        _text(20, 28, title, "title"),
        _text(20, 50, subtitle, "faint"),
    ]
    for tick in axis.ticks:
        x = _x(axis, tick)
        kind = "one" if tick == axis.origin else "grid"
        parts.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP + 8}" y2="{bottom}"/>')
        parts.append(_text(x, bottom + 20, f"{tick:,g}", "faint", "middle"))
    y = _TOP
    for group in groups:
        parts.append(_text(20, y + 23, group.heading, "faint"))
        y += _HEADING
        for bar in group.bars:
            parts += _bar(bar, axis, y)
            y += _LINE
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(axis: Axis, value: float) -> float:
    return _LEFT + axis.place(value) * (WIDTH - _LEFT - _RIGHT)


def _bar(bar: Bar, axis: Axis, y: int) -> list[str]:
    low, middle, high, origin = (_x(axis, value) for value in (bar.low, bar.middle, bar.high, axis.origin))
    centre = y + _LINE // 2
    kind, width = "good" if bar.good else "bad", max(abs(middle - origin), 1)
    parts = [
        _text(_LEFT - 12, centre + 4, bar.label, "", "end"),
        f'<rect class="{kind}" x="{min(origin, middle):.1f}" y="{y + 6}" width="{width:.1f}" height="{_LINE - 12}"/>',
        f'<path class="whisker" fill="none" d="M{low:.1f} {centre - 5}v10m0 -5H{high:.1f}m0 -5v10"/>',
        _text(WIDTH - _RIGHT + 14, centre + 4, bar.told, ""),
    ]
    if bar.limit is not None:
        x = _x(axis, bar.limit)
        parts.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{y + 2}" y2="{y + _LINE - 2}"/>')
    return parts


def _text(x: float, y: float, content: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'
