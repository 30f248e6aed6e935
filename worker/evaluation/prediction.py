"""What a detector found in one image, and the check before it is compared with the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.data.dataset import Dataset, Image
from worker.data.masks import encode
from worker.evaluation.errors import Unevaluable

MASK_THRESHOLD = 0.5  # of the pasted mask's probability, as torchvision's and detectron2's evaluation


@dataclass(frozen=True, eq=False)
class Prediction:
    """One image's detections, in any order.

    `boxes` float (n, 4) xyxy in pixels of the upright image, `scores` float (n,), `labels` int (n,) from 0, `masks`
    run-length masks of the image's size (masks.encode), one for each box, or None.
    """

    image_id: int
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: Sequence[Mapping[str, Any]] | None = None


def prediction_of(image_id: int, output: Mapping[str, Any]) -> Prediction:
    """From one entry of `Detector.predictions`: tensors `boxes`, `scores`, `labels` and perhaps `masks` (n, 1, h, w)."""
    masks = output.get("masks")
    return Prediction(
        image_id,
        output["boxes"].detach().cpu().double().numpy(),
        output["scores"].detach().cpu().double().numpy(),
        output["labels"].detach().cpu().long().numpy(),
        None if masks is None else encode((masks[:, 0] > MASK_THRESHOLD).cpu().numpy()),
    )


def check(
    dataset: Dataset, image_ids: Sequence[int], predictions: Sequence[Prediction], *, masks: bool
) -> None:
    """Raises Unevaluable when the predictions are not about these images of this dataset, or not numbers."""
    if not dataset.has_boxes:
        raise Unevaluable(
            "no_boxes",
            f"the dataset has {dataset.supervision}, no boxes to compare with: evaluate on a dataset with boxes",
        )
    if masks and dataset.segmentations is None:
        raise Unevaluable("no_masks", "the dataset has boxes without masks: evaluate without masks")
    known = {image.id: image for image in dataset.images}
    if strangers := sorted(set(image_ids) - set(known)):
        raise Unevaluable(
            "unknown_image", f"{len(strangers)} of the images are not in the dataset: {strangers[:5]}"
        )
    asked, seen = set(image_ids), set()
    for found in predictions:
        if found.image_id not in asked:
            raise Unevaluable("unknown_image", f"image {found.image_id} has predictions and is not evaluated")
        if found.image_id in seen:
            raise Unevaluable("repeated_image", f"image {found.image_id} has predictions twice")
        seen.add(found.image_id)
        _check_one(found, len(dataset.categories))
        if masks:
            _check_masks(found, known[found.image_id])


def _check_one(found: Prediction, classes: int) -> None:
    boxes, scores, labels = (np.asarray(x) for x in (found.boxes, found.scores, found.labels))
    where = f"image {found.image_id}"
    count = len(scores)
    if boxes.shape != (count, 4) or scores.shape != (count,) or labels.shape != (count,):
        raise Unevaluable(
            "bad_shape",
            f"{where}: boxes (n, 4), scores (n,), labels (n,) are wanted, found {boxes.shape}, {scores.shape}, {labels.shape}",
        )
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise Unevaluable(
            "not_finite",
            f"{where}: boxes or scores are not finite; the detector has diverged, lower its rate",
        )
    if count and not (labels.min() >= 0 and labels.max() < classes):
        raise Unevaluable(
            "bad_label",
            f"{where}: labels run from {labels.min()} to {labels.max()}, the dataset has classes 0 to {classes - 1}",
        )


def _check_masks(found: Prediction, image: Image) -> None:
    count = len(found.scores)
    if found.masks is None or len(found.masks) != count:
        raise Unevaluable(
            "no_masks",
            f"image {image.id}: one mask for each of its {count} boxes is wanted; evaluate without masks",
        )
    if any(list(mask["size"]) != [image.height, image.width] for mask in found.masks):
        raise Unevaluable(
            "bad_shape", f"image {image.id}: masks of {image.height} x {image.width} are wanted"
        )
