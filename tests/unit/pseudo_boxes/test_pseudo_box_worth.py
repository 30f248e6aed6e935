"""What pseudo boxes are worth against true ones: counted by hand, and scores that become shares."""

import numpy as np
import pytest
from knowing import of, split

from worker.data.dataset import Dataset
from worker.evaluation.prediction import Prediction
from worker.pseudo_boxes.calibration import Calibration, fitted
from worker.pseudo_boxes.quality import calibration_of, chosen_confidence, quality_of
from worker.pseudo_boxes.truth import own_truth, same_pictures
from worker.pseudo_boxes.worth import weighed


def right_and_wrong(toy: Dataset, image_id: int, scores: tuple[float, float, float]) -> Prediction:
    """The first object of a picture, the same again, and a corner where nothing is."""
    first = np.flatnonzero(of(toy, image_id))[0]
    boxes = np.stack([toy.boxes[first], toy.boxes[first] + 1, [0.0, 55, 8, 63]])
    return Prediction(image_id, boxes, np.array(scores), np.array([toy.labels[first]] * 3))


def test_precision_recall_and_the_rest_counted_by_hand(toy: Dataset) -> None:
    ids = split(toy, "train")[:4]
    found = quality_of(toy, ids, [right_and_wrong(toy, id, (0.9, 0.5, 0.2)) for id in ids])
    assert (found["pictures"], found["objects"], found["boxes"]) == (4, 8, 12)
    assert (found["precision"], found["recall"]) == (pytest.approx(4 / 12), pytest.approx(0.5))
    assert found["f1"] == pytest.approx(2 * 4 / (12 + 8))
    by_class = {one["category"]: one for one in found["per_class"]}
    assert sum(one["boxes"] for one in by_class.values()) == 12
    assert [(b["score"], b["right"], b["boxes"]) for b in found["calibration"]["bins"]] == [
        (pytest.approx(0.2), 0.0, 4),
        (pytest.approx(0.5), 0.0, 4),
        (pytest.approx(0.9), 1.0, 4),
    ]
    assert found["calibration"]["error"] == pytest.approx((0.2 + 0.5 + 0.1) / 3)


def test_without_a_box_or_an_object_shares_are_undefined_and_not_zero(toy: Dataset) -> None:
    ids = split(toy, "train")[:2]
    nothing = [Prediction(id, np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)) for id in ids]
    found = quality_of(toy, ids, nothing)
    assert (found["precision"], found["recall"], found["calibration"]["error"]) == (None, 0.0, None)


def test_the_highest_of_equally_good_confidences(toy: Dataset) -> None:
    ids = split(toy, "val")
    found = [right_and_wrong(toy, id, (0.81, 0.5, 0.2)) for id in ids]
    confidence, f1 = chosen_confidence(toy, ids, found)
    assert (confidence, f1) == (0.8, pytest.approx(2 * 3 / (3 + 6)))


def test_a_score_at_the_end_is_in_the_last_bin() -> None:
    found = calibration_of(np.array([1.0, 0.0]), np.array([True, False]))
    assert [(b["low"], b["boxes"]) for b in found["bins"]] == [(0.0, 1), (0.9, 1)]
    assert found["error"] == 0


def test_scores_become_shares_without_changing_their_order(toy: Dataset) -> None:
    rng = np.random.default_rng(0)
    ids = split(toy, "train")
    said = {}
    for id in ids:
        rows = np.flatnonzero(of(toy, id))
        boxes = np.concatenate([toy.boxes[rows], toy.boxes[rows] + [30, 0, 30, 0], [[0, 55, 8, 63.0]]])
        # overconfident: what is right has scores a little higher, and all are high
        scores = np.clip(np.concatenate([rng.normal(0.93, 0.03, 2), rng.normal(0.88, 0.03, 3)]), 0, 0.999)
        labels = np.concatenate([toy.labels[rows], toy.labels[rows], [0]])
        said[id] = Prediction(id, boxes, scores, labels)
    truth = own_truth(toy, ids)
    raw = quality_of(toy, ids, truth.of(said))
    worth = weighed(said, truth)
    assert worth.quality["calibration"]["fitted_on"] == 60
    assert worth.quality["calibration"]["error"] < raw["calibration"]["error"] / 2
    assert worth.quality["ap50"] == raw["ap50"]
    for id in ids:
        np.testing.assert_array_equal(np.argsort(worth.found[id].scores), np.argsort(said[id].scores))


def test_too_few_boxes_or_scores_that_say_nothing_leave_them_as_they_are(toy: Dataset) -> None:
    ids = split(toy, "train")[:4]
    said = {id: right_and_wrong(toy, id, (0.9, 0.5, 0.2)) for id in ids}
    worth = weighed(said, own_truth(toy, ids))
    assert worth.found is said
    assert worth.quality["calibration"]["fitted_on"] is None
    assert "too few" in worth.warnings[0]
    upside_down = {id: right_and_wrong(toy, id, (0.1, 0.05, 0.8)) for id in split(toy, "train")}
    assert "say nothing" in str(fitted(own_truth(toy, list(upside_down)), upside_down))
    assert isinstance(Calibration(1.0, 0.0, 3).of(np.array([0.0, 1.0])), np.ndarray)


def test_the_same_pictures_of_another_dataset_are_found_by_content(toy: Dataset) -> None:
    truth = same_pictures(toy, split(toy, "train"), ("blue", "green", "red"), toy)
    assert truth.ids == {id: id for id in split(toy, "train")}
    assert truth.labels == {label: toy.categories.index(name) for label, name in ((0, "blue"), (2, "red"))}
    one = split(toy, "train")[0]
    said = Prediction(one, np.ones((3, 4)), np.ones(3), np.array([0, 1, 2]))
    restated = next(each for each in truth.of({one: said}) if each.image_id == one)
    assert restated.labels.tolist() == [truth.labels[0], truth.labels[2]]
