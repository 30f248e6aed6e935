"""The pictures of a study, as PNG files: scores against mAP, heat maps, and averages with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from worker.studies.measures.correlation import Coefficient

_METRIC, _BASELINE, _CEILING, _INK = "#3b6ea5", "#c58b2a", "#5a8f5a", "#22303c"
_LONGEST_NAME, _LONGEST_SCORE = 34, 60
_COLUMNS = 3
_SYMBOLS = {"pearson": "r", "spearman": "r_s", "kendall": "tau", "weighted_tau": "tau_w"}


@dataclass(frozen=True)
class Panel:
    """Candidates of one dataset: names, scores and mAP of equal length; measures: coefficients for its legend."""

    title: str
    names: tuple[str, ...]
    scores: tuple[float, ...]
    maps: tuple[float, ...]
    measures: dict[str, Coefficient]


@dataclass(frozen=True)
class Bar:
    """kind: metric, baseline or ceiling."""

    name: str
    coefficient: Coefficient
    kind: str


def scatter(panels: Sequence[Panel], path: Path, title: str, score: str) -> Path:
    """Score against mAP, one panel per dataset, points labelled, coefficients in each legend."""
    columns = min(_COLUMNS, max(len(panels), 1))
    rows = max(1, -(-len(panels) // columns))
    figure = _figure(4.4 * columns, 3.6 * rows + 0.5) if columns > 1 else _figure(9.5, 6.5)
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        if len(panel.scores) == 0:
            _say(axes, f"{_short(panel.title)}: no candidate has a value")
            continue
        axes.plot(panel.scores, panel.maps, "o", color=_METRIC, markersize=5, label=_legend(panel.measures))
        _name_points(axes, panel)
        axes.margins(x=0.18, y=0.15)
        axes.set_xlabel(_plain(score), fontsize=8)
        axes.set_ylabel("mAP", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.legend(
            title=_short(panel.title),
            alignment="left",
            fontsize=7,
            title_fontsize=8.5,
            handlelength=0,
            handletextpad=0,
            markerscale=0,
            frameon=False,
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.01),
            borderaxespad=0,
        )
    return _saved(figure, path, title)


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray,
    path: Path,
    title: str,
    *,
    split_after: int | None = None,
) -> Path:
    """Values in -1..1 of (rows, columns); NaN is shown as a dash, never as a colour. A line after `split_after` columns."""
    figure = _figure(3.6 + 0.85 * len(columns), 1.6 + 0.3 * max(len(rows), 2))
    axes = figure.add_subplot()
    if not len(rows) or not len(columns):
        _say(axes, "nothing to show")
        return _saved(figure, path, title)
    axes.set_facecolor("#eef0f2")
    image = axes.imshow(np.ma.masked_invalid(values), cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        known = np.isfinite(value)
        colour = "white" if known and abs(value) > 0.6 else _INK
        axes.text(
            column,
            row,
            f"{value:.2f}" if known else "–",
            ha="center",
            va="center",
            fontsize=7.5,
            color=colour,
        )
    axes.set_xticks(range(len(columns)), [_short(c) for c in columns], rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), [_short(r, _LONGEST_SCORE) for r in rows], fontsize=8)
    if split_after is not None:
        axes.axvline(split_after - 0.5, color="white", linewidth=4)
    figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02).ax.tick_params(labelsize=7)
    return _saved(figure, path, title)


def bars(found: Sequence[Bar], path: Path, title: str, axis: str) -> Path:
    """Coefficients with their intervals, in the order given; those without a value say so. `axis`: what they are."""
    figure = _figure(9.0, 1.5 + 0.3 * max(len(found), 2))
    axes = figure.add_subplot()
    colours = {"metric": _METRIC, "baseline": _BASELINE, "ceiling": _CEILING}
    for place, bar in enumerate(found):
        each = bar.coefficient
        if each.value is None:
            axes.text(
                0.01,
                place,
                f" undefined: {_plain(each.undefined or '')}",
                va="center",
                fontsize=7,
                color="0.4",
            )
            continue
        axes.barh(place, each.value, color=colours[bar.kind], height=0.66)
        if each.low is not None and each.high is not None:
            axes.plot([each.low, each.high], [place, place], color=_INK, linewidth=1.2)
        axes.annotate(
            f"{each.value:.2f} (n={each.n})",
            (max(each.value, each.high or each.value, 0), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
        )
    axes.set_yticks(range(len(found)), [_short(bar.name, _LONGEST_SCORE) for bar in found], fontsize=8)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.axvline(0, color=_INK, linewidth=0.8)
    lowest = min([0.0, *(b.coefficient.low or b.coefficient.value or 0 for b in found)])
    axes.set_xlim(lowest - 0.08, 1.25)
    axes.set_xlabel(_plain(axis), fontsize=8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return _saved(figure, path, title)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _saved(figure: Figure, path: Path, title: str) -> Path:
    figure.suptitle(_plain(title), fontsize=11, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", metadata={"Software": None})
    return path


def _name_points(axes: Axes, panel: Panel) -> None:
    """Labels towards the middle of the panel, so that none leaves it."""
    middle = (min(panel.scores) + max(panel.scores)) / 2
    for name, score, each in zip(panel.names, panel.scores, panel.maps, strict=True):
        right = score <= middle
        axes.annotate(
            _short(name),
            (score, each),
            xytext=(5 if right else -5, 3),
            textcoords="offset points",
            fontsize=6.5,
            ha="left" if right else "right",
            color=_INK,
        )


def _legend(measures: dict[str, Coefficient]) -> str:
    known = [
        f"{_SYMBOLS[name]} = {each.value:.2f}"
        for name, each in measures.items()
        if name in _SYMBOLS and each.value is not None
    ]
    n = next((each.n for each in measures.values()), 0)
    return ", ".join([*known, f"n = {n}"])


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
    axes.set_axis_off()


def _short(name: str, longest: int = _LONGEST_NAME) -> str:
    return _plain(name if len(name) <= longest else name[: longest - 1] + "…")


def _plain(text: str) -> str:
    """The text without the dollar signs that would start a formula."""
    return text.replace("$", r"\$")
