"""Truth and detections of single images as JSON, the worst image first: what a page draws with a threshold of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from worker.data.dataset import Dataset, Image
from worker.evaluation.matching import FALSE, HIT, IGNORED, Matches, match
from worker.evaluation.per_image import ImageScore, best_threshold, image_scores
from worker.evaluation.prediction import Prediction, check

MOST = 100  # detections of an image
LEAST_SCORE = 0.05
OUTCOMES = {HIT: "hit", FALSE: "false", IGNORED: "ignored"}


def boxes_of_images(
    dataset: Dataset, image_ids: Sequence[int], predictions: Sequence[Prediction]
) -> dict[str, Any]:
    """{threshold, categories, images}: each image with its true boxes and at most MOST detections, highest score first.

    Images are ordered by F1 at IoU .5 and `threshold` (the score at which F1 over all of them is best, None without
    detections), the lowest first, among equals those with more errors; those where nothing was to be found or said come last.
    Detections below LEAST_SCORE, or below the threshold where that is lower, are left out. A detection is a `hit` of
    `objects[object]`, `false`, or `ignored` (on a crowd or on what is to be ignored); that holds at every threshold, since
    an object belongs to the highest scored detection on it. Boxes are xyxy in pixels of the upright picture.

    Raises Unevaluable as `evaluate` does.
    """
    check(dataset, image_ids, predictions, masks=False)
    matches = match(dataset, image_ids, predictions)
    threshold = best_threshold(matches)
    scores = {one.image_id: one for one in image_scores(dataset, image_ids, matches, threshold)}
    found = {prediction.image_id: prediction for prediction in predictions}
    least = LEAST_SCORE if threshold is None else min(LEAST_SCORE, threshold)
    images = [
        _image(dataset, image, scores[image.id], found.get(image.id), matches, least)
        for image in sorted(
            (image for image in dataset.images if image.id in scores), key=lambda one: _worst(scores[one.id])
        )
    ]
    return {"threshold": threshold, "categories": list(dataset.categories), "images": images}


def _worst(score: ImageScore) -> tuple[bool, float, int, int]:
    return score.f1 is None, score.f1 or 0.0, -(score.false + score.missed), score.image_id


def _image(
    dataset: Dataset,
    image: Image,
    score: ImageScore,
    prediction: Prediction | None,
    matches: Matches,
    least: float,
) -> dict[str, Any]:
    truth = np.flatnonzero(dataset.annotation_image_ids == image.id).tolist()
    place = {row: n for n, row in enumerate(truth)}
    rows = np.flatnonzero((matches.image_ids == image.id) & (matches.scores >= least))[:MOST].tolist()
    return {
        "image_id": image.id,
        "file_name": image.path.name,
        "width": image.width,
        "height": image.height,
        "split": image.split,
        "f1": score.f1,
        "hits": score.hits,
        "false": score.false,
        "missed": score.missed,
        "objects": [
            {
                "box": _pixels(dataset.boxes[row]),
                "category": int(dataset.labels[row]),
                "ignored": bool(dataset.aside[row]),
            }
            for row in truth
        ],
        "detections": [_detection(prediction, matches, row, place) for row in rows if prediction is not None],
    }


def _detection(prediction: Prediction, matches: Matches, row: int, place: dict[int, int]) -> dict[str, Any]:
    outcome = int(matches.outcome[row])
    return {
        "box": _pixels(prediction.boxes[matches.source[row]]),
        "category": int(matches.labels[row]),
        "score": round(float(matches.scores[row]), 4),
        "outcome": OUTCOMES[outcome],
        "object": place[int(matches.target[row])] if outcome == HIT else None,
    }


def _pixels(box: np.ndarray) -> list[float]:
    return [round(float(side), 1) for side in box]
