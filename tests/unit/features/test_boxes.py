"""Overlaps and deltas of boxes, against torchvision's."""

import numpy as np
import pytest
import torch
from deltas import corrected
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou

from worker.features.boxes import areas, deltas_between, ious, shared_areas


def some_boxes(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 60, (count, 2))
    return np.concatenate([low, low + rng.uniform(0.5, 50, (count, 2))], axis=1)


def test_overlaps_are_torchvisions():
    a, b = some_boxes(40, 0), some_boxes(30, 1)
    wanted = box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_allclose(ious(a[:, None], b), wanted, atol=1e-12)
    np.testing.assert_allclose(ious(a[:30], b), wanted.diagonal(), atol=1e-12)
    assert (wanted > 0.3).any()
    assert (wanted == 0).any()


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1.0),
        ([0, 0, 2, 2], [2, 0, 4, 2], 0.0),  # they touch
        ([0, 0, 2, 2], [1, 0, 3, 2], 1 / 3),
        ([1, 1, 1, 4], [0, 0, 5, 5], 0.0),  # a line
        ([1, 1, 1, 1], [1, 1, 1, 1], 0.0),  # a point on itself
        ([3, 3, 1, 1], [0, 0, 5, 5], 0.0),  # ends before it begins
    ],
)
def test_overlaps_of_odd_boxes(a, b, wanted):
    assert ious(np.array(a, float), np.array(b, float)) == pytest.approx(wanted)


def test_areas():
    assert areas(np.array([[1.0, 2, 4, 4], [0, 0, 0, 9], [5, 5, 1, 1]])).tolist() == [6, 0, 0]
    assert shared_areas(np.array([0.0, 0, 4, 4]), np.array([[2.0, 1, 9, 9], [4, 4, 5, 5]])).tolist() == [6, 0]


def test_deltas_are_those_that_torchvision_trains_on_and_lead_back():
    boxes, true = some_boxes(50, 2), some_boxes(50, 3)
    deltas = deltas_between(boxes, true)
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    wanted = coder.encode_single(torch.from_numpy(true), torch.from_numpy(boxes)).numpy()
    np.testing.assert_allclose(deltas, wanted, atol=1e-12)
    np.testing.assert_allclose(corrected(boxes, deltas), true, atol=1e-10)
    assert np.abs(deltas_between(true, true)).max() == 0
