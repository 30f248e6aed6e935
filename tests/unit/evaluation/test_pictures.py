"""Which images are shown, by what score, and that the pictures show it."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from random_scenes import dataset_of, scenes

from worker.data.dataset import Image
from worker.evaluation.errors import Unevaluable
from worker.evaluation.evaluate import evaluate
from worker.evaluation.matching import match
from worker.evaluation.per_image import best_threshold, image_scores
from worker.evaluation.pictures import GAP, RIGHT, SIDE, STRIP, WRONG, show_best_and_worst
from worker.evaluation.plots import learning_curve, precision_recall
from worker.evaluation.prediction import Prediction
from worker.evaluation.shown_boxes import boxes_of_images

SQUARE = np.array([10.0, 10, 50, 50])


@pytest.fixture
def given(tmp_path: Path):
    """Four images with one square each: found, found and a false one, missed, not looked at; the fifth is empty."""
    images = []
    for i in range(1, 6):
        PIL.Image.new("RGB", (100, 80), (200, 200, 200)).save(tmp_path / f"{i}.png")
        images.append(Image(i, tmp_path / f"{i}.png", 100, 80, "test"))
    dataset = dataset_of(images, [(i, 0, SQUARE, False) for i in range(1, 5)] + [(3, 1, SQUARE + 20, True)])
    square = SQUARE.tolist()
    predictions = [
        one(1, (square, 0.9, 0), ([0, 0, 5, 5], 0.1, 0)),
        one(2, (square, 0.8, 0), ([60, 60, 90, 79], 0.7, 0)),
        one(3, ([60, 60, 90, 79], 0.75, 0), ((SQUARE + 20).tolist(), 0.99, 1)),
    ]
    return dataset, predictions


def one(image_id: int, *rows) -> Prediction:
    return Prediction(
        image_id,
        np.array([r[0] for r in rows], float),
        np.array([r[1] for r in rows]),
        np.array([r[2] for r in rows]),
    )


def test_the_threshold_is_where_f1_is_best(given) -> None:
    dataset, predictions = given
    matches = match(dataset, [1, 2, 3, 4, 5], predictions)
    assert best_threshold(matches) == 0.8  # two right of two, of four to find
    scores = {
        s.image_id: (s.hits, s.false, s.missed, s.f1)
        for s in image_scores(dataset, [1, 2, 3, 4, 5], matches, 0.75)
    }
    assert scores == {
        1: (1, 0, 0, 1.0),
        2: (1, 0, 0, 1.0),
        3: (0, 1, 1, 0.0),
        4: (0, 0, 1, 0.0),
        5: (0, 0, 0, None),
    }


@pytest.mark.parametrize("seed", range(4))
def test_the_threshold_against_all_thresholds(seed: int) -> None:
    dataset, predictions = scenes(300 + seed)
    ids = [i.id for i in dataset.images]
    matches = match(dataset, ids, predictions)

    def f1(threshold: float) -> float:
        scores = image_scores(dataset, ids, matches, threshold)
        hits, wrong = sum(s.hits for s in scores), sum(s.false + s.missed for s in scores)
        return 2 * hits / (2 * hits + wrong)

    chosen = best_threshold(matches)
    values = {float(t): f1(t) for t in np.unique(matches.scores)}
    assert values[chosen] == pytest.approx(max(values.values()))
    assert chosen == max(t for t, value in values.items() if value == pytest.approx(values[chosen]))


def test_best_and_worst_are_chosen_once_and_in_order(given) -> None:
    dataset, predictions = given
    shown = show_best_and_worst(dataset, [1, 2, 3, 4, 5], predictions, count=3)
    assert [(s.kind, s.image_id) for s in shown] == [("best", 1), ("best", 2), ("worst", 3), ("worst", 4)]
    again = show_best_and_worst(dataset, [5, 4, 3, 2, 1], predictions[::-1], count=3)
    assert shown == again
    assert [s.image_id for s in show_best_and_worst(dataset, [1, 2, 3, 4, 5], predictions, count=1)] == [1, 3]


def pixel(png: bytes, half: int, x: float, y: float) -> tuple[int, ...]:
    """The colour at a point of the image, on the left (0) or right half."""
    sheet = PIL.Image.open(io.BytesIO(png)).convert("RGB")
    scale = SIDE / 100
    return sheet.getpixel((round(GAP + half * (SIDE + GAP) + x * scale), round(STRIP + y * scale)))


def test_truth_and_detections_are_drawn_beside_each_other(given) -> None:
    dataset, predictions = given
    shown = {s.image_id: s for s in show_best_and_worst(dataset, [1, 2, 3, 4], predictions, count=2)}
    assert pixel(shown[1].png, 0, 30, 49.6) == RIGHT
    assert pixel(shown[1].png, 1, 30, 49.6) == RIGHT
    assert pixel(shown[4].png, 0, 30, 49.6) == WRONG
    assert pixel(shown[4].png, 1, 30, 49.6) == (200, 200, 200)
    assert (shown[4].hits, shown[4].false, shown[4].missed, shown[4].f1) == (0, 0, 1, 0.0)


def test_nothing_to_show(given) -> None:
    dataset, _ = given
    assert show_best_and_worst(dataset, [5], []) == []
    silent = show_best_and_worst(dataset, [1, 2], [])
    assert [s.kind for s in silent] == ["best", "worst"]
    assert silent[0].threshold is None
    with pytest.raises(Unevaluable):
        show_best_and_worst(dataset, [1], [one(1, (SQUARE.tolist(), np.nan, 0))])


def colours(path: Path) -> set[tuple[int, ...]]:
    return set(map(tuple, np.asarray(PIL.Image.open(path).convert("RGB")).reshape(-1, 3)))


def test_precision_recall_plot(tmp_path: Path) -> None:
    dataset, predictions = scenes(1)
    found = evaluate(dataset, [i.id for i in dataset.images], predictions)
    precision_recall(found, tmp_path / "a.png", "cost $5 and $6")
    assert {(0x3B, 0x6E, 0xA5), (0xC5, 0x8B, 0x2A)} <= colours(tmp_path / "a.png")
    precision_recall(evaluate(dataset, [5], []), tmp_path / "b.png")
    assert (0x3B, 0x6E, 0xA5) not in colours(tmp_path / "b.png")


def test_learning_curve_plot(tmp_path: Path) -> None:
    points = [{"iteration": i, "loss": 2 / i, "val": {"map": 0.1 * i, "ap50": None}} for i in range(1, 6)]
    learning_curve(points, tmp_path / "a.png", best={"iteration": 5, "map": 0.5})
    assert {(0x22, 0x30, 0x3C), (0x3B, 0x6E, 0xA5), (0xC5, 0x8B, 0x2A)} <= colours(tmp_path / "a.png")
    learning_curve([{"iteration": 1, "loss": 0.0}], tmp_path / "b.png")
    learning_curve([], tmp_path / "c.png", "nothing")
    assert (0x3B, 0x6E, 0xA5) not in colours(tmp_path / "c.png")


def test_boxes_of_every_image_the_worst_first(given) -> None:
    dataset, predictions = given
    found = boxes_of_images(dataset, [1, 2, 3, 4, 5], predictions)
    assert (found["threshold"], found["categories"]) == (0.8, list(dataset.categories))
    images = {image["image_id"]: image for image in found["images"]}
    assert [image["image_id"] for image in found["images"]] == [3, 4, 1, 2, 5]
    assert images[5]["f1"] is None
    assert images[2]["objects"] == [{"box": [10.0, 10.0, 50.0, 50.0], "category": 0, "ignored": False}]
    hit, false = images[2]["detections"]
    assert (hit["score"], hit["outcome"], hit["object"]) == (0.8, "hit", 0)
    assert (false["score"], false["outcome"], false["object"]) == (0.7, "false", None)
    on_crowd, elsewhere = images[3]["detections"]
    assert (on_crowd["outcome"], on_crowd["object"], elsewhere["outcome"]) == ("ignored", None, "false")
    assert images[4]["detections"] == []


@pytest.mark.parametrize("seed", range(3))
def test_outcomes_hold_at_every_threshold(seed: int) -> None:
    """Counted from the document at any threshold they are what `image_scores` counts there."""
    dataset, predictions = scenes(500 + seed)
    ids = [i.id for i in dataset.images]
    found = boxes_of_images(dataset, ids, predictions)
    matches = match(dataset, ids, predictions)
    for threshold in (0.05, 0.3, 0.6, 0.9):
        counted = {}
        for image in found["images"]:
            kept = [one["outcome"] for one in image["detections"] if one["score"] >= threshold]
            objects = sum(not one["ignored"] for one in image["objects"])
            hits = kept.count("hit")
            counted[image["image_id"]] = (hits, kept.count("false"), objects - hits)
        expected = {
            s.image_id: (s.hits, s.false, s.missed) for s in image_scores(dataset, ids, matches, threshold)
        }
        assert counted == expected
