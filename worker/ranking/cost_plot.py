"""Accuracy against milliseconds: which candidates nothing faster beats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from worker.ranking.plots import plain
from worker.ranking.records import GAIN, Candidate, Ordering

_POINT, _BEST, _REACH = "#9db8d2", "#3b6ea5", "#22303c"
_LONGEST_NAME = 28

# (milliseconds, accuracy, low, high, name)
Point = tuple[float, float, float | None, float | None, str]


def cost_chart(
    ordering: Ordering,
    candidates: Sequence[Candidate],
    predicted: Mapping[str, tuple[float, float, float]],
    path: Path,
    title: str | None = None,
) -> Path | None:
    """Draws the predicted mAP (mean, low, high) of each ordered candidate, or where one has none the score that orders
    them, against the milliseconds that finding the objects of a picture takes, into a PNG at `path`.

    A line joins those that no faster one beats. None, and no file, where fewer than two have both.
    """
    found, maps = points(ordering, candidates, predicted)
    if len(found) < 2:
        return None
    edge = frontier(found)
    figure = Figure(figsize=(9.0, 5.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    right = 1.12 * max(point[0] for point in found)
    axes.step(
        [*(point[0] for point in edge), right],
        [*(point[1] for point in edge), edge[-1][1]],
        where="post",
        color=_BEST,
        linestyle="--",
        linewidth=1.2,
    )
    for ms, value, low, high, name in found:
        if low is not None and high is not None:
            axes.plot([ms, ms], [low, high], color=_REACH, linewidth=0.9, alpha=0.6)
        axes.plot([ms], [value], "o", color=_BEST if (ms, value, low, high, name) in edge else _POINT)
        axes.annotate(plain(_short(name)), (ms, value), (6, 5), textcoords="offset points", fontsize=8)
    axes.set_xlim(0, right)
    axes.set_xlabel("milliseconds a picture, on the line: nothing faster is better")
    of = "gain of " if ordering.quantity == GAIN else ""
    axes.set_ylabel("predicted mAP" if maps else f"{of}{ordering.metric} at {ordering.layer}")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if title:
        axes.set_title(plain(title), loc="left", fontsize=12)
    figure.savefig(path, format="png", metadata={"Software": None})
    return path


def points(
    ordering: Ordering,
    candidates: Sequence[Candidate],
    predicted: Mapping[str, tuple[float, float, float]],
) -> tuple[list[Point], bool]:
    """Of the ordered candidates whose milliseconds are known; true: by predicted mAP, which all of them have then."""
    by_id = {each.id: each for each in candidates}
    ms = milliseconds([by_id[row.id] for row in ordering.rows])
    placed = [row for row in ordering.rows if row.id in ms]
    maps = bool(placed) and all(row.id in predicted for row in placed)
    found: list[Point] = []
    for row in placed:
        gains = ordering.quantity == GAIN
        interval = row.gain_interval if gains else row.interval
        value = row.gain if gains and row.gain is not None else row.value
        low, high = interval or (None, None)
        if maps:
            value, low, high = predicted[row.id]
        found.append((ms[row.id], value, low, high, f"{row.rank}  {row.name}"))
    return found, maps


def milliseconds(candidates: Sequence[Candidate]) -> dict[str, float]:
    """By id: of finding the objects of a picture, or where that is not known of all of them of reading one."""
    whole = {each.id: each.inference_ms for each in candidates if each.inference_ms is not None}
    if len(whole) == len(candidates):
        return whole
    return {each.id: each.ms_per_image for each in candidates if each.ms_per_image is not None}


def frontier(found: Sequence[Point]) -> list[Point]:
    """Those that no other beats at as many milliseconds or fewer, the fastest first."""
    best, kept = -math.inf, []
    for point in sorted(found, key=lambda one: (one[0], -one[1])):
        if point[1] > best:
            best = point[1]
            kept.append(point)
    return kept


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
