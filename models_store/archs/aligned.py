"""ROI align and anchors as detectron2 has them: cells around their centres, sampled as often as they are wide; no rounding.

The option ``roi_aligned`` of detectors that were trained so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign, roi_align
from torchvision.ops.poolers import LevelMapper

ADAPTIVE = -1


class AlignedRoIAlign(MultiScaleRoIAlign):
    """torchvision's manners; pixels are areas whose centres lie half a pixel in (``aligned``), samples are adaptive."""

    def forward(
        self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Tensor:
        maps = [x[name] for name in self.featmap_names if name in x]
        tallest = max(shape[0] for shape in image_shapes)
        steps = [round(math.log2(tallest / m.shape[-2])) for m in maps]
        levels = LevelMapper(steps[0], steps[-1])(list(boxes)) if len(maps) > 1 else None
        rows = torch.cat([torch.cat([b.new_full((len(b), 1), i), b], dim=1) for i, b in enumerate(boxes)]).to(
            maps[0].dtype
        )
        found = maps[0].new_zeros(len(rows), maps[0].shape[1], *self.output_size)
        for index, (m, step) in enumerate(zip(maps, steps, strict=True)):
            here = (
                torch.ones(len(rows), dtype=torch.bool, device=m.device)
                if levels is None
                else levels == index
            )
            found[here] = roi_align(m, rows[here], self.output_size, 2.0**-step, ADAPTIVE, aligned=True)
        return found


def pooler(aligned: bool, names: Sequence[str], cells: int, sampling: int) -> MultiScaleRoIAlign:
    kind = AlignedRoIAlign if aligned else MultiScaleRoIAlign
    return kind(list(names), cells, sampling)


class ExactAnchors(AnchorGenerator):
    """torchvision's anchors before they are rounded to whole pixels."""

    def generate_anchors(
        self,
        scales: Sequence[int],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        tall = torch.as_tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        sizes = torch.as_tensor(scales, dtype=dtype, device=device)
        widths, heights = ((side[:, None] * sizes).flatten() for side in (1 / tall, tall))
        return torch.stack([-widths, -heights, widths, heights], dim=1) / 2
