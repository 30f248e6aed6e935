"""Bottleneck blocks that halve the map in their first 1x1 convolution, as the first ResNets did (arXiv 1512.03385)."""

from __future__ import annotations

from torch import nn


def stride_in_1x1(body: nn.Module) -> int:
    """Move strides from the 3x3 convolutions of every bottleneck to the 1x1 before it; how many were moved."""
    moved = 0
    for block in body.modules():
        first, second = getattr(block, "conv1", None), getattr(block, "conv2", None)
        if not (isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)):
            continue
        if first.kernel_size == (1, 1) and second.kernel_size == (3, 3) and second.stride != (1, 1):
            first.stride, second.stride = second.stride, (1, 1)
            moved += 1
    return moved
