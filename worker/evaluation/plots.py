"""Precision against recall, and a training's course, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from worker.evaluation.evaluate import RECALL, Evaluation

_MEAN, _STRICT, _INK, _PALE = "#3b6ea5", "#c58b2a", "#22303c", "#9db8d2"
_MOST_CLASSES = 8
_LONGEST_NAME = 28


def precision_recall(evaluation: Evaluation, path: Path, title: str | None = None) -> Path:
    """Mean precision over classes against recall at IoU .5 and .75 into a PNG at `path`; up to 8 classes' own at .5.

    Draws a sentence where nothing is defined.
    """
    figure = _figure(7.0, 4.6)
    axes = figure.add_subplot()
    if not evaluation.curves:
        _say(axes, "no object to be found: precision and recall are undefined")
        return _saved(figure, path, title)
    classes = [row for row in evaluation.per_class if row["category"] in evaluation.class_curves]
    if 1 < len(classes) <= _MOST_CLASSES:
        for row in classes:
            name = f"{_short(row['category'])}, AP50 {row['ap50']:.3f}"
            axes.plot(RECALL, evaluation.class_curves[row["category"]], linewidth=0.9, alpha=0.7, label=name)
    for iou, colour, key in (("0.50", _MEAN, "ap50"), ("0.75", _STRICT, "ap75")):
        label = f"IoU {iou}: AP {evaluation.box[key]:.3f}"
        axes.plot(RECALL, evaluation.curves[iou], color=colour, linewidth=2.4, label=label)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision, mean over classes")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.03)
    _tidy(axes)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _saved(figure, path, title)


def learning_curve(
    curves: Sequence[Mapping[str, Any]],
    path: Path,
    title: str | None = None,
    best: Mapping[str, Any] | None = None,
) -> Path:
    """A training's loss, and mAP on validation, against the iteration, into a PNG at `path`.

    `curves`: points with `iteration`, `loss` and, where it was evaluated, `val` with `map` and `ap50`; `best`: the
    `iteration` and `map` of the weights that were kept. Draws a sentence without points.
    """
    points = [point for point in curves if point.get("loss") is not None]
    evaluated = [point for point in curves if (point.get("val") or {}).get("map") is not None]
    figure = _figure(9.0, 3.8)
    left, right = figure.subplots(1, 2)
    if points:
        left.plot([p["iteration"] for p in points], [p["loss"] for p in points], color=_INK, linewidth=1.4)
        _axes(left, "training loss")
    else:
        _say(left, "no loss yet")
    if evaluated:
        steps = [p["iteration"] for p in evaluated]
        right.plot(
            steps,
            [p["val"]["map"] for p in evaluated],
            "o-",
            color=_MEAN,
            markersize=3.5,
            label="mAP@[.5:.95]",
        )
        if all(p["val"].get("ap50") is not None for p in evaluated):
            right.plot(
                steps, [p["val"]["ap50"] for p in evaluated], "o-", color=_PALE, markersize=3.5, label="AP50"
            )
        if best and best.get("map") is not None:
            label = f"kept: {best['map']:.3f}"
            right.plot([best["iteration"]], [best["map"]], "*", color=_STRICT, markersize=12, label=label)
        right.set_ylim(bottom=0)
        _axes(right, "on validation")
        right.legend(fontsize=8, frameon=False)
    else:
        _say(right, "not evaluated yet")
    return _saved(figure, path, title)


def _axes(axes: Axes, name: str) -> None:
    axes.set_xlabel("iteration")
    axes.set_ylabel(name)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _say(axes: Axes, sentence: str) -> None:
    axes.text(
        0.5, 0.5, sentence, ha="center", va="center", transform=axes.transAxes, fontsize=9, color="0.35"
    )
    axes.set_axis_off()


def _saved(figure: Figure, path: Path, title: str | None) -> Path:
    if title:
        figure.suptitle(_plain(title), fontsize=11, x=0.01, ha="left")
    figure.savefig(path, format="png", metadata={"Software": None})
    return path


def _short(name: str) -> str:
    return _plain(name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…")


def _plain(text: str) -> str:
    """The text without the dollar signs that would start a formula."""
    return text.replace("$", r"\$")
