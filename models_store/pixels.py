"""Pictures to the tensor that a network takes, in as few passes over the pixels as there can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def stacked(
    images: Sequence[np.ndarray],
    size: tuple[int, int],
    padded: tuple[int, int],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    **resize: Any,
) -> Tensor:
    """(B, 3, *padded) float32, channels last: uint8 (h, w, 3) pictures resized to ``size``, (x / 255 - mean) / std.

    Padded right and bottom with zeros. ``resize``: arguments of ``F.interpolate`` (mode, antialias).
    """
    scale = torch.tensor([1 / (255.0 * s) for s in std], device=device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device)
    ready = [_one(image, size, scale, shift, device, resize) for image in images]
    if padded == size:
        return ready[0] if len(ready) == 1 else torch.cat(ready)
    batch = torch.zeros(len(images), *padded, 3, device=device).permute(0, 3, 1, 2)
    for row, x in enumerate(ready):
        batch[row, :, : size[0], : size[1]] = x[0]
    return batch


def _one(
    image: np.ndarray,
    size: tuple[int, int],
    scale: Tensor,
    shift: Tensor,
    device: torch.device,
    resize: dict[str, Any],
) -> Tensor:
    """(1, 3, *size), channels last."""
    x = _on(device, image).float()
    # Resizing and normalising may change places; normalising is done where there are fewer pixels.
    small = x.shape[0] * x.shape[1] <= size[0] * size[1]
    if small:
        x = _normalised(x, scale, shift)
    if tuple(x.shape[:2]) != size:
        planes = x.permute(2, 0, 1)[None]
        x = F.interpolate(planes, size=size, align_corners=False, **resize)[0].permute(1, 2, 0).contiguous()
    return (x if small else _normalised(x, scale, shift)).permute(2, 0, 1)[None]


def _normalised(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """(h, w, 3) times scale plus shift; row by row, so that it is one pass over long vectors."""
    rows = x.view(x.shape[0], -1)
    return torch.addcmul(shift.repeat(x.shape[1]), rows, scale.repeat(x.shape[1])).view_as(x)


def _on(device: torch.device, image: np.ndarray) -> Tensor:
    """The picture as it is; to CUDA from pinned memory, so that the copy does not wait for what runs there."""
    pixels = torch.from_numpy(np.ascontiguousarray(image))
    return pixels.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else pixels.to(device)
