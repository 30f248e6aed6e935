"""Boxes and feature maps to vectors (the published recipe, arXiv 2306.15306)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

OUTPUT_SIZE = 7
SAMPLING_RATIO = 2


def local_vectors(feature_map: Tensor, boxes: Sequence[Tensor], input_hw: tuple[int, int]) -> Tensor:
    """One vector per box: ROI align 7 x 7, two samples per bin and axis, not shifted by half a pixel, averaged.

    Parameters: `feature_map` (B, C, h, w); `boxes` B tensors (n_i, 4) xyxy in pixels of the padded input;
    `input_hw` height and width of that input. Returns (sum n_i, C) float32.

    The scale of each axis is the true ratio of map to input, which is the stride only where the input
    divides by it; the published code divides map by input side as well, for square inputs.
    A box smaller than one cell is widened to one cell, as ROI align without alignment does.
    """
    scale_y, scale_x = feature_map.shape[2] / input_hw[0], feature_map.shape[3] / input_hw[1]
    scale = feature_map.new_tensor([scale_x, scale_y, scale_x, scale_y], dtype=torch.float32)
    on_map = [box.to(scale) * scale for box in boxes]
    pooled = roi_align(
        feature_map.float(),
        on_map,
        OUTPUT_SIZE,
        spatial_scale=1.0,
        sampling_ratio=SAMPLING_RATIO,
        aligned=False,
    )
    return pooled.mean(dim=(2, 3))


def global_vectors(feature_map: Tensor, valid_hw: tuple[int, int], input_hw: tuple[int, int]) -> Tensor:
    """One vector per image: the mean of the map over the picture, without the padding.

    Parameters: `feature_map` (B, C, h, w); `valid_hw` size of the picture in the padded input of size
    `input_hw`. Cells that the picture only touches count. Returns (B, C) float32.
    """
    height, width = feature_map.shape[2:]
    rows = min(height, max(1, math.ceil(valid_hw[0] * height / input_hw[0])))
    columns = min(width, max(1, math.ceil(valid_hw[1] * width / input_hw[1])))
    return feature_map[:, :, :rows, :columns].float().mean(dim=(2, 3))
