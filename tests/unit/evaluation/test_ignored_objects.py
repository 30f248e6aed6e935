"""Objects to ignore (VOC's difficult, COCO's ignore) count neither for nor against a detector."""

from dataclasses import replace

import numpy as np
from random_scenes import scenes

from worker.evaluation.evaluate import evaluate
from worker.evaluation.prediction import Prediction

AWAY = 1000.0  # beyond everything else, so that no other detection reaches the added objects


def _with_ignored(dataset, predictions):
    """An object to ignore in every image, and a detection that finds it."""
    count = len(dataset.images)
    boxes = np.tile([AWAY, AWAY, AWAY + 20, AWAY + 30], (count, 1))
    ids = np.array([image.id for image in dataset.images])
    more = replace(
        dataset,
        annotation_ids=np.arange(1, len(dataset.boxes) + count + 1),
        annotation_image_ids=np.concatenate([dataset.annotation_image_ids, ids]),
        labels=np.concatenate([dataset.labels, np.zeros(count, dtype=np.int64)]),
        boxes=np.concatenate([dataset.boxes, boxes]),
        iscrowd=np.concatenate([dataset.iscrowd, np.zeros(count, dtype=bool)]),
        ignored=np.repeat([False, True], [len(dataset.boxes), count]),
    )
    found = {prediction.image_id: prediction for prediction in predictions}
    added = []
    for image, box in zip(dataset.images, boxes, strict=True):
        old = found.get(
            image.id, Prediction(image.id, np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.int64))
        )
        added.append(
            Prediction(
                image.id,
                np.concatenate([old.boxes, box[None]]),
                np.append(old.scores, 0.99),
                np.append(old.labels, 0),
            )
        )
    return more, added


def _numbers(dataset, ids, predictions):
    """All but the recalls of the first 1 and 10 detections, among which one on an object to ignore takes a place."""
    found = evaluate(dataset, ids, predictions)
    return {name: value for name, value in found.box.items() if name not in ("ar1", "ar10")}, found.voc


def test_found_objects_to_ignore_change_no_number() -> None:
    dataset, predictions = scenes(7)
    ids = [image.id for image in dataset.images]
    more, found = _with_ignored(dataset, predictions)
    assert _numbers(more, ids, found) == _numbers(dataset, ids, predictions)
    counted = replace(more, ignored=None)
    assert _numbers(counted, ids, found) != _numbers(dataset, ids, predictions)


def test_missed_objects_to_ignore_change_no_number() -> None:
    dataset, predictions = scenes(7)
    ids = [image.id for image in dataset.images]
    more, _ = _with_ignored(dataset, predictions)
    assert _numbers(more, ids, predictions) == _numbers(dataset, ids, predictions)
