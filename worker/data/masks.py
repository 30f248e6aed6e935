"""Object masks: run lengths as COCO writes them, from the canonical form and to arrays.

A run-length mask is {"size": [height, width], "counts": bytes}, column by column, background first
(github.com/cocodataset/cocoapi, common/maskApi.h).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import mask as coco_masks

from worker.data.dataset import Dataset, Image
from worker.data.run_lengths import run_lengths


def encode(masks: np.ndarray) -> list[dict[str, Any]]:
    """Run-length masks of (n, h, w) bool or uint8."""
    stacked = np.asfortranarray(np.moveaxis(np.asarray(masks).astype(np.uint8), 0, -1))
    return [_plain(rle) for rle in coco_masks.encode(stacked)] if stacked.shape[-1] else []


def decode(rles: Sequence[Mapping[str, Any]], height: int, width: int) -> np.ndarray:
    """(n, h, w) uint8, 0 or 1, of run-length masks of that size."""
    if not rles:
        return np.zeros((0, height, width), dtype=np.uint8)
    return np.ascontiguousarray(np.moveaxis(coco_masks.decode([dict(rle) for rle in rles]), -1, 0))


def area(rle: Mapping[str, Any]) -> int:
    """Pixels in the mask."""
    return int(coco_masks.area([dict(rle)])[0])


def rle_of(segmentation: list | Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    """A segmentation of the canonical form, polygons or run lengths, as one run-length mask.

    Raises ValueError when the run lengths do not fit the picture.
    """
    if isinstance(segmentation, list):
        # Corners far outside would cost work in proportion to their distance, and change nothing inside.
        limits = np.array([[-width, 2 * width], [-height, 2 * height]], dtype=np.float64)
        polygons = [
            np.clip(np.reshape(polygon, (-1, 2)), limits[:, 0], limits[:, 1]).ravel().tolist()
            for polygon in segmentation
        ]
        return _plain(coco_masks.merge(coco_masks.frPyObjects(polygons, height, width)))
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(
            f"a mask of {segmentation['size']} in a picture of {[height, width]} (height, width)"
        )
    runs = run_lengths(segmentation["counts"], height * width)
    return _plain(coco_masks.frPyObjects({"size": [height, width], "counts": runs}, height, width))


def rles_of(dataset: Dataset, image: Image) -> list[dict[str, Any]]:
    """The run-length masks of an image's annotations, in the order of `dataset.annotation_ids`.

    A crowd that has no mask gets its box. Raises ValueError where the dataset has no masks.
    """
    if dataset.segmentations is None:
        raise ValueError(
            f"the dataset has {dataset.supervision}, no masks: a mask branch cannot learn from it"
        )
    found = []
    for row in np.flatnonzero(dataset.annotation_image_ids == image.id).tolist():
        segmentation = dataset.segmentations[row]
        if segmentation is None:
            x1, y1, x2, y2 = dataset.boxes[row].tolist()
            segmentation = [[x1, y1, x2, y1, x2, y2, x1, y2]]
        found.append(rle_of(segmentation, image.height, image.width))
    return found


def _plain(rle: Mapping[str, Any]) -> dict[str, Any]:
    counts = rle["counts"]
    return {
        "size": [int(side) for side in rle["size"]],
        "counts": counts.encode() if isinstance(counts, str) else bytes(counts),
    }
