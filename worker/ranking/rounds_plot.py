"""The course of a search: every candidate's mAP from round to round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_BEST, _OTHER, _INK = "#c58b2a", "#3b6ea5", "#22303c"
_LONGEST_NAME = 32
_NAMED = 12


def rounds_plot(course: Mapping[str, Sequence[tuple[int, float]]], path: Path, title: str) -> Path:
    """Draws (iterations, validation mAP) of each candidate as a line into a PNG at `path`, the best, which is last, on top."""
    figure = Figure(figsize=(8.5, 4.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, (name, points) in enumerate(course.items(), 1):
        best = place == len(course)
        colour = _BEST if best else _OTHER
        axes.plot(
            *zip(*points, strict=True),
            marker="o",
            markersize=4,
            linewidth=2.4 if best else 1.1,
            color=colour,
            alpha=1.0 if best else 0.65,
        )
        if best or len(course) - place < _NAMED:
            axes.annotate(
                name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…",
                points[-1],
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=colour,
            )
    stops = sorted({iterations for points in course.values() for iterations, _ in points})
    if stops[-1] >= 4 * stops[0]:
        axes.set_xscale("log")
        axes.set_xticks(stops, [str(stop) for stop in stops])
        axes.minorticks_off()
    axes.margins(x=0.25)
    axes.set_xlabel("iterations")
    axes.set_ylabel("mAP@[.5:.95] on validation")
    axes.set_title(title.replace("$", r"\$"), fontsize=11, color=_INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    return path
