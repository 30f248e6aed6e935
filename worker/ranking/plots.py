"""The scores of a ranking as a bar chart."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from worker.ranking.records import Ordering

_BAR = "#3b6ea5"
_NEAR = "#9db8d2"
_LONGEST_NAME = 40


def bar_chart(ordering: Ordering, path: Path, title: str | None = None) -> Path:
    """Draws one bar per ordered candidate, best on top, into a PNG at `path` and returns it.

    Candidates too close to tell apart from another are paler. Scores have no zero that means anything, so
    bars start a little below the lowest value. Draws a sentence where nothing is ordered.
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
        spread = (max(values) - min(values)) or max(abs(values[0]), 1.0)
        left, right = min(values) - 0.15 * spread, max(values) + 0.18 * spread
        places = list(range(len(rows)))
        colours = [_NEAR if row.near else _BAR for row in rows]
        axes.barh(places, [value - left for value in values], left=left, color=colours, height=0.68)
        axes.set_yticks(places, [f"{row.rank}  {_short(row.name)}" for row in rows])
        axes.invert_yaxis()
        axes.set_xlim(left, right)
        for place, value in zip(places, values, strict=True):
            axes.annotate(
                f"{value:.4g}",
                (value, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        axes.set_xlabel(f"{ordering.metric} at {ordering.layer} ({ordering.level}), higher is better")
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)
        if ordering.ties:
            axes.text(
                1.0,
                1.01,
                "pale: too close to tell apart",
                transform=axes.transAxes,
                ha="right",
                fontsize=8,
                color="0.35",
            )
    if title:
        axes.set_title(_plain(title), loc="left", fontsize=12)
    figure.savefig(path, format="png", metadata={"Software": None})
    return path


def _short(name: str) -> str:
    return _plain(name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…")


def _plain(text: str) -> str:
    """The text without the dollar signs that would start a formula."""
    return text.replace("$", r"\$")
