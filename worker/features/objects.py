"""The rows of a feature table: every usable object of the sampled images, ordered by annotation id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.data.dataset import Dataset, Image
from worker.features.errors import Unextractable


@dataclass(frozen=True)
class Objects:
    """N objects. Every candidate gets the same ones in the same order.

    annotation_ids, image_ids, labels: (N,) int64; boxes: (N, 4) float64 xyxy in pixels of the original image;
    normalised: (N, 4) float64, the same divided by the original width and height;
    rows: image id to the rows of its objects.
    """

    annotation_ids: np.ndarray
    image_ids: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    normalised: np.ndarray
    rows: dict[int, np.ndarray]

    def __len__(self) -> int:
        return len(self.annotation_ids)


def objects_of(dataset: Dataset, images: Sequence[Image]) -> Objects:
    """Objects of `images` that are no crowd, not to be ignored and have an area; raises Unextractable when there is none."""
    sizes = {image.id: (image.width, image.height) for image in images}
    widths, heights = dataset.boxes[:, 2] - dataset.boxes[:, 0], dataset.boxes[:, 3] - dataset.boxes[:, 1]
    sampled = np.isin(dataset.annotation_image_ids, np.fromiter(sizes, np.int64, len(sizes)))
    keep = np.flatnonzero(sampled & ~dataset.aside & (widths > 0) & (heights > 0))
    keep = keep[np.argsort(dataset.annotation_ids[keep], kind="stable")]
    if not len(keep):
        raise Unextractable(
            "no_objects",
            f"{len(images)} sampled images hold no usable box; choose another split or a dataset with boxes",
        )
    image_ids = dataset.annotation_image_ids[keep]
    boxes = dataset.boxes[keep].astype(np.float64)
    extent = np.array([sizes[image] * 2 for image in image_ids.tolist()], dtype=np.float64)
    by_image = np.argsort(image_ids, kind="stable")
    starts = np.flatnonzero(np.diff(image_ids[by_image], prepend=-1))
    rows = {int(image_ids[group[0]]): group for group in np.split(by_image, starts[1:])}
    return Objects(dataset.annotation_ids[keep], image_ids, dataset.labels[keep], boxes, boxes / extent, rows)
