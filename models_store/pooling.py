"""ROI align for training: levels by known strides, and on a CPU as sums of table rows, several times faster.

torchvision guesses a map's stride from the first image it sees and keeps the guess, so what a training computes would
depend on the image it begins with; and its backward pass on a CPU has one thread and no vectors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from models_store.detector import Detector, TorchvisionDetector

POOLS = ("box_roi_pool", "mask_roi_pool", "keypoint_roi_pool")


class RowSumRoIAlign(MultiScaleRoIAlign):
    """Multi-scale ROI align (not shifted by half a pixel) as one weighted sum of map cells for each output cell.

    An output cell is the mean of sampling_ratio^2 bilinear samples, so of 4 sampling_ratio^2 map cells; torch's
    embedding_bag sums them, and its gradient, row by row. Equal to torchvision's to rounding.
    """

    def forward(
        self, x: Mapping[str, Tensor], boxes: Sequence[Tensor], image_shapes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """(sum n_i, C, h, w) from maps (B, C, H_l, W_l) by name and boxes (n_i, 4) xyxy in input pixels."""
        # torchvision names four levels whatever the pyramid has.
        maps = [x[name] for name in self.featmap_names if name in x]
        channels = maps[0].shape[1]
        # Rows of one table: level by level, image by image, cell by cell.
        table = torch.cat([m.permute(0, 2, 3, 1).reshape(-1, channels) for m in maps]).float()
        count = sum(len(b) for b in boxes)
        if not count:
            return maps[0].new_zeros(0, channels, *self.output_size)
        device = table.device
        levels = self.map_levels(list(boxes)) if len(maps) > 1 else torch.zeros(count, dtype=torch.long)
        levels = levels.to(device)
        owner = torch.repeat_interleave(
            torch.arange(len(boxes), device=device), torch.tensor([len(b) for b in boxes], device=device)
        )
        heights, widths, starts = (
            torch.tensor(values, device=device)[levels]
            for values in (
                [m.shape[2] for m in maps],
                [m.shape[3] for m in maps],
                [sum(m[:, 0].numel() for m in maps[:i]) for i in range(len(maps))],
            )
        )
        scaled = (
            torch.cat(list(boxes)).detach().float() * torch.tensor(self.scales, device=device)[levels, None]
        )
        rows, row_weights = _samples(
            scaled[:, 1], scaled[:, 3], heights, self.output_size[0], self.sampling_ratio
        )
        columns, column_weights = _samples(
            scaled[:, 0], scaled[:, 2], widths, self.output_size[1], self.sampling_ratio
        )
        first = (starts + owner * heights * widths).view(-1, 1, 1, 1, 1)
        cells = first + rows[:, :, None, :, None] * widths.view(-1, 1, 1, 1, 1) + columns[:, None, :, None, :]
        weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
        bags = count * self.output_size[0] * self.output_size[1]
        with torch.autocast(device.type, enabled=False):
            summed = F.embedding_bag(
                cells.reshape(bags, -1), table, mode="sum", per_sample_weights=weights.reshape(bags, -1)
            )
        # The maps' own type, as torchvision's; in the memory that convolutions like best.
        return summed.to(maps[0].dtype).view(count, *self.output_size, channels).permute(0, 3, 1, 2)


def _samples(low: Tensor, high: Tensor, size: Tensor, bins: int, ratio: int) -> tuple[Tensor, Tensor]:
    """Along one axis: cells (n, bins, 2 ratio) and their weights, of intervals ``low`` to ``high`` on maps of ``size``.

    As torchvision's kernel: an interval is at least one cell long, samples up to one cell outside count as the edge
    and those farther out as zero.
    """
    step = (high - low).clamp(min=1.0) / (bins * ratio)
    places = low[:, None] + (torch.arange(bins * ratio, device=low.device) + 0.5) * step[:, None]
    size = size[:, None]
    outside = (places < -1) | (places > size)
    places = places.clamp(min=0)
    below = places.floor().long()
    edge = below >= size - 1
    below = torch.where(edge, size - 1, below)
    above = torch.where(edge, below, below + 1)
    share = torch.where(edge | outside, 0.0, places - below)
    rest = torch.where(outside, 0.0, 1 - share)
    shape = (len(low), bins, 2 * ratio)
    return torch.stack([below, above], -1).view(shape), torch.stack([rest, share], -1).view(shape) / ratio


@contextlib.contextmanager
def training_pools(detector: Detector) -> Iterator[None]:
    """Within, a two-stage detector pools by its known strides, on a CPU with row sums; others stay as they are."""
    heads = getattr(detector.module, "roi_heads", None)
    if heads is None or not isinstance(detector, TorchvisionDetector):
        yield
        return
    strides = {layer.name: layer.stride for layer in detector.layers}
    scales = [1.0 / strides[name] for name in detector.face.roi_levels]  # type: ignore[operator]
    first, last = (strides[detector.face.roi_levels[i]].bit_length() - 1 for i in (0, -1))  # type: ignore[union-attr]
    on_cpu = next(detector.module.parameters()).device.type == "cpu"
    kept: dict[str, nn.Module] = {}
    for name in POOLS:
        pool = getattr(heads, name, None)
        if pool is None or type(pool) is not MultiScaleRoIAlign:
            continue
        kept[name] = pool
        kind = RowSumRoIAlign if on_cpu and pool.sampling_ratio > 0 else MultiScaleRoIAlign
        ours = kind(pool.featmap_names, pool.output_size, pool.sampling_ratio)
        ours.scales = scales
        ours.map_levels = initLevelMapper(first, last, pool.canonical_scale, pool.canonical_level)
        setattr(heads, name, ours)
    try:
        yield
    finally:
        for name, pool in kept.items():
            setattr(heads, name, pool)
