"""Run a chain of modules only as deep as asked, and find its stages by running it once on a small input."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

PROBE_PIXELS = 128


@dataclass(frozen=True)
class Stage:
    """``c<k>``: the output of step ``index``, with stride 2**k (the published c1 is the stem's max pool)."""

    name: str
    index: int
    stride: int
    channels: int


def nearest_stride(input_pixels: int, map_pixels: int) -> int:
    """The power of two nearest to the ratio: convolutions without padding lose a few cells."""
    return 2 ** round(math.log2(input_pixels / max(map_pixels, 1)))


def as_map(x: Tensor, channels_last: bool) -> Tensor:
    return x.permute(0, 3, 1, 2) if channels_last and x.dim() == 4 else x


def walk(
    steps: Sequence[nn.Module], x: Tensor, wanted: Collection[int], *, channels_last: bool = False
) -> dict[int, Tensor]:
    """Outputs (B, C, h, w) of the wanted steps; steps behind the last wanted one are not run."""
    found: dict[int, Tensor] = {}
    if not wanted:
        return found
    last = max(wanted)
    for index, step in enumerate(steps):
        x = step(x)
        if index in wanted:
            found[index] = as_map(x, channels_last)
        if index == last:
            break
    return found


Shapes = dict[int, tuple[int, int]]


@torch.no_grad()
def step_shapes(
    steps: Sequence[nn.Module], *, channels_last: bool = False, pixels: int = PROBE_PIXELS
) -> Shapes:
    """{index: (stride, channels)} of the steps that give maps, from one run on a small input."""
    training = [step.training for step in steps]
    device = next((p.device for step in steps for p in step.parameters()), torch.device("cpu"))
    for step in steps:
        step.eval()
    maps = walk(
        steps,
        torch.zeros(1, 3, pixels, pixels, device=device),
        range(len(steps)),
        channels_last=channels_last,
    )
    for step, mode in zip(steps, training, strict=True):
        step.train(mode)
    return {i: (nearest_stride(pixels, m.shape[-2]), m.shape[1]) for i, m in maps.items() if m.dim() == 4}


def find_stages(
    steps: Sequence[nn.Module], *, channels_last: bool = False, pixels: int = PROBE_PIXELS
) -> tuple[Stage, ...]:
    """``stages_of`` the steps, which are run once."""
    return stages_of(steps, step_shapes(steps, channels_last=channels_last, pixels=pixels))


def stages_of(steps: Sequence[nn.Module], shapes: Shapes) -> tuple[Stage, ...]:
    """The deepest output at each stride, named by it.

    Where a stem halves twice and the second time by its max pool (ResNet, DenseNet), that pool is c1, as in
    the published layer list of arXiv 2306.15306, though its stride is already 4.
    """
    last_at: dict[int, int] = {}
    for index, (stride, _) in shapes.items():
        last_at[stride] = index
    stages = {
        int(math.log2(stride)): Stage(f"c{int(math.log2(stride))}", index, *shapes[index])
        for stride, index in last_at.items()
        if stride > 1
    }
    pool = _stem_pool(steps, shapes)
    if pool is not None and 2 in stages and stages[2].index > pool:
        stages[1] = Stage("c1", pool, *shapes[pool])
    return tuple(stages[k] for k in sorted(stages))


def _stem_pool(steps: Sequence[nn.Module], shapes: Shapes) -> int | None:
    for index, step in enumerate(steps):
        if isinstance(step, nn.MaxPool2d):
            before = shapes.get(index - 1, (1, 0))[0]
            return index if before == 2 and shapes[index][0] == 4 else None
    return None
