"""A dataset in the categories of another one, to measure on it what learned from that."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from worker.data.dataset import Dataset


def restated(dataset: Dataset, categories: Sequence[str], image_ids: Collection[int]) -> Dataset:
    """These images of the dataset, as its test split, with the objects whose category has a name among `categories`.

    Objects of other categories are gone: nobody who learned `categories` could find them.
    """
    places = {name: label for label, name in enumerate(categories)}
    known = np.array([places.get(name, -1) for name in dataset.categories], np.int64)
    wanted = set(image_ids)
    labels = known[dataset.labels] if len(known) else dataset.labels
    rows = (labels >= 0) & np.isin(dataset.annotation_image_ids, list(wanted))
    return replace(
        dataset,
        categories=tuple(categories),
        images=tuple(replace(image, split="test") for image in dataset.images if image.id in wanted),
        annotation_ids=dataset.annotation_ids[rows],
        annotation_image_ids=dataset.annotation_image_ids[rows],
        labels=labels[rows],
        boxes=dataset.boxes[rows],
        iscrowd=dataset.iscrowd[rows],
        ignored=None if dataset.ignored is None else dataset.ignored[rows],
        scores=None if dataset.scores is None else dataset.scores[rows],
        segmentations=None
        if dataset.segmentations is None
        else tuple(dataset.segmentations[row] for row in np.flatnonzero(rows).tolist()),
    )


def content_of(dataset: Dataset) -> dict[int, str]:
    """SHA-256 of the pictures by image id, as they were when the dataset was read."""
    rows = json.loads((dataset.root / "annotations.json").read_text(encoding="utf-8"))["images"]
    return {row["id"]: row["sha256"] for row in rows}
