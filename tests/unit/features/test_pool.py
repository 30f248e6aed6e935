import numpy as np
import pytest
import torch

from worker.features.pool import global_vectors, local_vectors


def bilinear(plane: np.ndarray, y: float, x: float) -> float:
    """Value of a map at a place, cells at whole numbers; 0 more than a cell outside, the border's value up to there."""
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = max(y, 0.0), max(x, 0.0)
    top, left = min(int(y), height - 1), min(int(x), width - 1)
    low, right = min(top + 1, height - 1), min(left + 1, width - 1)
    y, x = (float(top) if top == height - 1 else y), (float(left) if left == width - 1 else x)
    dy, dx = y - top, x - left
    return (
        plane[top, left] * (1 - dy) * (1 - dx)
        + plane[top, right] * (1 - dy) * dx
        + plane[low, left] * dy * (1 - dx)
        + plane[low, right] * dy * dx
    )


def plain(plane: np.ndarray, box, scale_x: float, scale_y: float) -> float:
    """Mean of 7 x 7 bins of 2 x 2 samples each, written out."""
    x1, y1, x2, y2 = box[0] * scale_x, box[1] * scale_y, box[2] * scale_x, box[3] * scale_y
    step_x, step_y = max(x2 - x1, 1.0) / 7, max(y2 - y1, 1.0) / 7
    samples = [
        bilinear(plane, y1 + (row + (i + 0.5) / 2) * step_y, x1 + (column + (j + 0.5) / 2) * step_x)
        for row in range(7)
        for column in range(7)
        for i in range(2)
        for j in range(2)
    ]
    return float(np.mean(samples))


BOXES = [
    [10.0, 12.0, 60.5, 50.25],
    [0.0, 0.0, 128.0, 96.0],
    [100.3, 80.2, 100.9, 80.9],
    [120.0, 90.0, 127.9, 95.9],
    [-5.0, -8.0, 20.0, 30.0],
]


@pytest.mark.parametrize("map_hw", [(12, 16), (6, 8), (7, 9), (96, 128)])
def test_local_vectors_equal_the_written_out_pooling(map_hw):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, *map_hw, generator=generator)
    boxes = [torch.tensor(BOXES), torch.tensor(BOXES[::-1][:2])]
    found = local_vectors(maps, boxes, (96, 128)).numpy()
    expected = [
        [
            plain(maps[image, channel].numpy().astype(float), box, map_hw[1] / 128, map_hw[0] / 96)
            for channel in range(3)
        ]
        for image, of_image in enumerate(boxes)
        for box in of_image.tolist()
    ]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_no_boxes_are_no_rows():
    assert local_vectors(torch.zeros(2, 5, 4, 4), [torch.zeros(0, 4)] * 2, (32, 32)).shape == (0, 5)


def test_an_image_without_boxes_does_not_shift_the_others():
    maps = torch.stack([torch.full((1, 4, 4), float(value)) for value in (1, 2, 3)])
    boxes = [
        torch.tensor([[4.0, 4.0, 20.0, 20.0]]),
        torch.zeros(0, 4),
        torch.tensor([[4.0, 4.0, 20.0, 20.0]]),
    ]
    assert local_vectors(maps, boxes, (32, 32)).ravel().tolist() == [1.0, 3.0]


def test_global_vectors_leave_the_padding_out():
    maps = torch.zeros(1, 2, 4, 6)
    maps[:, 0, :3, :5] = 7.0
    maps[:, 1] = -1.0
    assert global_vectors(maps, (90, 150), (128, 192)).tolist() == [[7.0, -1.0]]


def test_a_picture_smaller_than_a_cell_has_one():
    maps = torch.arange(4.0).reshape(1, 1, 2, 2)
    assert global_vectors(maps, (3, 3), (64, 64)).tolist() == [[0.0]]
