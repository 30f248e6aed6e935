"""What a training learns from: images with their objects, as given by explicit lists of ids."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from worker.data.dataset import Dataset, Image
from worker.data.masks import rle_of
from worker.training.errors import Untrainable
from worker.training.randomness import VALIDATION, stream

LEAST_SIDE = 1.0
VALIDATION_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Example:
    """`boxes` (n, 4) float32 xyxy in pixels, `labels` (n,) int64 from 0; `masks` n RLEs of COCO, None where unknown."""

    image: Image
    boxes: np.ndarray
    labels: np.ndarray
    masks: tuple[dict, ...] | None = None


def examples_of(
    dataset: Dataset, image_ids: Sequence[int], annotation_ids: Sequence[int] | None, *, masks: bool
) -> tuple[list[Example], int]:
    """The images in the order of `image_ids`, and how many boxes were left out for a side below one pixel.

    Crowds and what is to be ignored are no objects to learn from; an image may have none. Raises Untrainable `bad_plan` for unknown ids.
    """
    by_id = {image.id: image for image in dataset.images}
    if unknown := [i for i in image_ids if i not in by_id]:
        raise Untrainable("bad_plan", f"the dataset has no images {unknown[:5]}: choose ids from it")
    wanted = ~dataset.aside & np.isin(dataset.annotation_image_ids, list(image_ids))
    if annotation_ids is not None:
        wanted &= np.isin(dataset.annotation_ids, list(annotation_ids))
    sides = np.minimum(dataset.boxes[:, 2] - dataset.boxes[:, 0], dataset.boxes[:, 3] - dataset.boxes[:, 1])
    usable = wanted & (sides >= LEAST_SIDE)
    rows = np.flatnonzero(usable)
    # Grouped once: a scan of all annotations for each image would be quadratic.
    segmentations = dataset.segmentations if masks else None
    order = rows[np.argsort(dataset.annotation_image_ids[rows], kind="stable")]
    owners = dataset.annotation_image_ids[order]
    examples = []
    for image_id in image_ids:
        first, last = np.searchsorted(owners, [image_id, image_id + 1])
        own = order[first:last]
        image = by_id[image_id]
        examples.append(
            Example(
                image,
                dataset.boxes[own].astype(np.float32),
                dataset.labels[own],
                tuple(rle_of(segmentations[row], image.height, image.width) for row in own.tolist())
                if segmentations is not None
                else None,
            )
        )
    return examples, int(wanted.sum() - usable.sum())


def with_validation(
    train_ids: Sequence[int], val_ids: Collection[int], seed: int
) -> tuple[list[int], list[int], str | None]:
    """Train and validation ids, and a sentence where validation had to be taken from train (a seeded tenth)."""
    if val_ids:
        return list(train_ids), list(val_ids), None
    if len(train_ids) < 2:
        raise Untrainable(
            "too_few_images",
            "the dataset has no validation split and a single training image: one more is needed to choose the best "
            "epoch by",
        )
    ordered = sorted(train_ids)
    count = max(1, round(VALIDATION_SHARE * len(ordered)))
    chosen = stream(seed, VALIDATION).permutation(len(ordered))[:count]
    held = {ordered[i] for i in chosen.tolist()}
    return (
        [i for i in train_ids if i not in held],
        sorted(held),
        f"no validation split: {count} of the {len(ordered)} training images (drawn with seed {seed}) are used for "
        "validation and not trained on",
    )
