"""The scores of a ranking as a bar chart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from worker.ranking.records import Ordering, Row

_BAR = "#3b6ea5"
_NEAR = "#9db8d2"
_LIMITS = "#22303c"
_ZERO = "#b5462f"
_LONGEST_NAME = 40


def bar_chart(ordering: Ordering, path: Path, title: str | None = None) -> Path:
    """Draws one bar per ordered candidate, best on top, into a PNG at `path` and returns it.

    Lines are intervals over images; candidates that cannot be told apart from another are paler; a small mark stands where
    the same architecture with its initial weights does. Scores have no zero that means anything, so bars start a little
    below the lowest value. Draws a sentence where nothing is ordered.
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
        values = [row.value for row in rows]
        limits = [row.interval or (row.value, row.value) for row in rows]
        zeros = {place: row.zero_point for place, row in enumerate(rows) if row.zero_point is not None}
        lowest = min([low for low, _ in limits] + list(zeros.values()))
        highest = max([high for _, high in limits] + list(zeros.values()))
        spread = (highest - lowest) or max(abs(values[0]), 1.0)
        left, right = lowest - 0.15 * spread, highest + 0.55 * spread
        places = list(range(len(rows)))
        colours = [_NEAR if row.near else _BAR for row in rows]
        axes.barh(places, [value - left for value in values], left=left, color=colours, height=0.68)
        axes.errorbar(
            values,
            places,
            xerr=_errors(rows),
            fmt="none",
            ecolor=_LIMITS,
            elinewidth=1.2,
            capsize=3,
        )
        axes.plot(
            list(zeros.values()), list(zeros), linestyle="none", marker="D", markersize=4, color=_ZERO
        )
        axes.set_yticks(places, [f"{row.rank}  {_short(row.name)}" for row in rows])
        axes.invert_yaxis()
        axes.set_xlim(left, right)
        for place, row, (_, high) in zip(places, rows, limits, strict=True):
            axes.annotate(
                _label(row),
                (max(high, zeros.get(place, high)), place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        axes.set_xlabel(f"{ordering.metric} at {ordering.layer} ({ordering.level}), higher is better")
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)
        key = [
            *(["lines: 95 % over images"] if any(row.interval for row in rows) else []),
            *(["pale: cannot be told apart"] if ordering.ties else []),
            *(["marks: untrained"] if zeros else []),
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
        axes.set_title(_plain(title), loc="left", fontsize=12)
    figure.savefig(path, format="png", metadata={"Software": None})
    return path


def _errors(rows: Sequence[Row]) -> np.ndarray:
    """(2, rows) distance of the limits from the value; NaN, which is not drawn, without an interval."""
    return np.array(
        [
            [row.value - row.interval[0], row.interval[1] - row.value] if row.interval else [np.nan] * 2
            for row in rows
        ]
    ).T


def _label(row: Row) -> str:
    """The value, z and the chance of being best, as far as they are known."""
    parts = [f"{row.value:.4g}"]
    parts += [f"z {row.z:.3g}"] if row.z is not None else []
    parts += [f"best: {row.chance_of_best:.0%}"] if row.chance_of_best is not None else []
    return ", ".join(parts)


def _short(name: str) -> str:
    return _plain(name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…")


def _plain(text: str) -> str:
    """The text without the dollar signs that would start a formula."""
    return text.replace("$", r"\$")
