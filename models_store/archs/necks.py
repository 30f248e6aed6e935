"""Necks run no further than asked: each map from the body's stages that it needs and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d

from models_store.bodies.stages import PROBE_PIXELS, nearest_stride

MERGED = ".merged"
Run = Callable[[Mapping[str, Tensor], Collection[int]], dict[int, Tensor]]
Needs = Callable[[Collection[int]], Collection[str]]


@dataclass(frozen=True)
class Neck:
    """A neck: which body stages go in, and the layer names of the maps that come out.

    ``run(maps, wanted)`` takes {stage: map} of ``needs(wanted)`` and gives {index: map}, where ~i stands for what
    goes into the last convolution of map i (only where ``last`` has one). ``last``: by index, that 3x3 convolution
    with the norm behind it, where the map is a linear function of its input; else None.
    """

    takes: tuple[str, ...]
    run: Run
    needs: Needs
    names: tuple[str, ...]
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    last: tuple[nn.Module | None, ...]

    def index(self, name: str) -> int:
        """Of a layer, or of a layer's name with ``.merged`` behind it."""
        if name.endswith(MERGED):
            return ~self.names.index(name.removesuffix(MERGED))
        return self.names.index(name)


def pyramid_names(strides: Sequence[int]) -> tuple[str, ...]:
    """``neck.p<log2 stride>``; of several maps with one stride the deepest has the plain name."""
    names: list[str] = []
    for index, stride in enumerate(strides):
        plain = f"neck.p{stride.bit_length() - 1}"
        earlier_twin = stride in strides[index + 1 :]
        names.append(f"{plain}_{index}" if earlier_twin else plain)
    return tuple(names)


@torch.no_grad()
def probe_neck(
    body: Callable[[Tensor, Collection[str]], dict[str, Tensor]],
    takes: tuple[str, ...],
    run: Run,
    needs: Needs,
    module: nn.Module,
    *,
    count: int,
    last: Sequence[nn.Module | None] = (),
    pixels: int = PROBE_PIXELS,
) -> Neck:
    """Run body and neck once on a small input and name the ``count`` maps by their strides."""
    device = next(module.parameters()).device
    training = module.training
    module.eval()
    maps = body(torch.zeros(1, 3, pixels, pixels, device=device), takes)
    found = run(maps, range(count))
    module.train(training)
    outputs = [found[index] for index in range(count)]
    strides = tuple(nearest_stride(pixels, x.shape[-2]) for x in outputs)
    channels = tuple(x.shape[1] for x in outputs)
    padded = (*last, *[None] * (count - len(last)))
    return Neck(takes, run, needs, pyramid_names(strides), strides, channels, padded)


@dataclass(frozen=True)
class TopDown:
    """torchvision's feature pyramid from its coarsest level down to the finest that is asked for."""

    fpn: FeaturePyramidNetwork
    takes: tuple[str, ...]

    @property
    def levels(self) -> int:
        return len(self.takes)

    @property
    def last(self) -> tuple[nn.Module | None, ...]:
        return tuple(block if _linear(block) else None for block in self.fpn.layer_blocks)

    def needs(self, wanted: Collection[int]) -> tuple[str, ...]:
        return self.takes[self._finest(wanted) :] if wanted else ()

    def run(self, maps: Mapping[str, Tensor], wanted: Collection[int]) -> dict[int, Tensor]:
        found: dict[int, Tensor] = {}
        beyond = [index for index in wanted if index >= self.levels]
        merged: Tensor | None = None
        for index in range(self.levels - 1, self._finest(wanted) - 1, -1):
            lateral = self.fpn.get_result_from_inner_blocks(maps[self.takes[index]], index)
            if merged is not None:
                lateral = lateral + F.interpolate(merged, size=lateral.shape[-2:], mode="nearest")
            merged = lateral
            if ~index in wanted:
                found[~index] = merged
            if index in wanted or (beyond and index == self.levels - 1):
                found[index] = self.fpn.get_result_from_layer_blocks(merged, index)
        if beyond:
            last = self.levels - 1
            more, _ = self.fpn.extra_blocks([found[last]], [maps[self.takes[-1]]], ["last"])
            found |= {index: more[index - last] for index in beyond}
        return found

    def _finest(self, wanted: Collection[int]) -> int:
        return min((min(index if index >= 0 else ~index, self.levels - 1) for index in wanted), default=0)


def _linear(block: nn.Module) -> bool:
    """Whether a layer block is one 3x3 convolution with same padding and, behind it, at most a frozen norm."""
    parts = list(block) if isinstance(block, nn.Sequential) else [block]
    convolution, rest = parts[0], parts[1:]
    return (
        type(convolution) is nn.Conv2d
        and convolution.kernel_size == (3, 3)
        and convolution.padding == (1, 1)
        and convolution.padding_mode == "zeros"
        and (convolution.stride, convolution.dilation, convolution.groups) == ((1, 1), (1, 1), 1)
        and all(isinstance(part, nn.modules.batchnorm._BatchNorm | FrozenBatchNorm2d) for part in rest)
    )
