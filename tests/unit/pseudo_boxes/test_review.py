"""The draw of a review, and what its answers say of all boxes: the limits hold what they promise."""

from pathlib import Path

import numpy as np
import pytest
from knowing import of, split
from scipy import stats

from app.services.review_estimates import estimates_of, poisson, wilson
from worker.data.dataset import Dataset, open_dataset
from worker.evaluation.prediction import Prediction
from worker.pseudo_boxes.derived import derive
from worker.pseudo_boxes.review import draw_review


@pytest.fixture(scope="module")
def pseudo(toy: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Of the 24 training pictures 18 with three boxes each."""
    rng = np.random.default_rng(1)
    found = {}
    for id in split(toy, "train")[:18]:
        boxes = np.concatenate([toy.boxes[of(toy, id)], [[0, 50, 9, 60.0]]])
        found[id] = Prediction(id, boxes, rng.random(3), np.array([*toy.labels[of(toy, id)], 0]))
    out: Path = tmp_path_factory.mktemp("pseudo") / "out"
    out.mkdir()
    derive(toy, toy.categories, found, ["train"], out, description="pseudo")
    return open_dataset(out)


def test_the_most_doubtful_come_first_and_half_are_of_the_lowest_third(pseudo: Dataset) -> None:
    review = draw_review(pseudo, seed=0)
    scores = [each["score"] for each in review["items"]]
    assert scores == sorted(scores)
    assert [each["number"] for each in review["items"]] == list(range(1, len(scores) + 1))
    assert [each["boxes"] for each in review["strata"]] == [18, 18, 18]
    strata = [each["stratum"] for each in review["items"]]
    assert [strata.count(number) for number in range(3)] == [15, 8, 8]
    for each in review["items"]:
        about = review["strata"][each["stratum"]]
        assert about["low"] <= each["score"] <= about["high"]
    # true boxes of validation and test are not asked about, and nothing is counted there
    assert review["all_pictures"] == 18
    assert len(review["pictures"]) == 10
    assert all(len(each["boxes"]) == 3 for each in review["pictures"])
    assert draw_review(pseudo, seed=0) == review
    assert draw_review(pseudo, seed=1) != review


def test_limits_of_shares_and_counts_are_those_of_the_books() -> None:
    low, high = wilson(8, 10, 10**9)
    expected = stats.binomtest(8, 10).proportion_ci(method="wilson")
    assert (low, high) == (pytest.approx(expected.low, abs=1e-4), pytest.approx(expected.high, abs=1e-4))
    assert wilson(8, 10, 10) == (0.8, 0.8)
    assert wilson(8, 10, 12)[0] > low
    for count in (0, 1, 7):
        low, high = poisson(count)
        assert high == pytest.approx(stats.chi2.ppf(0.975, 2 * count + 2) / 2, rel=1e-4)
        assert low == pytest.approx(stats.chi2.ppf(0.025, 2 * count) / 2 if count else 0.0, rel=1e-4)


def answered(rng: np.random.Generator, right: list[float], missed: float) -> dict:
    """A review of 3 x 200 boxes whose thirds are right with these chances, and of 300 pictures."""
    items = [
        {"stratum": s, "decision": "accept" if rng.random() < share else "reject"}
        for s, (share, count) in enumerate(zip(right, (15, 8, 7), strict=True))
        for _ in range(count)
    ]
    strata = [{"boxes": 200, "low": 0.0, "high": 1.0}] * 3
    pictures = [{"missed": int(rng.poisson(missed))} for _ in range(10)]
    return {"items": items, "pictures": pictures, "strata": strata, "all_pictures": 300}


def test_looking_at_doubtful_boxes_first_biases_nothing_and_the_limits_hold() -> None:
    rng = np.random.default_rng(0)
    right, missed = [0.3, 0.7, 0.95], 0.5
    precision = float(np.mean(right))
    recall = 600 * precision / (600 * precision + 300 * missed)
    found = [estimates_of(answered(rng, right, missed)) for _ in range(400)]
    assert np.mean([each["precision"].value for each in found]) == pytest.approx(precision, abs=0.01)
    naive = np.mean([(15 * 0.3 + 8 * 0.7 + 7 * 0.95) / 30])
    assert abs(naive - precision) > 0.05
    for name, truth, least in (("precision", precision, 0.93), ("recall", recall, 0.95)):
        held = [each[name].low <= truth <= each[name].high for each in found]
        assert np.mean(held) >= least, name


def test_what_cannot_be_said_yet_says_what_is_missing() -> None:
    review = answered(np.random.default_rng(0), [0.5, 0.5, 0.5], 0.5)
    review["items"] = [each for each in review["items"] if each["stratum"] != 1]
    found = estimates_of(review)
    assert "decide on one" in found["precision"].undefined
    assert found["recall"].value is None
    review = answered(np.random.default_rng(0), [0.5, 0.5, 0.5], 0.5)
    review["pictures"] = []
    assert "fewer than two pictures" in estimates_of(review)["recall"].undefined
    nothing = answered(np.random.default_rng(0), [0.0, 0.0, 0.0], 0.0)
    assert estimates_of(nothing)["precision"].value == 0
    assert "none to find" in estimates_of(nothing)["recall"].undefined


def test_a_corrected_box_is_right_where_it_lay_on_the_object_by_half() -> None:
    one = {"stratum": 0, "category": "red", "bbox": [0, 0, 10, 10], "decision": "correct"}
    near = {"bbox": [1, 0, 10, 10], "category": "red"}
    far = {"bbox": [6, 0, 10, 10], "category": "red"}
    other = {"bbox": [0, 0, 10, 10], "category": "blue"}
    review = {
        "items": [one | {"corrected": each} for each in (near, far, other)],
        "pictures": [],
        "strata": [{"boxes": 3, "low": 0, "high": 1}],
        "all_pictures": 3,
    }
    assert estimates_of(review)["precision"].value == pytest.approx(1 / 3)
