"""The scores of a ranking as a bar chart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from worker.ranking.records import GAIN, Ordering, Row

_BAR = "#3b6ea5"
_NEAR = "#9db8d2"
_LIMITS = "#22303c"
_ZERO = "#b5462f"
_LONGEST_NAME = 40


def bar_chart(ordering: Ordering, path: Path, title: str | None = None) -> Path:
    """Draws one bar per ordered candidate, best on top, into a PNG at `path` and returns it.

    Lines are intervals over images; candidates that cannot be told apart from another are paler. Gains begin at zero, which is
    the same architecture with its initial weights. Values have no zero that means anything, so their bars start a little below
    the lowest, and a small mark stands where that architecture does. Draws a sentence where nothing is ordered.
    """
    rows = ordering.rows
    figure = Figure(figsize=(9.0, 1.6 + 0.42 * max(len(rows), 2)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if not rows:
        axes.text(
            0.5, 0.5, "no candidate could be ordered", ha="center", va="center", transform=axes.transAxes
        )
        axes.set_axis_off()
    else:
        gains = ordering.quantity == GAIN
        values = [getattr(row, ordering.quantity) for row in rows]
        intervals = [row.gain_interval if gains else row.interval for row in rows]
        limits = [interval or (value, value) for interval, value in zip(intervals, values, strict=True)]
        zeros = {
            place: row.zero_point
            for place, row in enumerate(rows)
            if row.zero_point is not None and not gains
        }
        lowest = min([low for low, _ in limits] + list(zeros.values()) + [0.0] * gains)
        highest = max([high for _, high in limits] + list(zeros.values()) + [0.0] * gains)
        spread = (highest - lowest) or max(abs(values[0]), 1.0)
        left, right = lowest - (0.05 if gains else 0.15) * spread, highest + 0.55 * spread
        foot = 0.0 if gains else left
        places = list(range(len(rows)))
        colours = [_NEAR if row.near else _BAR for row in rows]
        axes.barh(places, [value - foot for value in values], left=foot, color=colours, height=0.68)
        axes.errorbar(
            values,
            places,
            xerr=_errors(values, intervals),
            fmt="none",
            ecolor=_LIMITS,
            elinewidth=1.2,
            capsize=3,
        )
        axes.plot(list(zeros.values()), list(zeros), linestyle="none", marker="D", markersize=4, color=_ZERO)
        axes.set_yticks(places, [f"{row.rank}  {_short(row.name)}" for row in rows])
        axes.invert_yaxis()
        axes.set_xlim(left, right)
        for place, row, value, (_, high) in zip(places, rows, values, limits, strict=True):
            axes.annotate(
                _label(value, row),
                (max(high, zeros.get(place, high), foot), place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        of = "gain of " if gains else ""
        axes.set_xlabel(f"{of}{ordering.metric} at {ordering.layer} ({ordering.level}), higher is better")
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)
        key = [
            *(["lines: 95 % over images"] if any(intervals) else []),
            *(["pale: cannot be told apart"] if ordering.ties else []),
            *(["marks: untrained"] if zeros else []),
            *(["0: untrained"] if gains else []),
        ]
        if key:
            axes.text(
                1.0,
                1.01,
                "; ".join(key),
                transform=axes.transAxes,
                ha="right",
                fontsize=8,
                color="0.35",
            )
    if title:
        axes.set_title(plain(title), loc="left", fontsize=12)
    figure.savefig(path, format="png", metadata={"Software": None})
    return path


def _errors(values: Sequence[float], intervals: Sequence[tuple[float, float] | None]) -> np.ndarray:
    """(2, rows) distance of the limits from the value; NaN, which is not drawn, without an interval."""
    pairs = zip(values, intervals, strict=True)
    return np.array([[value - of[0], of[1] - value] if of else [np.nan] * 2 for value, of in pairs]).T


def _label(value: float, row: Row) -> str:
    """What the bar shows, z and the chance of being best, as far as they are known."""
    parts = [f"{value:.4g}"]
    parts += [f"z {row.z:.3g}"] if row.z is not None else []
    parts += (
        [f"highest: {row.score_chance_of_highest:.0%}"] if row.score_chance_of_highest is not None else []
    )
    return ", ".join(parts)


def _short(name: str) -> str:
    return plain(name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…")


def plain(text: str) -> str:
    """The text without the dollar signs that would start a formula."""
    return text.replace("$", r"\$")
