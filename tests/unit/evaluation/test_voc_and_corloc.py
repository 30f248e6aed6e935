"""Pascal VOC's AP and CorLoc against a plain loop and by hand."""

from pathlib import Path

import numpy as np
import pytest
from random_scenes import CLASSES, dataset_of, scenes

from worker.data.dataset import Image
from worker.evaluation.evaluate import evaluate
from worker.evaluation.prediction import Prediction


def plain_voc(dataset, predictions, label: int) -> tuple[float, float] | None:
    """The development kit's loop, with crowds in the place of `difficult`."""
    objects = {}
    for row in np.flatnonzero(dataset.labels == label):
        objects.setdefault(int(dataset.annotation_image_ids[row]), []).append(row)
    positives = int((~dataset.iscrowd[dataset.labels == label]).sum())
    if not positives:
        return None
    rows = [
        (float(s), p.image_id, box)
        for p in sorted(predictions, key=lambda p: p.image_id)
        for s, box, own in zip(p.scores, p.boxes, p.labels, strict=True)
        if own == label
    ]
    rows.sort(key=lambda row: -row[0])
    taken, tp, fp = set(), [], []
    for _, image_id, (x1, y1, x2, y2) in rows:
        best, at = -1.0, None
        for row in objects.get(image_id, []):
            a1, b1, a2, b2 = dataset.boxes[row]
            width, height = min(x2, a2) - max(x1, a1), min(y2, b2) - max(y1, b1)
            if width > 0 and height > 0:
                shared = width * height
                iou = shared / ((x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - shared)
                if iou > best:
                    best, at = iou, row
        if best >= 0.5 and dataset.iscrowd[at]:
            continue
        hit = best >= 0.5 and at not in taken
        taken |= {at} if hit else set()
        tp.append(int(hit))
        fp.append(int(not hit))
    hits, misses = np.cumsum(tp), np.cumsum(fp)
    recall, precision = hits / positives, hits / np.maximum(hits + misses, 1)
    eleven = sum(
        max([p for p, r in zip(precision, recall, strict=True) if r >= t / 10 - 1e-12], default=0)
        for t in range(11)
    )
    r, p = np.concatenate([[0], recall, [1]]), np.concatenate([[0], precision, [0]])
    for i in range(len(p) - 1, 0, -1):
        p[i - 1] = max(p[i - 1], p[i])
    steps = np.flatnonzero(r[1:] != r[:-1])
    return eleven / 11, float(((r[steps + 1] - r[steps]) * p[steps + 1]).sum())


@pytest.mark.parametrize("seed", range(8))
def test_voc_is_the_development_kits(seed: int) -> None:
    dataset, predictions = scenes(200 + seed)
    found = evaluate(dataset, [i.id for i in dataset.images], predictions)
    wanted = [plain_voc(dataset, predictions, label) for label in range(len(CLASSES))]
    for row, each in zip(found.voc["per_class"], wanted, strict=True):
        if each is None:
            assert row["ap_11point"] is row["ap_all_point"] is None
        else:
            assert (row["ap_11point"], row["ap_all_point"]) == pytest.approx(each, abs=1e-12)
    defined = [each for each in wanted if each]
    assert found.voc["map50_11point"] == pytest.approx(np.mean([each[0] for each in defined]), abs=1e-12)
    assert found.voc["map50_all_point"] == pytest.approx(np.mean([each[1] for each in defined]), abs=1e-12)


def three_images():
    images = [Image(i, Path(f"{i}.png"), 100, 100, "val") for i in (1, 2, 3)]
    square = np.array([10.0, 10, 50, 50])
    return dataset_of(
        images,
        [(1, 0, square, False), (1, 0, square + 45, True), (2, 0, square, False), (3, 1, square, False)],
    )


def one(image_id: int, *rows: tuple[list[float], float, int]) -> Prediction:
    return Prediction(
        image_id,
        np.array([r[0] for r in rows], float),
        np.array([r[1] for r in rows]),
        np.array([r[2] for r in rows]),
    )


def test_corloc_looks_at_the_best_box_of_each_image_and_class() -> None:
    dataset = three_images()
    predictions = [
        one(
            1, ([0, 0, 5, 5], 0.3, 0), ([56, 56, 95, 95], 0.9, 0)
        ),  # its best box is on the crowd, which is the class
        one(2, ([10, 10, 50, 50], 0.4, 0), ([60, 60, 90, 90], 0.8, 0)),  # right, but not first
        one(3, ([10, 10, 50, 50], 0.4, 1)),
    ]
    found = evaluate(dataset, [1, 2, 3], predictions)
    assert [row["corloc"] for row in found.per_class] == [0.5, 1.0, None, None]
    assert [row["images"] for row in found.per_class] == [2, 1, 0, 0]
    assert found.corloc == 0.75
    silent = evaluate(dataset, [1, 2, 3], predictions[:1])
    assert [row["corloc"] for row in silent.per_class] == [0.5, 0.0, None, None]


def test_iou_of_exactly_one_half_counts() -> None:
    found = evaluate(three_images(), [2], [one(2, ([10, 10, 50, 30], 0.5, 0))])
    assert found.corloc == 1.0
    assert found.voc["map50_11point"] == pytest.approx(1.0)
    assert found.box["ap50"] == pytest.approx(1.0)


def test_eleven_points_count_recall_in_whole_objects() -> None:
    images = [Image(1, Path("1.png"), 1000, 100, "val")]
    squares = [np.array([20.0 * i, 0, 20 * i + 10, 10]) for i in range(10)]
    dataset = dataset_of(images, [(1, 0, square, False) for square in squares])
    found = evaluate(
        dataset, [1], [one(1, *[(square.tolist(), 0.9 - i / 100, 0) for i, square in enumerate(squares[:3])])]
    )
    assert found.voc["map50_11point"] == pytest.approx(4 / 11)  # recall 0, .1, .2 and .3
    assert found.voc["map50_all_point"] == pytest.approx(0.3)
