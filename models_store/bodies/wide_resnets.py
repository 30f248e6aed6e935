"""ResNets that neither torchvision nor timm has: two and four times as wide, and ResNeXt-152.

Names: ``detrank/resnet50x2`` (stem widened too), ``detrank/resnet50x2_stem64``, ``detrank/resnext152_32x4d``; and
``detrank/resnet50_caffe``, torchvision's network with strides in its 1x1 convolutions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn
from torchvision.models import get_model
from torchvision.models.resnet import Bottleneck, ResNet

from models_store.bodies.strides import stride_in_1x1
from models_store.errors import Unusable

DEPTHS = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}
WIDE = re.compile(r"resnet(50|101|152)x([2-5])(_stem64)?")
GROUPED = re.compile(r"resnext(50|101|152)_(32|64)x([48])d")
STEM = 64
CAFFE = "_caffe"
STRIDED = re.compile(r"(wide_)?resnet(50|101|152)(_2)?")


class WideResNet(ResNet):
    """torchvision's ResNet whose every block, not only its 3x3, is ``widen`` times as wide."""

    def __init__(self, layers: tuple[int, ...], widen: int, stem: int) -> None:
        self.widen, self.stem = widen, stem
        super().__init__(Bottleneck, list(layers))
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.fc = nn.Linear(512 * widen * Bottleneck.expansion, 1000)

    def _make_layer(
        self, block: Any, planes: int, blocks: int, stride: int = 1, dilate: bool = False
    ) -> nn.Sequential:
        if planes == STEM:
            self.inplanes = self.stem
        return super()._make_layer(block, planes * self.widen, blocks, stride, dilate)


def build_wide(name: str) -> nn.Module:
    """The whole classifier called ``name``. Raises Unusable ``unknown_architecture``."""
    if name.endswith(CAFFE) and STRIDED.fullmatch(plain := name.removesuffix(CAFFE)):
        net = get_model(plain, weights=None)
        stride_in_1x1(net)
        return net
    if match := WIDE.fullmatch(name):
        widen = int(match[2])
        return WideResNet(DEPTHS[match[1]], widen, STEM if match[3] else STEM * widen)
    if match := GROUPED.fullmatch(name):
        return ResNet(Bottleneck, list(DEPTHS[match[1]]), groups=int(match[2]), width_per_group=int(match[3]))
    raise Unusable("unknown_architecture", f"no ResNet is called detrank/{name}")


def name_of(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The name of the ResNet with these body keys, read from shapes; None where they are no such ResNet's."""
    try:
        depths = tuple(
            len({k.split(".")[1] for k in shapes if k.startswith(f"layer{stage}.")}) for stage in range(1, 5)
        )
        depth = next(d for d, counts in DEPTHS.items() if counts == depths)
        stem, first = shapes["conv1.weight"][0], shapes["layer1.0.conv2.weight"]
        out = shapes["layer1.0.conv3.weight"][0]
    except (KeyError, StopIteration, IndexError):
        return None
    if out == STEM * Bottleneck.expansion and first[0] != first[1]:
        groups = first[0] // first[1]
        name = f"resnext{depth}_{groups}x{first[0] // groups}d"
        return f"detrank/{name}" if GROUPED.fullmatch(name) else None
    widen = out // (STEM * Bottleneck.expansion)
    name = f"resnet{depth}x{widen}" + ("_stem64" if stem == STEM else "")
    return f"detrank/{name}" if WIDE.fullmatch(name) else None
