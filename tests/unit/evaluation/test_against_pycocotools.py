"""COCO's numbers against pycocotools itself, on seeded random cases."""

import copy
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from random_scenes import CLASSES, scenes

from worker.evaluation.evaluate import evaluate

NAMES = (
    "map",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar1",
    "ar10",
    "ar100",
    "ar_small",
    "ar_medium",
    "ar_large",
)


def reference(dataset, predictions, kind: str) -> COCOeval:
    from pycocotools import mask as masks

    rows = []
    for row in range(len(dataset.labels)):
        x1, y1, x2, y2 = dataset.boxes[row].tolist()
        entry = {
            "id": row + 1,
            "image_id": int(dataset.annotation_image_ids[row]),
            "category_id": int(dataset.labels[row]) + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": int(dataset.iscrowd[row]),
        }
        if dataset.segmentations is not None:
            entry |= {
                "segmentation": dataset.segmentations[row],
                "area": float(masks.area(dataset.segmentations[row])),
            }
        rows.append(entry)
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i.id, "width": i.width, "height": i.height} for i in dataset.images],
        "annotations": rows,
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)],
    }
    truth.createIndex()
    found = []
    for one in predictions:
        for k in range(len(one.scores)):
            x1, y1, x2, y2 = one.boxes[k].tolist()
            entry = {
                "image_id": one.image_id,
                "category_id": int(one.labels[k]) + 1,
                "score": float(one.scores[k]),
            }
            entry |= (
                {"segmentation": one.masks[k]} if kind == "segm" else {"bbox": [x1, y1, x2 - x1, y2 - y1]}
            )
            found.append(entry)
    run = COCOeval(truth, truth.loadRes(copy.deepcopy(found)), kind)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run


def same(values, stats) -> None:
    for name, wanted in zip(NAMES, stats, strict=True):
        if wanted == -1:
            assert values[name] is None, name
        else:
            assert values[name] == pytest.approx(wanted, abs=1e-9), name


@pytest.mark.parametrize("seed", range(12))
def test_boxes(seed: int) -> None:
    dataset, predictions = scenes(seed)
    found = evaluate(dataset, [i.id for i in dataset.images], predictions)
    wanted = reference(dataset, predictions, "bbox")
    same(found.box, wanted.stats)
    assert found.mask is None
    for label, row in enumerate(found.per_class):
        precision = wanted.eval["precision"][:, :, label, 0, 2]
        if (precision == -1).all():
            assert row["ap"] is None
        else:
            assert row["ap"] == pytest.approx(precision[precision > -1].mean(), abs=1e-9)
            assert np.allclose(found.class_curves[row["category"]], precision[0], atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_masks(seed: int) -> None:
    dataset, predictions = scenes(100 + seed, images=8, masks=True)
    found = evaluate(dataset, [i.id for i in dataset.images], predictions, masks=True)
    same(found.box, reference(dataset, predictions, "bbox").stats)
    same(found.mask, reference(dataset, predictions, "segm").stats)
    assert found.box != found.mask


def test_order_of_predictions_does_not_matter_across_images() -> None:
    dataset, predictions = scenes(3)
    ids = [i.id for i in dataset.images]
    one, other = evaluate(dataset, ids, predictions), evaluate(dataset, ids[::-1], predictions[::-1])
    assert json.dumps(one.to_json(), allow_nan=False) == json.dumps(other.to_json(), allow_nan=False)


def test_more_than_a_hundred_detections_of_a_class_are_cut_as_coco_does() -> None:
    dataset, predictions = scenes(5, images=2)
    rng = np.random.default_rng(0)
    first = predictions[0]
    from worker.evaluation.prediction import Prediction

    low = rng.random((150, 2)) * 100
    many = Prediction(
        first.image_id,
        np.concatenate([np.concatenate([low, low + 20], axis=1), first.boxes]),
        np.concatenate([np.full(150, 0.95), first.scores]),
        np.concatenate([np.zeros(150, dtype=int), first.labels]),
    )
    found = evaluate(dataset, [1, 2], [many, *predictions[1:]])
    same(found.box, reference(dataset, [many, *predictions[1:]], "bbox").stats)
