"""What a pretraining shows of itself: regions beside what is found, and its curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from worker.data.drawing import Box, colour_of, draw_boxes
from worker.evaluation.prediction import Prediction

SIDE = 480
MOST_FOUND = 10
GAP = 12


def corners(box: np.ndarray) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(value) for value in box)
    return left, top, right, bottom


def beside_each_other(pixels: np.ndarray, regions: np.ndarray, found: Prediction, path: Path) -> Path:
    """Writes a png: the picture with the regions (n, 4) xyxy it is taught, and with its MOST_FOUND best boxes."""
    picture = PIL.Image.fromarray(pixels)
    best = np.argsort(-found.scores, kind="stable")[:MOST_FOUND]
    taught = [Box(corners(box), "", colour_of(index)) for index, box in enumerate(regions)]
    told = [Box(corners(found.boxes[i]), f"{found.scores[i]:.2f}", colour_of(0)) for i in best.tolist()]
    sides = [draw_boxes(picture, boxes, SIDE) for boxes in (taught, told)]
    width = sum(each.width for each in sides) + GAP
    canvas = PIL.Image.new("RGB", (width, sides[0].height), "white")
    canvas.paste(sides[0], (0, 0))
    canvas.paste(sides[1], (sides[0].width + GAP, 0))
    canvas.save(path)
    return path


def curves_plot(curves: Sequence[dict[str, Any]], start: dict[str, Any], path: Path) -> Path:
    """Writes a png: losses, and class-agnostic recall of the 10, 30 and 100 best boxes, by epoch."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    epochs = [point["epoch"] for point in curves]
    names = sorted({name for point in curves for name in point["losses"]})
    for name in names:
        left.plot(epochs, [point["losses"].get(name, np.nan) for point in curves], label=name)
    left.set(xlabel="epoch", ylabel="loss")
    if names:
        left.legend(fontsize=8)
    points = [(0.0, start)] + [(p["epoch"], p["val"]["recall"]) for p in curves if "val" in p]
    for kind, line in (("objects", "-"), ("proposals", ":")):
        told = [(epoch, recall[kind]) for epoch, recall in points if kind in recall]
        for k in sorted({k for _, recall in told for k in recall}, key=int):
            shares = [np.nan if recall[k] is None else recall[k] for _, recall in told]
            right.plot([epoch for epoch, _ in told], shares, line, label=f"{kind}, {k} boxes")
    right.set(xlabel="epoch", ylabel="recall at IoU 0.5", ylim=(0, 1))
    if points:
        right.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    return path
