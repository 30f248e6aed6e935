"""YOLOX's network (arXiv 2107.08430): CSPDarknet, a path aggregation pyramid, decoupled heads without anchors.

Submodules have the published code's names, so that its state dicts load as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDES = (8, 16, 32)
# Of every batch norm, in training too.
EPS, MOMENTUM = 1e-3, 0.03
POOLS = (5, 9, 13)
# Pictures are padded with this grey; prepared pixels are counted from it, so that their padding is zero.
GREY = 114.0
ACTIVATIONS = {"silu": nn.SiLU, "relu": nn.ReLU, "lrelu": lambda: nn.LeakyReLU(0.1)}


@dataclass(frozen=True)
class Sizes:
    """``base``: channels of the stem. ``blocks``: bottlenecks in dark2 to dark5. ``neck_blocks``: in each part of the pyramid.

    ``head``: channels of the heads. ``depthwise``: 3x3 convolutions are depthwise ones and a 1x1.
    """

    base: int
    blocks: tuple[int, int, int, int]
    neck_blocks: int
    head: int
    depthwise: bool = False
    activation: str = "silu"


class ConvNorm(nn.Module):
    def __init__(
        self, sizes: Sizes, into: int, out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=EPS, momentum=MOMENTUM)
        self.act = ACTIVATIONS[sizes.activation]()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Depthwise(nn.Module):
    def __init__(self, sizes: Sizes, into: int, out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.dconv = ConvNorm(sizes, into, into, kernel, stride, groups=into)
        self.pconv = ConvNorm(sizes, into, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pconv(self.dconv(x))


def spatial(sizes: Sizes, into: int, out: int, stride: int = 1) -> nn.Module:
    """A 3x3 convolution of the kind that this size has."""
    return (Depthwise if sizes.depthwise else ConvNorm)(sizes, into, out, 3, stride)


class Bottleneck(nn.Module):
    def __init__(self, sizes: Sizes, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = ConvNorm(sizes, channels, channels, 1)
        self.conv2 = spatial(sizes, channels, channels)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class Csp(nn.Module):
    """Two branches, of which one goes through the bottlenecks (arXiv 1911.11929)."""

    def __init__(self, sizes: Sizes, into: int, out: int, blocks: int, shortcut: bool) -> None:
        super().__init__()
        half = out // 2
        self.conv1, self.conv2 = ConvNorm(sizes, into, half, 1), ConvNorm(sizes, into, half, 1)
        self.conv3 = ConvNorm(sizes, 2 * half, out, 1)
        self.m = nn.Sequential(*(Bottleneck(sizes, half, shortcut) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(torch.cat([self.m(self.conv1(x)), self.conv2(x)], dim=1))


class PooledPyramid(nn.Module):
    """Max pools of three sizes beside the map itself (arXiv 1406.4729)."""

    def __init__(self, sizes: Sizes, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(sizes, channels, channels // 2, 1)
        self.conv2 = ConvNorm(sizes, channels // 2 * (len(POOLS) + 1), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.conv2(torch.cat([x, *(F.max_pool2d(x, k, 1, k // 2) for k in POOLS)], dim=1))


class Focus(nn.Module):
    """Every 2x2 pixels become one cell: top left, bottom left, top right, bottom right.

    ``shift`` is added to the pixels first: what the published code sees where nothing is subtracted.
    """

    def __init__(self, sizes: Sizes, shift: float) -> None:
        super().__init__()
        self.conv = ConvNorm(sizes, 12, sizes.base, 3)
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.conv(torch.cat(parts, dim=1) + self.shift)


class Darknet(nn.Module):
    """Five steps of strides 2 to 32."""

    def __init__(self, sizes: Sizes, shift: float) -> None:
        super().__init__()
        base = sizes.base
        self.stem = Focus(sizes, shift)
        for index, blocks in enumerate(sizes.blocks):
            into, out = base * 2**index, base * 2 ** (index + 1)
            last = index == len(sizes.blocks) - 1
            pooled = [PooledPyramid(sizes, out)] if last else []
            parts = [spatial(sizes, into, out, 2), *pooled, Csp(sizes, out, out, blocks, not last)]
            self.add_module(f"dark{index + 2}", nn.Sequential(*parts))

    @property
    def steps(self) -> list[nn.Module]:
        return list(self.children())


class Pafpn(nn.Module):
    """From c3, c4 and c5 down to the finest map and up again (arXiv 1803.01534)."""

    def __init__(self, sizes: Sizes, shift: float) -> None:
        super().__init__()
        three, four, five = (sizes.base * 2**k for k in (2, 3, 4))
        blocks = sizes.neck_blocks
        self.backbone = Darknet(sizes, shift)
        self.lateral_conv0 = ConvNorm(sizes, five, four, 1)
        self.C3_p4 = Csp(sizes, 2 * four, four, blocks, False)
        self.reduce_conv1 = ConvNorm(sizes, four, three, 1)
        self.C3_p3 = Csp(sizes, 2 * three, three, blocks, False)
        self.bu_conv2 = spatial(sizes, three, three, 2)
        self.C3_n3 = Csp(sizes, 2 * three, four, blocks, False)
        self.bu_conv1 = spatial(sizes, four, four, 2)
        self.C3_n4 = Csp(sizes, 2 * four, five, blocks, False)

    def maps(self, c3: Tensor, c4: Tensor, c5: Tensor, wanted: Collection[int]) -> dict[int, Tensor]:
        """Maps of strides 8, 16 and 32 by index, no coarser than asked."""
        coarse = self.lateral_conv0(c5)
        middle = self.reduce_conv1(self.C3_p4(torch.cat([_doubled(coarse, c4), c4], dim=1)))
        found = {0: self.C3_p3(torch.cat([_doubled(middle, c3), c3], dim=1))}
        if max(wanted) > 0:
            found[1] = self.C3_n3(torch.cat([self.bu_conv2(found[0]), middle], dim=1))
        if max(wanted) > 1:
            found[2] = self.C3_n4(torch.cat([self.bu_conv1(found[1]), coarse], dim=1))
        return {index: found[index] for index in wanted}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        seen = []
        for step in self.backbone.steps:
            x = step(x)
            seen.append(x)
        c3, c4, c5 = seen[-3:]
        return {str(i): m for i, m in self.maps(c3, c4, c5, range(len(STRIDES))).items()}


def _doubled(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


class Head(nn.Module):
    """Classes by one branch; box and objectness by another; per level."""

    def __init__(self, sizes: Sizes, num_classes: int) -> None:
        super().__init__()
        width = sizes.head
        levels = [sizes.base * 2**k for k in (2, 3, 4)]

        def branches() -> nn.ModuleList:
            return nn.ModuleList(
                nn.Sequential(spatial(sizes, width, width), spatial(sizes, width, width)) for _ in levels
            )

        self.stems = nn.ModuleList(ConvNorm(sizes, channels, width, 1) for channels in levels)
        self.cls_convs, self.reg_convs = branches(), branches()
        self.cls_preds, self.reg_preds, self.obj_preds = (
            nn.ModuleList(nn.Conv2d(width, outputs, 1) for _ in levels) for outputs in (num_classes, 4, 1)
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (B, A, 4) xyxy in input pixels, logits of objectness (B, A) and of classes (B, A, C), fine levels first."""
        boxes, objects, classes = [], [], []
        for level, x in enumerate(maps):
            x = self.stems[level](x)
            located = self.reg_convs[level](x)
            classes.append(_rows(self.cls_preds[level](self.cls_convs[level](x))))
            objects.append(_rows(self.obj_preds[level](located)))
            boxes.append(_decoded(_rows(self.reg_preds[level](located)), x, STRIDES[level]))
        return torch.cat(boxes, 1), torch.cat(objects, 1)[..., 0], torch.cat(classes, 1)


def _rows(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def _decoded(offsets: Tensor, x: Tensor, stride: int) -> Tensor:
    """Centre from the cell's corner in cells, sides as exponents of cells."""
    grid = cells(x.shape[-2], x.shape[-1], offsets)
    centre = (offsets[..., :2].float() + grid) * stride
    sides = offsets[..., 2:].float().exp() * stride
    return torch.cat([centre - sides / 2, centre + sides / 2], dim=-1)


def cells(rows: int, columns: int, like: Tensor) -> Tensor:
    """(rows * columns, 2) x and y of each cell's corner, in cells."""
    y, x = torch.meshgrid(
        torch.arange(rows, device=like.device), torch.arange(columns, device=like.device), indexing="ij"
    )
    return torch.stack([x, y], dim=-1).view(-1, 2).float()
