"""Seeded random truth and predictions: crowds, empty images, equal scores, masks, classes without objects."""

from pathlib import Path

import numpy as np

from worker.data.dataset import Dataset, Image
from worker.data.masks import encode
from worker.evaluation.prediction import Prediction

CLASSES = ("ant", "bee", "cat", "never")


def blob(rng: np.random.Generator, box: np.ndarray, height: int, width: int) -> np.ndarray:
    """An ellipse in the box with a few pixels flipped."""
    y, x = np.mgrid[:height, :width]
    centre, half = (box[:2] + box[2:]) / 2, np.maximum((box[2:] - box[:2]) / 2, 1)
    inside = ((x - centre[0]) / half[0]) ** 2 + ((y - centre[1]) / half[1]) ** 2 <= 1
    return inside ^ (rng.random((height, width)) < 0.01)


def boxes(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    sides = np.exp(rng.uniform(np.log(4), np.log(150), size=(count, 2)))
    low = rng.random((count, 2)) * (width, height)
    return np.stack([low[:, 0], low[:, 1], low[:, 0] + sides[:, 0], low[:, 1] + sides[:, 1]], axis=1)


def scenes(seed: int, images: int = 12, masks: bool = False) -> tuple[Dataset, list[Prediction]]:
    rng = np.random.default_rng(seed)
    pictures, rows, predictions = [], [], []
    for image_id in range(1, images + 1):
        height, width = (int(side) for side in rng.integers(120, 260, size=2))
        pictures.append(Image(image_id, Path(f"{image_id}.png"), width, height, "val"))
        count = 0 if image_id % 5 == 0 else int(rng.integers(1, 7))
        truth = boxes(rng, count, height, width)
        labels = rng.integers(0, 3, size=count)
        for box, label in zip(truth, labels, strict=True):
            mask = encode(blob(rng, box, height, width)[None])[0] if masks else None
            rows.append((image_id, int(label), box, bool(rng.random() < 0.15), mask))
        near = (
            truth[rng.integers(0, count, size=2 * count)] + rng.normal(0, 4, size=(2 * count, 4))
            if count
            else truth
        )
        own = rng.integers(0, count, size=0) if not count else rng.integers(0, 3, size=2 * count)
        found = np.concatenate([near, boxes(rng, 3, height, width)])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        given = np.concatenate([own, rng.integers(0, 4, size=3)])
        given[: len(near) // 2] = rng.choice(labels, size=len(near) // 2) if count else []
        scores = np.round(rng.random(len(found)), 1)
        if image_id % 4 == 0:
            continue
        shapes = encode(np.stack([blob(rng, box, height, width) for box in found])) if masks else None
        predictions.append(Prediction(image_id, found, scores, given, shapes))
    return dataset_of(pictures, rows, masks), predictions


def dataset_of(pictures, rows, masks: bool = False, categories: tuple[str, ...] = CLASSES) -> Dataset:
    return Dataset(
        root=Path("nowhere"),
        categories=categories,
        supervision="masks" if masks else "boxes",
        images=tuple(pictures),
        annotation_ids=np.arange(1, len(rows) + 1),
        annotation_image_ids=np.array([r[0] for r in rows], dtype=np.int64),
        labels=np.array([r[1] for r in rows], dtype=np.int64),
        boxes=np.array([r[2] for r in rows]).reshape(-1, 4),
        iscrowd=np.array([r[3] for r in rows], dtype=bool),
        digest="",
        segmentations=tuple(r[4] for r in rows) if masks else None,
    )
