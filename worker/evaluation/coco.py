"""Average precision and recall as COCO defines them (cocodataset.org/#detection-eval), by faster-coco-eval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from worker.data import masks as mask_of
from worker.data.dataset import Dataset
from worker.evaluation.prediction import Prediction

LIMITS = (1, 10, 100)
AREAS = ("all", "small", "medium", "large")
SIZES = {"small": "under 32²", "medium": "from 32² to 96²", "large": "over 96²"}
AT_50, AT_75 = 0, 5
# COCO's code overwrites `ignore` by `iscrowd`, and ignores just the same what lies in no range of areas (the widest ends at 1e10).
_IGNORED_AREA = 1e11


@dataclass(frozen=True, eq=False)
class Arrays:
    """COCO's own result: `precision` (10 IoU, 101 recall, classes, 4 areas, 3 limits), `recall` (10, classes, 4, 3); -1 is undefined."""

    precision: np.ndarray
    recall: np.ndarray

    def values(self) -> dict[str, float | None]:
        """The twelve numbers of COCO by name, None where no object counts towards one."""
        found = {
            "map": _mean(self.precision[..., 0, 2]),
            "ap50": _mean(self.precision[AT_50, ..., 0, 2]),
            "ap75": _mean(self.precision[AT_75, ..., 0, 2]),
        }
        found |= {f"ap_{name}": _mean(self.precision[..., i, 2]) for i, name in enumerate(AREAS) if i}
        found |= {f"ar{limit}": _mean(self.recall[..., 0, i]) for i, limit in enumerate(LIMITS)}
        return found | {f"ar_{name}": _mean(self.recall[..., i, 2]) for i, name in enumerate(AREAS) if i}

    def of_class(self, label: int) -> tuple[float | None, float | None]:
        """Its AP@[.5:.95] and AP50; None without an object."""
        kept = self.precision[:, :, label, 0, 2]
        return _mean(kept), _mean(kept[AT_50])

    def curve(self, iou: int, label: int | None = None) -> np.ndarray | None:
        """Precision (101,) at recall 0, .01, ... 1, of one class or as the mean over classes; None without an object."""
        kept = self.precision[iou, :, :, 0, 2]
        kept = kept if label is None else kept[:, [label]]
        defined = kept[:, kept[0] > -1]
        return defined.mean(axis=1) if defined.shape[1] else None


def _mean(values: np.ndarray) -> float | None:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None


def truth_of(dataset: Dataset, image_ids: Sequence[int]) -> COCO:
    """The images' annotations for COCO's code; classes count from 1 there.

    An object's area, which decides between small, medium and large, is that of its mask where the dataset has masks,
    as in COCO's own files, else that of its box. A crowd that has no mask is its box. What is to be ignored matches one
    detection as any object does, and neither counts (cocoeval.py, evaluateImg, `_ignore`).
    """
    chosen = set(image_ids)
    images = [image for image in dataset.images if image.id in chosen]
    rows = []
    for image in images:
        numbers = np.flatnonzero(dataset.annotation_image_ids == image.id).tolist()
        rles = mask_of.rles_of(dataset, image) if dataset.segmentations is not None else [None] * len(numbers)
        for number, rle in zip(numbers, rles, strict=True):
            x1, y1, x2, y2 = dataset.boxes[number].tolist()
            row = {
                "id": int(dataset.annotation_ids[number]),
                "image_id": image.id,
                "category_id": int(dataset.labels[number]) + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": int(dataset.iscrowd[number]),
            }
            if rle is not None:
                row |= {"segmentation": rle, "area": mask_of.area(rle)}
            if dataset.ignored is not None and dataset.ignored[number]:
                row["area"] = _IGNORED_AREA
            rows.append(row)
    return _coco(dataset, images, rows)


def _found(dataset: Dataset, truth: COCO, predictions: Sequence[Prediction], masks: bool) -> COCO:
    rows: list[dict[str, Any]] = []
    for prediction in predictions:
        boxes = np.asarray(prediction.boxes, dtype=np.float64)
        corners = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()
        scores = np.asarray(prediction.scores, dtype=np.float64).tolist()
        labels = np.asarray(prediction.labels).tolist()
        for index, (box, score, label) in enumerate(zip(corners, scores, labels, strict=True)):
            row = {
                "id": len(rows) + 1,
                "image_id": prediction.image_id,
                "category_id": label + 1,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "score": score,
            }
            if masks:
                rle = dict(prediction.masks[index])  # type: ignore[index]
                row |= {"segmentation": rle, "area": mask_of.area(rle)}
            rows.append(row)
    return _coco(dataset, list(truth.imgs.values()), rows)


def _coco(dataset: Dataset, images: Sequence, rows: list[dict]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [
            image
            if isinstance(image, dict)
            else {"id": image.id, "width": image.width, "height": image.height}
            for image in images
        ],
        "annotations": rows,
        "categories": [{"id": i, "name": name} for i, name in enumerate(dataset.categories, start=1)],
    }
    coco.createIndex()
    return coco


def compare(dataset: Dataset, truth: COCO, predictions: Sequence[Prediction], *, masks: bool) -> Arrays:
    """The predictions against `truth_of` the dataset, by boxes or by masks."""
    found = _found(dataset, truth, predictions, masks)
    run = COCOeval_faster(truth, found, "segm" if masks else "bbox", print_function=lambda *_: None)
    run.params.imgIds = sorted(truth.imgs)
    run.params.maxDets = list(LIMITS)
    run.evaluate()
    run.accumulate()
    return Arrays(np.asarray(run.eval["precision"]), np.asarray(run.eval["recall"]))
