"""Pictures with pseudo boxes and their scores, beside the true boxes where these are known, and a plot of the scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from worker.data.drawing import Box, colour_of, draw_boxes, short
from worker.evaluation.prediction import Prediction

SIDE = 480
GAP = 12
HEAT = 0.75  # what covers the picture where attention is highest


def beside_truth(
    pixels: np.ndarray,
    said: Prediction,
    categories: Sequence[str],
    truth: tuple[np.ndarray, np.ndarray] | None,
    path: Path,
) -> Path:
    """Writes a png: the picture with pseudo boxes, class and score; with `truth`, boxes (n, 4) and labels (n,), again with these."""
    picture = PIL.Image.fromarray(pixels)
    boxes = [
        Box(_corners(box), f"{short(categories[label])} {score:.2f}", colour_of(label))
        for box, label, score in zip(said.boxes, said.labels.tolist(), said.scores.tolist(), strict=True)
    ]
    sides = [draw_boxes(picture, boxes, SIDE)]
    if truth is not None:
        true = [
            Box(_corners(box), short(categories[label]), colour_of(label))
            for box, label in zip(truth[0], truth[1].tolist(), strict=True)
        ]
        sides.append(draw_boxes(picture, true, SIDE))
    width = sum(each.width for each in sides) + GAP * (len(sides) - 1)
    canvas = PIL.Image.new("RGB", (width, sides[0].height), "white")
    left = 0
    for each in sides:
        canvas.paste(each, (left, 0))
        left += each.width + GAP
    canvas.save(path)
    return path


def regions_on(pixels: np.ndarray, boxes: np.ndarray, path: Path) -> Path:
    """Writes a png: the picture with regions (n, 4) xyxy in pixels."""
    drawn = [Box(_corners(box), "", colour_of(index)) for index, box in enumerate(boxes)]
    draw_boxes(PIL.Image.fromarray(pixels), drawn, SIDE).save(path)
    return path


def attention_on(
    pixels: np.ndarray, attention: np.ndarray, path: Path, box: tuple[np.ndarray, str] | None = None
) -> Path:
    """Writes a png: the picture, redder where `attention` (h, w), which covers it, is higher; with `box`, its corners and a text."""
    heat = attention.astype(np.float64) - attention.min()
    heat = heat / heat.max() if heat.max() > 0 else heat
    height, width = pixels.shape[:2]
    large = PIL.Image.fromarray((heat * 255).astype(np.uint8)).resize(
        (width, height), PIL.Image.Resampling.BILINEAR
    )
    share = np.asarray(large, np.float64)[..., None] / 255 * HEAT
    grey = pixels.mean(axis=2, keepdims=True).repeat(3, axis=2)
    mixed = grey * (1 - share) + np.array([255.0, 40.0, 0.0]) * share
    drawn = [] if box is None else [Box(_corners(box[0]), box[1], colour_of(0))]
    draw_boxes(PIL.Image.fromarray(mixed.round().astype(np.uint8)), drawn, SIDE).save(path)
    return path


def calibration_plot(calibration: dict[str, Any], path: Path) -> Path:
    """Writes a png: of boxes of a score the share that is right, and how many there are."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], ":", color="grey", label="as the score says")
    bins = calibration["bins"]
    axes.plot([each["score"] for each in bins], [each["right"] for each in bins], "o-", label="found")
    for each in bins:
        axes.annotate(
            f"{each['boxes']}", (each["score"], each["right"]), xytext=(4, 4), textcoords="offset points"
        )
    axes.set(xlabel="score", ylabel="share of the boxes that is right (IoU 0.5)", xlim=(0, 1), ylim=(0, 1.05))
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=110)
    return path


def _corners(box: np.ndarray) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(value) for value in box)
    return left, top, right, bottom
