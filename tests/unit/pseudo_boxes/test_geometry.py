"""Slivers, duplicates and nested boxes go, for a reason that is counted."""

import numpy as np

from worker.evaluation.prediction import Prediction
from worker.pseudo_boxes.geometry import Geometry, Removed, checked, plausible


def found(*rows: tuple[float, float, float, float, float, int]) -> Prediction:
    table = np.array(rows, dtype=float).reshape(-1, 6)
    return Prediction(1, table[:, :4], table[:, 4], table[:, 5].astype(int))


def test_each_kind_goes_and_is_counted() -> None:
    kept, removed = checked(
        found(
            (0, 0, 100, 3, 0.9, 0),  # 33 times as long as high
            (0, 0, 1, 1, 0.9, 0),  # a speck
            (10, 10, 50, 50, 0.8, 0),
            (12, 12, 52, 52, 0.7, 0),  # the same object
            (15, 15, 25, 25, 0.6, 0),  # a part of it
            (15, 15, 25, 25, 0.5, 1),  # another class
            (0, 0, 95, 95, 0.4, 1),  # around it
        ),
        Geometry(nested=0.9),
    )
    assert removed == Removed(slivers=2, duplicates=1, nested=2)
    assert kept.scores.tolist() == [0.8, 0.5]
    assert kept.labels.tolist() == [0, 1]


def test_nothing_in_nothing_out() -> None:
    kept, removed = checked(found())
    assert len(kept.boxes) == 0
    assert kept.boxes.shape == (0, 4)
    assert removed == Removed()


def test_rules_can_be_widened() -> None:
    kept, removed = checked(
        found((0, 0, 100, 3, 0.9, 0), (0, 0, 50, 3, 0.8, 0)),
        Geometry(longest_aspect=50),
    )
    assert len(kept.boxes) == 2
    assert removed == Removed()


def test_a_part_may_stay() -> None:
    assert len(plausible(found((10, 10, 50, 50, 0.8, 0), (15, 15, 25, 25, 0.6, 0))).boxes) == 2
