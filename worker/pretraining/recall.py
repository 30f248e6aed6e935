"""Class-agnostic recall: of the objects of a picture, how many are covered by its k best boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torchvision.ops import box_iou

from worker.evaluation.prediction import Prediction

AT = (10, 30, 100)
LEAST_OVERLAP = 0.5


@dataclass(frozen=True)
class Recall:
    """Over `objects` objects of `images` pictures: `at[k]` is the share that one of the k best boxes covers (IoU 0.5).

    None where there is no object.
    """

    images: int
    objects: int
    at: dict[int, float | None]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"at": {str(k): value for k, value in self.at.items()}}


def recall_of(predictions: Sequence[Prediction], truth: Mapping[int, np.ndarray]) -> Recall:
    """`truth`: image id to (n, 4) xyxy boxes in pixels; pictures that have none count as pictures."""
    covered = dict.fromkeys(AT, 0)
    objects = 0
    for prediction in predictions:
        wanted = truth.get(prediction.image_id)
        if wanted is None or not len(wanted):
            continue
        objects += len(wanted)
        order = np.argsort(-prediction.scores, kind="stable")
        boxes = torch.as_tensor(np.asarray(prediction.boxes, np.float32)[order])
        overlap = box_iou(torch.as_tensor(np.asarray(wanted, np.float32)), boxes).numpy()
        for k in AT:
            best = overlap[:, :k].max(axis=1, initial=0.0)
            covered[k] += int((best >= LEAST_OVERLAP).sum())
    at = {k: covered[k] / objects if objects else None for k in AT}
    return Recall(len(predictions), objects, at)
