"""Charts as SVG made here: bars, points, lines. Colours come from the style sheet by class, so both themes have theirs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Scale:
    """Values of [low, high] onto pixels of [start, stop]."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.start + share * (self.stop - self.start), 1)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values within [low, high], at most `most` + 1: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(step * n, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_text(value: float) -> str:
    return f"{value:g}".replace("-", "−")


MOST_BAR = 96  # of one bar alone, a whole width would look like a mistake


def bars(names: Sequence[str], counts: Sequence[float], label: str) -> Markup:
    """Upright bars with a name below and the count above each: a histogram. `label` is read to who cannot see it."""
    if not counts:
        return Markup()
    width, height, floor = max(320, 64 * len(counts)), 190, 150
    most = max(counts) or 1
    step = min(MOST_BAR, (width - 10) / len(counts))
    out = [_open(width, height, label)]
    for n, (name, value) in enumerate(zip(names, counts, strict=True)):
        x, tall = 5 + n * step, 120 * value / most
        middle = round(x + step / 2, 1)
        out.append(
            f'<rect class="bar" x="{x + 3:.1f}" y="{floor - tall:.1f}" width="{step - 6:.1f}" height="{tall:.1f}" rx="2"/>'
            f'<text class="tick" x="{middle}" y="{floor - tall - 5:.1f}" text-anchor="middle">{value:,.0f}</text>'
            f'<text class="tick" x="{middle}" y="{floor + 16}" text-anchor="middle">{escape(name)}</text>'
        )
    return Markup("".join(out) + "</svg>")


def histogram(found: dict[str, Any], label: str) -> Markup:
    """The summary's {edges, counts}; empty ends are left out, and the last bin has no upper edge."""
    counts, edges = found["counts"], found["edges"]
    filled = [n for n, value in enumerate(counts) if value]
    if not filled:
        return Markup()
    span = range(filled[0], filled[-1] + 1)
    names = [f"{edges[n]}–{edges[n + 1]}" if n + 1 < len(edges) else f"≥ {edges[n]}" for n in span]
    return bars(names, [counts[n] for n in span], label)


def across(rows: Sequence[tuple[str, float]], label: str) -> Markup:
    """Bars that lie, the name left of each: classes with their counts."""
    most = max((value for _, value in rows), default=0) or 1
    out = [_open(560, 24 * len(rows) + 4, label)]
    for n, (name, value) in enumerate(rows):
        y = 24 * n + 4
        short = name if len(name) <= 24 else name[:23] + "…"
        wide = 320 * value / most
        out.append(
            f'<text class="tick" x="172" y="{y + 14}" text-anchor="end"><title>{escape(name)}</title>{escape(short)}</text>'
            f'<rect class="bar" x="180" y="{y + 2}" width="{wide:.1f}" height="16" rx="2"/>'
            f'<text class="tick" x="{186 + wide:.1f}" y="{y + 14}">{value:,.0f}</text>'
        )
    return Markup("".join(out) + "</svg>")


def interval_bar(low: float, value: float, high: float, least: float, most: float) -> Markup:
    """A score with its interval on the common scale of a column; decoration beside the number."""
    at = Scale(least, most, 4, 116)
    return Markup(
        '<svg class="interval" viewBox="0 0 120 12" width="120" height="12" aria-hidden="true">'
        f'<line class="reach" x1="{at(low)}" x2="{at(high)}" y1="6" y2="6"/>'
        f'<circle class="dot" cx="{at(value)}" cy="6" r="3.5"/></svg>'
    )


