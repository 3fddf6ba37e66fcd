"""Charts: bars, histograms and bubbles as SVG inside a page; serving has no matplotlib.

Every mark has a title that browsers show under the pointer.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape

from imgcls.eda.types import Rgb

COLOURS = {"train": "#3f6fb5", "val": "#e2a33b", "test": "#5aa469"}
"""Of the splits; they stay apart for people who see red and green alike."""
_WIDTH = 960
_LINE, _NAME = 24, 220
_NAME_CHARS = 30
_HEIGHT, _AXIS, _LEFT = 180, 24, 56


def number(value: float) -> str:
    """With four digits, or all of those before the point."""
    return f"{value:,.0f}" if 1_000 <= abs(value) < 1e9 else f"{value:.4g}"


def legend(series: Sequence[str]) -> str:
    """Which colour is which split."""
    marks = "".join(
        f'<span class=key><i style="background:{COLOURS[name]}"></i>{name}</span>'
        for name in series
    )
    return f"<div class=legend>{marks}</div>"


def bars(rows: Sequence[tuple[str, Mapping[str, int], Rgb | None]], what: str) -> str:
    """A bar for each name, a part for each split, and a square of its mean colour (R, G, B in
    0-1) before the name."""
    largest = max((sum(parts.values()) for _, parts, _ in rows), default=0) or 1
    room = _WIDTH - _NAME - 90
    marks = []
    for at, (name, parts, colour) in enumerate(rows):
        top, left = at * _LINE, float(_NAME)
        short = name if len(name) <= _NAME_CHARS else name[: _NAME_CHARS - 3] + "..."
        if colour is not None:
            fill = "#" + "".join(f"{round(255 * value):02x}" for value in colour)
            marks.append(f'<rect x="0" y="{top + 5}" width="14" height="14" rx="2" fill="{fill}"/>')
        marks.append(
            f'<text x="22" y="{top + 17}">{escape(short)}<title>{escape(name)}</title></text>'
        )
        for split, count in parts.items():
            width = room * count / largest
            marks.append(
                f'<rect x="{left:.1f}" y="{top + 3}" width="{width:.1f}" height="{_LINE - 6}" '
                f'fill="{COLOURS[split]}"><title>{escape(name)}, {split}: {count:,}</title></rect>'
            )
            left += width
        total = f"{sum(parts.values()):,}"
        marks.append(f'<text class=pale x="{left + 8:.1f}" y="{top + 17}">{total}</text>')
    return _svg(marks, _WIDTH, len(rows) * _LINE, what)


def histogram(
    edges: Sequence[float],
    counts: Mapping[str, Sequence[int]],
    what: str,
    *,
    width: int = _WIDTH,
    shown: Callable[[float], str] = number,
) -> str:
    """Bins between `edges` (one more than there are bins), all of them drawn equally wide, the
    splits on top of each other; `shown` writes an edge."""
    totals = [sum(part) for part in zip(*counts.values(), strict=True)]
    largest = max(totals, default=0) or 1
    step = (width - _LEFT) / max(1, len(totals))
    marks = [_tick(largest, 12, width), _tick(0, _HEIGHT, width)]
    for at in range(len(totals)):
        bottom = float(_HEIGHT)
        between = f"{shown(edges[at])} to {shown(edges[at + 1])}"
        for split, part in counts.items():
            height = (_HEIGHT - 12) * part[at] / largest
            bottom -= height
            marks.append(
                f'<rect x="{_LEFT + at * step + 1:.1f}" y="{bottom:.1f}" width="{step - 2:.1f}" '
                f'height="{height:.1f}" fill="{COLOURS[split]}">'
                f"<title>{between}, {split}: {part[at]:,}</title></rect>"
            )
    for at in {0, len(totals) // 4, len(totals) // 2, 3 * len(totals) // 4, len(totals)}:
        anchor = "start" if at == 0 else "end" if at == len(totals) else "middle"
        marks.append(
            f'<text class=pale x="{_LEFT + at * step:.1f}" y="{_HEIGHT + 17}" '
            f'text-anchor="{anchor}">{shown(edges[at])}</text>'
        )
    return _svg(marks, width, _HEIGHT + _AXIS, what)


def bubbles(points: Sequence[tuple[int, int, int]], what: str) -> str:
    """Widths and heights in pixels, each with a circle as large as its number of images."""
    side = max((max(point[:2]) for point in points), default=0) or 1
    most = max((point[2] for point in points), default=0) or 1
    height, width = 340, _LEFT + 350
    scale = (height - 30) / side
    marks = [
        f'<line x1="{_LEFT}" y1="{height}" x2="{_LEFT + height - 10}" y2="10" class=grid />',
        _tick(side, height - side * scale, width),
        _tick(0, height, width),
        f'<text class=pale x="{_LEFT + side * scale:.1f}" y="{height + 17}" '
        f'text-anchor="middle">{side:,} px wide</text>',
    ]
    for wide, high, count in points:
        radius = 3 + 13 * (count / most) ** 0.5
        marks.append(
            f'<circle cx="{_LEFT + wide * scale:.1f}" cy="{height - high * scale:.1f}" '
            f'r="{radius:.1f}"><title>{wide:,} x {high:,}: {count:,} images</title></circle>'
        )
    return _svg(marks, width, height + _AXIS, what)


def _tick(value: float, y: float, width: int) -> str:
    return (
        f'<text class=pale x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:,}</text>'
        f'<line class=grid x1="{_LEFT}" y1="{y:.1f}" x2="{width}" y2="{y:.1f}"/>'
    )


def _svg(marks: Sequence[str], width: int, height: int, what: str) -> str:
    return (
        f'<svg class=chart viewBox="0 0 {width} {height}" style="max-width:{width}px" role="img" '
        f'aria-label="{escape(what)}">{"".join(marks)}</svg>'
    )


STYLE = """
.chart { width: 100%; height: auto; font-size: 13px; }
.chart text { fill: #1d2330; } .chart .pale { fill: #525b6b; font-variant-numeric: tabular-nums; }
.chart .grid { stroke: #dde1e8; } .chart circle { fill: #3f6fb5; fill-opacity: .45; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; }
.charts h3 { font-size: .95rem; margin: 0 0 .2rem; }
.legend { margin: .2rem 0 .6rem; font-size: .85rem; color: #525b6b; }
.key { margin-right: 1rem; } .key i { display: inline-block; width: .8em; height: .8em;
  margin-right: .35em; border-radius: 2px; vertical-align: -.05em; }
"""
