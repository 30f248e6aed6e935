"""The best and the worst predictions beside the truth, as pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageDraw

from worker.data.dataset import Dataset, Image
from worker.data.drawing import Box, draw_boxes, font, short
from worker.data.pictures import read_upright
from worker.evaluation.matching import HIT, IGNORED, Matches, match
from worker.evaluation.per_image import ImageScore, best_and_worst, best_threshold, image_scores
from worker.evaluation.prediction import Prediction, check

SIDE = 480  # pixels, longer side of each half
GAP = 8
STRIP = 26
PAPER, INK = (246, 246, 244), (34, 48, 60)
RIGHT, WRONG, CROWD = (40, 110, 220), (225, 30, 30), (150, 150, 150)


@dataclass(frozen=True)
class Shown:
    """One image's predictions beside its truth. `kind`: `best` or `worst`; `png`: the picture's bytes."""

    kind: str
    image_id: int
    f1: float
    hits: int
    false: int
    missed: int
    threshold: float | None
    png: bytes


def show_best_and_worst(
    dataset: Dataset,
    image_ids: Sequence[int],
    predictions: Sequence[Prediction],
    *,
    count: int = 4,
    side: int = SIDE,
) -> list[Shown]:
    """At most `count` images with the highest and as many with the lowest F1 at IoU .5, the best first.

    Detections count and are drawn from the score on at which F1 over all the images is best. Truth is left, detections
    are right; what was found is blue, what was missed or is false is red and says so. Empty without any object or detection.

    Raises Unevaluable as `evaluate` does, BadPicture for a file that has gone bad.
    """
    check(dataset, image_ids, predictions, masks=False)
    matches = match(dataset, image_ids, predictions)
    threshold = best_threshold(matches)
    best, worst = best_and_worst(image_scores(dataset, image_ids, matches, threshold), count)
    images = {image.id: image for image in dataset.images}
    found = {prediction.image_id: prediction for prediction in predictions}
    return [
        _shown(
            kind, dataset, images[score.image_id], found.get(score.image_id), matches, threshold, score, side
        )
        for kind, scores in (("best", best), ("worst", worst))
        for score in scores
    ]


def _shown(
    kind: str,
    dataset: Dataset,
    image: Image,
    prediction: Prediction | None,
    matches: Matches,
    threshold: float | None,
    score: ImageScore,
    side: int,
) -> Shown:
    rows = np.flatnonzero(
        (matches.image_ids == image.id) & (matches.scores >= (np.inf if threshold is None else threshold))
    )
    hit = set(matches.target[rows[matches.outcome[rows] == HIT]].tolist())
    picture = read_upright(image.path)
    left = draw_boxes(picture, _truth(dataset, image, hit), side)
    right = draw_boxes(picture, _detections(dataset, prediction, matches, rows), side)
    above = "nothing found" if threshold is None else f"found, score from {threshold:.2f}"
    counts = f"{score.hits} right, {score.false} false, {score.missed} missed"
    sheet = _beside(left, "truth", right, above, f"{counts}, F1 {score.f1:.2f}")
    stream = io.BytesIO()
    sheet.save(stream, "PNG", compress_level=6)
    return Shown(
        kind,
        image.id,
        float(score.f1 or 0.0),
        score.hits,
        score.false,
        score.missed,
        threshold,
        stream.getvalue(),
    )


def _truth(dataset: Dataset, image: Image, hit: set[int]) -> list[Box]:
    boxes = []
    for row in np.flatnonzero(dataset.annotation_image_ids == image.id).tolist():
        label = int(dataset.labels[row])
        name, colour = short(dataset.categories[label]), RIGHT
        if dataset.aside[row]:
            name, colour = f"{name} ({'group' if dataset.iscrowd[row] else 'ignored'})", CROWD
        elif row not in hit:
            name, colour = f"{name} (missed)", WRONG
        boxes.append(Box(tuple(dataset.boxes[row].tolist()), name, colour))
    return boxes


def _detections(
    dataset: Dataset, prediction: Prediction | None, matches: Matches, rows: np.ndarray
) -> list[Box]:
    boxes: list[Box] = []
    if prediction is None:
        return boxes
    for row in rows.tolist():
        label, outcome = int(matches.labels[row]), int(matches.outcome[row])
        x1, y1, x2, y2 = map(float, prediction.boxes[matches.source[row]])
        text = f"{short(dataset.categories[label])} {matches.scores[row]:.2f}"
        colour = RIGHT
        if outcome == IGNORED:
            colour = CROWD
        elif outcome != HIT:
            text, colour = f"{text} (false)", WRONG
        boxes.append(Box((x1, y1, x2, y2), text, colour))
    return boxes


def _beside(
    left: PIL.Image.Image, above_left: str, right: PIL.Image.Image, above_right: str, below: str
) -> PIL.Image.Image:
    width = max(left.width, 240)
    sheet = PIL.Image.new("RGB", (2 * width + 3 * GAP, left.height + 2 * STRIP + GAP), PAPER)
    draw = PIL.ImageDraw.Draw(sheet)
    for place, (half, text) in enumerate(((left, above_left), (right, above_right))):
        x = GAP + place * (width + GAP)
        sheet.paste(half, (x, STRIP))
        draw.text((x, 5), text, fill=INK, font=font(14))
    draw.text((GAP, STRIP + left.height + 5), below, fill=INK, font=font(14))
    return sheet
