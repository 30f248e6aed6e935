"""Which detection belongs to which object, by Pascal VOC's rule; its AP, CorLoc and the image scores read this one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.data.dataset import Dataset
from worker.evaluation.prediction import Prediction

IOU = 0.5
HIT, FALSE, IGNORED = 1, 0, -1


@dataclass(frozen=True, eq=False)
class Matches:
    """All detections by falling score, equal scores in the order of image ids, then as predicted.

    `image_ids`, `labels`, `scores`, `iou` (best with an object of its class in its image, 0 without one), `target` (that
    object's row in the dataset's columns, else -1), `outcome` (HIT, FALSE or IGNORED) and `source` (its place in its
    prediction), each (n,). `objects` (classes,): objects to be
    found, without crowds and what is to be ignored. `truth`: the rows of the dataset's columns that belong to the images.
    """

    image_ids: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    iou: np.ndarray
    target: np.ndarray
    outcome: np.ndarray
    source: np.ndarray
    objects: np.ndarray
    truth: np.ndarray


def match(dataset: Dataset, image_ids: Sequence[int], predictions: Sequence[Prediction]) -> Matches:
    """Pascal VOC's rule (VOCdevkit, VOCevaldet.m): a detection goes to the object of its class with the largest IoU.

    At IoU >= .5 the highest scored one of an object is a hit and the others are false; those on what is `difficult`
    are ignored, and so are those on a crowd. Areas are those of continuous
    corners: the devkit's one pixel more a side is in them, since VOC's xmin and ymin are read as xmin - 1, ymin - 1.
    """
    truth = np.flatnonzero(np.isin(dataset.annotation_image_ids, np.asarray(sorted(set(image_ids)))))
    by_image: dict[int, np.ndarray] = {}
    if len(truth):
        order = truth[np.argsort(dataset.annotation_image_ids[truth], kind="stable")]
        ids, starts = np.unique(dataset.annotation_image_ids[order], return_index=True)
        by_image = dict(zip(ids.tolist(), np.split(order, starts[1:]), strict=True))
    columns: list[tuple[np.ndarray, ...]] = []
    for found in sorted(predictions, key=lambda prediction: prediction.image_id):
        count = len(found.scores)
        rows = by_image.get(found.image_id, np.zeros(0, dtype=np.int64))
        best, target = _best(found, dataset, rows)
        columns.append(
            (
                np.full(count, found.image_id),
                np.asarray(found.labels, dtype=np.int64),
                np.asarray(found.scores, dtype=np.float64),
                best,
                target,
                np.arange(count),
            )
        )
    empty = (np.zeros(0, dtype=np.int64),) * 2 + (np.zeros(0),) * 2 + (np.zeros(0, dtype=np.int64),) * 2
    joined = [np.concatenate(parts) for parts in zip(*columns, strict=True)] if columns else list(empty)
    ranked = np.argsort(-joined[2], kind="stable")
    images, labels, scores, iou, target, source = (column[ranked] for column in joined)
    plain = truth[~dataset.aside[truth]]
    return Matches(
        images,
        labels,
        scores,
        iou,
        target,
        _outcome(iou, target, dataset),
        source,
        np.bincount(dataset.labels[plain], minlength=len(dataset.categories)),
        truth,
    )


def _best(found: Prediction, dataset: Dataset, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest IoU (n,) with an object of the same class among `rows`, and that object's row (n,); 0 and -1 without."""
    count = len(found.scores)
    if not count or not len(rows):
        return np.zeros(count), np.full(count, -1, dtype=np.int64)
    boxes, truth = np.asarray(found.boxes, dtype=np.float64), dataset.boxes[rows]
    overlaps = pairwise_iou(boxes, truth)
    overlaps[np.asarray(found.labels)[:, None] != dataset.labels[rows][None]] = -1.0
    nearest = overlaps.argmax(axis=1)
    best = overlaps[np.arange(count), nearest]
    return np.maximum(best, 0.0), np.where(best >= 0, rows[nearest], -1)


def pairwise_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) IoU of xyxy boxes (n, 4) and (m, 4); 0 where both are empty."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0.0, None).prod(axis=2)
    areas = (
        np.clip(a[:, 2:] - a[:, :2], 0.0, None).prod(axis=1),
        np.clip(b[:, 2:] - b[:, :2], 0.0, None).prod(axis=1),
    )
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _outcome(iou: np.ndarray, target: np.ndarray, dataset: Dataset) -> np.ndarray:
    outcome = np.full(len(iou), FALSE, dtype=np.int64)
    near = np.flatnonzero((iou >= IOU) & (target >= 0))
    aside = dataset.aside[target[near]]
    outcome[near[aside]] = IGNORED
    own = near[~aside]
    _, first = np.unique(target[own], return_index=True)
    outcome[own[first]] = HIT
    return outcome
