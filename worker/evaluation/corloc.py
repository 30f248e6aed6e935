"""CorLoc: in how many images of a class its best box lies on an object of it (Deselaers et al., IJCV 100, 2012)."""

from __future__ import annotations

import numpy as np

from worker.data.dataset import Dataset
from worker.evaluation.matching import IOU, Matches


def correct_localisation(dataset: Dataset, matches: Matches) -> list[tuple[float | None, int]]:
    """For each class the share of its images whose top-scoring box of the class has IoU >= .5 with an object, and how many they are.

    An image of a class holds at least one object of it, crowds included; one without a box of the class is a miss.
    None for a class without images. IoU is of continuous corners, see `match`.
    """
    image_ids, labels = dataset.annotation_image_ids[matches.truth], dataset.labels[matches.truth]
    found: list[tuple[float | None, int]] = []
    for label in range(len(dataset.categories)):
        images = np.unique(image_ids[labels == label])
        own = matches.labels == label
        # Matches run by falling score: the first of an image is its best.
        seen, first = np.unique(matches.image_ids[own], return_index=True)
        right = seen[matches.iou[own][first] >= IOU]
        hits = len(np.intersect1d(right, images))
        found.append((hits / len(images) if len(images) else None, len(images)))
    return found
