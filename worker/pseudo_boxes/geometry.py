"""Which boxes can be objects at all: no specks, no lines, no object twice, no part of another. Boxes are xyxy pixels, half-open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torchvision.ops import batched_nms

from worker.data.dataset import Dataset
from worker.evaluation.prediction import Prediction
from worker.features.boxes import areas, shared_areas


@dataclass(frozen=True)
class Geometry:
    """`least_side` in pixels, `longest_aspect` longer over shorter side; `duplicate`: IoU with a surer box of its class.

    `nested`: share of the smaller box that lies within another of its class, of which the less sure one goes; None keeps both.
    """

    least_side: float = 2.0
    longest_aspect: float = 20.0
    duplicate: float = 0.6
    nested: float | None = None


@dataclass(frozen=True)
class Removed:
    """How many boxes went, and why; a box counts once, in this order."""

    slivers: int = 0
    duplicates: int = 0
    nested: int = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(
            self.slivers + other.slivers, self.duplicates + other.duplicates, self.nested + other.nested
        )

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def plausible(found: Prediction) -> Prediction:
    """Without duplicates, specks and lines; the surer of two duplicates stays."""
    return checked(found)[0]


def checked(found: Prediction, rules: Geometry = Geometry()) -> tuple[Prediction, Removed]:
    """The prediction without what cannot be an object, surest first, and what went."""
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    shortest = sides.min(axis=1, initial=np.inf)
    aspect = sides.max(axis=1, initial=0.0) / np.maximum(shortest, 1e-9)
    rows = np.flatnonzero((shortest >= rules.least_side) & (aspect <= rules.longest_aspect))
    boxes, scores, labels = (torch.as_tensor(x[rows]) for x in (found.boxes, found.scores, found.labels))
    once = rows[batched_nms(boxes.float(), scores.float(), labels, rules.duplicate).numpy()]
    left = once if rules.nested is None else _without_nested(found, once, rules.nested)
    removed = Removed(len(found.boxes) - len(rows), len(rows) - len(once), len(once) - len(left))
    return chosen(found, left), removed


def _without_nested(found: Prediction, rows: np.ndarray, share: float) -> np.ndarray:
    """Rows left of `rows`, which come by falling score."""
    kept: list[int] = []
    for row in rows.tolist():
        others = np.array([i for i in kept if found.labels[i] == found.labels[row]], dtype=np.int64)
        shared = shared_areas(found.boxes[row][None], found.boxes[others])
        smaller = np.minimum(areas(found.boxes[row]), areas(found.boxes[others]))
        if not bool((shared >= share * smaller).any()):
            kept.append(row)
    return np.array(kept, dtype=np.int64)


def above(found: Prediction, confidence: float) -> Prediction:
    """Those boxes whose score is at least `confidence`."""
    return chosen(found, found.scores >= confidence)


def chosen(found: Prediction, rows: np.ndarray) -> Prediction:
    """The boxes of these rows, indices or bool."""
    return Prediction(found.image_id, found.boxes[rows], found.scores[rows], found.labels[rows])


def within_labels(dataset: Dataset, found: Mapping[int, Prediction]) -> dict[int, Prediction]:
    """Without boxes of classes that the picture, by its image labels, does not have."""
    kept = {}
    for id, each in found.items():
        own = dataset.labels[dataset.annotation_image_ids == id]
        kept[id] = chosen(each, np.isin(each.labels, own))
    return kept
