"""Lines over the number of nodes as SVG, both axes logarithmic, readable on light and dark pages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log10
from xml.sax.saxutils import escape

from bench.plot import WIDTH

_HEIGHT, _TOP, _BOTTOM, _LEFT, _BETWEEN, _PANEL = 430, 134, 372, 88, 88, 340
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 17px; font-weight: 600; }
  .faint { fill: #59636e; }
  .page { fill: #ffffff; }
  .grid { stroke: #d1d9e0; }
  .full { stroke: #1f2328; stroke-width: 1.5; }
  .line { fill: none; stroke-width: 2.2; }
  .l0 { stroke: #2f6fc4; } .l1 { stroke: #c4682f; }
  .l2 { stroke: #2a8c5f; } .l3 { stroke: #9a4fb0; } .l4 { stroke: #59636e; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .faint { fill: #9198a1; }
    .page { fill: #0d1117; }
    .grid { stroke: #30363d; }
    .full { stroke: #e6edf3; }
    .l0 { stroke: #5b9bf0; } .l1 { stroke: #e58b52; }
    .l2 { stroke: #4fc08d; } .l3 { stroke: #c98bdc; } .l4 { stroke: #9198a1; }
  }
"""
_DASHES = ("", "8 4", "2 3", "10 3 2 3", "5 5")


@dataclass(frozen=True, slots=True)
class Line:
    """One series: nodes and values above 0."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes. `low` and `high` are the powers of ten between which values are shown."""

    heading: str
    lines: Sequence[Line]
    low: int
    high: int
    label: Callable[[float], str]
    full: float | None = None
    """Where a limit is full."""


def picture(title: str, panels: Sequence[Panel]) -> str:
    """Panels beside each other."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{_HEIGHT}" rx="6"/>',
        _text(20, 28, title, "title"),
    ]
    for index, panel in enumerate(panels):
        parts += _panel(panel, _LEFT + index * (_PANEL + _BETWEEN))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, left: int) -> list[str]:
    nodes = [x for line in panel.lines for x, _ in line.points]
    last = log10(max(nodes)) or 1.0

    def across(x: float) -> float:
        return left + log10(x) / last * _PANEL

    def up(y: float) -> float:
        part = (log10(y) - panel.low) / (panel.high - panel.low)
        return _BOTTOM - min(max(part, 0.0), 1.0) * (_BOTTOM - _TOP)

    parts = [_text(left - 68, 56, panel.heading, "")]
    for power in range(panel.low, panel.high + 1):
        y = up(10.0**power)
        parts.append(f'<line class="grid" x1="{left}" x2="{left + _PANEL}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left - 8, y + 4, panel.label(10.0**power), "faint", "end"))
    for power in range(round(last) + 1):
        parts.append(_text(across(10.0**power), _BOTTOM + 20, f"{10**power:,}", "faint", "middle"))
    parts.append(_text(left + _PANEL / 2, _BOTTOM + 42, "nodes", "faint", "middle"))
    if panel.full is not None:
        y = up(panel.full)
        parts.append(f'<line class="full" x1="{left}" x2="{left + _PANEL}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for index, line in enumerate(panel.lines):
        dash = f' stroke-dasharray="{_DASHES[index]}"' if _DASHES[index] else ""
        places = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line.points)
        x, y = left - 68 + index // 3 * 190, 78 + index % 3 * 18
        parts.append(f'<polyline class="line l{index}"{dash} points="{places}"/>')
        parts.append(f'<polyline class="line l{index}"{dash} points="{x},{y} {x + 34},{y}"/>')
        parts.append(_text(x + 42, y + 4, line.name, ""))
    return parts


def _text(x: float, y: float, content: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'
