"""The sine embedding of Deformable DETR's code inside DETR: cell centres instead of cell corners."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

TEMPERATURE = 10_000


class CentredSine(nn.Module):
    """Sine embedding (arXiv 2005.12872, appendix A.4) whose positions are shifted by half a cell.

    Takes both callings of transformers: ``(map, mask)`` and ``shape=, device=, dtype=, mask=``; the mask is (B, h, w)
    with 1 where there is image. Returns (B, 2 * half, h, w).
    """

    def __init__(self, half: int) -> None:
        super().__init__()
        self.half = half

    def forward(
        self,
        pixel_values: Any = None,
        pixel_mask: Tensor | None = None,
        *,
        shape: torch.Size | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        mask: Tensor | None = None,
    ) -> Tensor:
        where = mask if pixel_mask is None else pixel_mask
        if where is None and shape is not None:
            where = torch.ones(shape[0], *shape[2:], device=device)
        elif where is None:
            batch, _, *sides = pixel_values.shape
            where = torch.ones(batch, *sides, device=pixel_values.device)
        halves = [self._along(where.float(), axis) for axis in (1, 2)]
        return torch.cat(halves, dim=3).permute(0, 3, 1, 2).to(dtype)

    def _along(self, mask: Tensor, axis: int) -> Tensor:
        position = mask.cumsum(axis)
        last = position.narrow(axis, position.shape[axis] - 1, 1)
        angle = (position - 0.5) / (last + 1e-6) * (2 * math.pi)
        index = torch.arange(self.half, device=mask.device)
        wavelength = TEMPERATURE ** (2 * torch.div(index, 2, rounding_mode="floor") / self.half)
        phase = angle[..., None] / wavelength
        return torch.stack((phase[..., 0::2].sin(), phase[..., 1::2].cos()), dim=4).flatten(3)
