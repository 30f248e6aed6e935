import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d, roi_align

from worker.features.pool import (
    global_vectors,
    global_vectors_before,
    local_vectors,
    local_vectors_before,
)


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


@pytest.mark.parametrize("map_hw", [(25, 34), (7, 5), (1, 1), (2, 3)])
def test_local_vectors_equal_torchvisions_kernel(map_hw):
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(2, 24, *map_hw, generator=generator).to(memory_format=torch.channels_last)
    ends = torch.rand(60, 2, 2, generator=generator) * 1.4 - 0.2
    boxes = torch.cat([ends.amin(1), ends.amax(1)], dim=1) * torch.tensor(
        [map_hw[1] * 32, map_hw[0] * 32] * 2
    )
    parts = [boxes[:50], boxes[50:]]
    wanted = roi_align(whole, [part / 32 for part in parts], 7, 1.0, 2, False).mean((2, 3))
    found = local_vectors(whole, parts, (map_hw[0] * 32, map_hw[1] * 32))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_images_without_boxes_have_no_vectors():
    none, one = torch.zeros(0, 4), torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    maps = torch.arange(3.0)[:, None, None, None].expand(3, 5, 4, 4)
    assert local_vectors(maps, [none, one, none], (32, 32)).tolist() == [[1.0] * 5]
    assert local_vectors(maps, [none] * 3, (32, 32)).shape == (0, 5)
    last = nn.Conv2d(5, 2, 3, padding=1)
    assert local_vectors_before(maps, last, [none] * 3, (32, 32)).shape == (0, 2)


@pytest.mark.parametrize("norm", [None, nn.BatchNorm2d, FrozenBatchNorm2d])
@pytest.mark.parametrize("map_hw", [(25, 34), (3, 2), (1, 1)])
@torch.no_grad()
def test_a_last_convolution_may_run_behind_the_pooling(map_hw, norm, monkeypatch):
    """Boxes over the edge and outside, too, where the convolution's padding and bias show."""
    monkeypatch.setattr("worker.features.pool._STEP_BYTES", 4 * 3 * 24 * map_hw[1] * 7)
    torch.manual_seed(0)
    parts = [nn.Conv2d(24, 16, 3, padding=1)] + ([norm(16)] if norm else [])
    for part in parts[1:]:
        for name in ("running_mean", "bias", "weight"):
            getattr(part, name).data.normal_()
        part.running_var.data.uniform_(0.5, 2)
    last = nn.Sequential(*parts).eval()
    before = torch.randn(2, 24, *map_hw).to(memory_format=torch.channels_last)
    input_hw = (map_hw[0] * 32, map_hw[1] * 32)
    ends = torch.rand(40, 2, 2) * 1.4 - 0.2
    boxes = torch.cat([ends.amin(1), ends.amax(1)], dim=1) * torch.tensor([input_hw[1], input_hw[0]] * 2)
    outside = torch.tensor([[-200.0, -300.0, -150.0, -250.0]])
    given = [torch.cat([boxes[:30], outside]), boxes[30:]]
    torch.testing.assert_close(
        local_vectors_before(before, last, given, input_hw),
        local_vectors(last(before), given, input_hw),
        rtol=1e-4,
        atol=1e-5,
    )
    valid = (input_hw[0] - 20, input_hw[1] - 11)
    torch.testing.assert_close(
        global_vectors_before(before, last, valid, input_hw),
        global_vectors(last(before), valid, input_hw),
        rtol=1e-4,
        atol=1e-5,
    )