@dataclass(frozen=True)
class Point:
    """A candidate in the plane. low and high: the interval of y, or None."""

    name: str
    mark: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those that no other point beats at a smaller or equal x, from left to right."""
    best, kept = -math.inf, []
    for point in sorted(points, key=lambda one: (one.x, -one.y)):
        if point.y > best:
            best = point.y
            kept.append(point)
    return kept


def scatter(points: Sequence[Point], x_title: str, y_title: str, label: str) -> Markup:
    """Points with their intervals, and the frontier as a line: what nothing cheaper beats."""
    if not points:
        return Markup()
    width, height, left, right, top, floor = 640, 345, 64, 16, 14, 290
    lows = [point.low if point.low is not None else point.y for point in points]
    highs = [point.high if point.high is not None else point.y for point in points]
    spread = (max(highs) - min(lows)) or abs(max(highs)) or 1.0
    x = Scale(0, max(point.x for point in points) * 1.08 or 1, left, width - right)
    y = Scale(min(lows) - 0.06 * spread, max(highs) + 0.06 * spread, floor, top)
    out = [_open(width, height, label, "plot"), _axes(x, y, x_title, y_title)]
    edge = frontier(points)
    steps = [f"M{x(edge[0].x)} {y(edge[0].y)}"]
    steps += [f"H{x(point.x)}V{y(point.y)}" for point in edge[1:]]
    out.append(f'<path class="frontier" d="{"".join(steps)}H{width - right}"/>')
    best = set(edge)
    marked: list[tuple[float, float]] = []
    for point in points:
        at = (x(point.x) + 8, y(point.y) - 6)
        if any(abs(at[0] - other[0]) < 22 and abs(at[1] - other[1]) < 13 for other in marked):
            at = (at[0], at[1] + 22)  # below the point, where the mark of another is above it
        marked.append(at)
        kind = "dot best" if point in best else "dot"
        if point.low is not None and point.high is not None:
            out.append(
                f'<line class="reach" x1="{x(point.x)}" x2="{x(point.x)}" y1="{y(point.low)}" y2="{y(point.high)}"/>'
            )
        out.append(
            f"<g><title>{escape(point.name)}: {point.x:.1f}, {point.y:.3g}</title>"
            f'<circle class="{kind}" cx="{x(point.x)}" cy="{y(point.y)}" r="5"/>'
            f'<text class="mark" x="{at[0]:.1f}" y="{at[1]:.1f}">{escape(point.mark)}</text></g>'
        )
    return Markup("".join(out) + "</svg>")


def lines(series: Sequence[tuple[str, Sequence[tuple[float, float]]]], x_title: str, y_title: str) -> Markup:
    """Curves over one x, their names beside them; those without a point are left out."""
    drawn = [(name, points) for name, points in series if points]
    if not drawn:
        return Markup()
    width, height, left, right, top, floor = 640, 300, 64, 90, 14, 250
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    x = Scale(min(xs), max(xs), left, width - right)
    pad = 0.06 * ((max(ys) - min(ys)) or abs(max(ys)) or 1.0)
    y = Scale(min(ys) - pad, max(ys) + pad, floor, top)
    said = f"{y_title} over {x_title}: {', '.join(name for name, _ in drawn)}"
    out = [_open(width, height, said, "plot")]
    out.append(_axes(x, y, x_title, y_title))
    for n, (name, points) in enumerate(drawn):
        path = " ".join(f"{x(px)},{y(py)}" for px, py in points)
        last = points[-1]
        out.append(
            f'<polyline class="curve c{n % 4}" points="{path}"/>'
            f'<circle class="dot c{n % 4}" cx="{x(last[0])}" cy="{y(last[1])}" r="3.5"/>'
            f'<circle class="dot c{n % 4}" cx="{width - right + 12}" cy="{top + 10 + 18 * n}" r="3.5"/>'
            f'<text class="mark" x="{width - right + 20}" y="{top + 14 + 18 * n}">{escape(name)}</text>'
        )
    return Markup("".join(out) + "</svg>")


def _axes(x: Scale, y: Scale, x_title: str, y_title: str) -> str:
    out = []
    for value in ticks(y.low, y.high):
        out.append(
            f'<line class="grid" x1="{x.start}" x2="{x.stop}" y1="{y(value)}" y2="{y(value)}"/>'
            f'<text class="tick" x="{x.start - 7}" y="{y(value) + 4}" text-anchor="end">{tick_text(value)}</text>'
        )
    for value in ticks(x.low, x.high):
        out.append(
            f'<text class="tick" x="{x(value)}" y="{y.start + 18}" text-anchor="middle">{tick_text(value)}</text>'
        )
    middle, half = (x.start + x.stop) / 2, (y.start + y.stop) / 2
    out.append(
        f'<line class="axis" x1="{x.start}" x2="{x.stop}" y1="{y.start}" y2="{y.start}"/>'
        f'<text class="title" x="{middle:.0f}" y="{y.start + 44}" text-anchor="middle">{escape(x_title)}</text>'
        f'<text class="title" x="14" y="{half:.0f}" text-anchor="middle" transform="rotate(-90 14 {half:.0f})">{escape(y_title)}</text>'
    )
    return "".join(out)


def _open(width: float, height: float, label: str, kind: str = "") -> str:
    """`kind`: `plot` has room for larger letters where the window is narrow."""
    return (
        f'<svg class="{f"chart {kind}".strip()}" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'role="img" aria-label="{escape(label)}" xmlns="http://www.w3.org/2000/svg">'
    )
