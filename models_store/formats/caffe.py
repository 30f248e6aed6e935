"""ResNets that came from Caffe (MSRA's): BGR pixels in 0 to 255, and strides in their 1x1 convolutions.

mmdetection's `*_caffe` and detectron2's MSRA bodies have torchvision's names; what gives them away are norms whose
statistics were merged into their scales: all running means are 0 and all variances 1, while the scales are learned.
ResNeXts of that origin stride in the 3x3 and have a standard deviation (detectron2's X_101_32x8d configuration).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from models_store.bodies.wide_resnets import CAFFE
from models_store.formats.state import Recognised
from models_store.manifest import IMAGENET_MEAN, IMAGENET_STD

FIRST_MEAN = "layer1.0.bn1.running_mean"
TOLERANCE = 1e-4
BOTTLENECKS = re.compile(r"(torchvision|timm)/((wide_)?resnet(50|101|152)(_2)?)")
UNSCALED_STD = (1 / 255, 1 / 255, 1 / 255)


def looks_like_caffe(tensors: Mapping[str, Tensor]) -> str | None:
    """The prefix of the ResNet body whose norms have merged statistics, None where there is none."""
    prefix = next((k.removesuffix(FIRST_MEAN) for k in tensors if k.endswith(FIRST_MEAN)), None)
    if prefix is None:
        return None
    norms = {k for k in tensors if k.startswith(prefix) and k.endswith(".running_mean")}
    scales = [tensors[k.replace(".running_mean", ".weight")] for k in norms]
    merged = all(
        bool((tensors[k] == 0).all())
        and bool(((tensors[k.replace("_mean", "_var")] - 1).abs() <= TOLERANCE).all())
        for k in norms
    )
    # Scales of 0 and 1 are those that a network begins with.
    return prefix if merged and any(bool(((s != 1) & (s != 0)).any()) for s in scales) else None


@torch.no_grad()
def settle(found: Recognised, asked: bool | None, order: str | None) -> tuple[Recognised, str]:
    """``found`` with strides and normalisation as in Caffe where its norms say so, and its channel order.

    ``asked``: the option ``stride_in_1x1``, ``order``: the given channel order; they decide instead of the guess.
    """
    prefix = looks_like_caffe(found.tensors)
    if prefix is None:
        return (_strided(found) if asked else found), order or found.channel_order or "rgb"
    grouped = _is_grouped(found.tensors, prefix)
    strided = not grouped if asked is None else bool(asked)
    where = "1x1" if strided else "3x3"
    given, order = order, order or found.channel_order or "bgr"
    warning = (
        f"all norms of the body have mean 0 and variance 1, as ResNets from Caffe (MSRA) have: read as {order.upper()} with strides "
        f"in the {where} convolutions; options stride_in_1x1, channel_order, mean and std decide otherwise"
    )
    std = IMAGENET_STD if grouped else UNSCALED_STD
    found = replace(
        found,
        input={"mean": IMAGENET_MEAN, "std": std, **found.input},
        warnings=(*found.warnings, *((warning,) if asked is None or given is None else ())),
    )
    return (_strided(found) if strided else found), order


def _is_grouped(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    first = tensors[prefix + "layer1.0.conv2.weight"]
    return prefix + "layer1.0.conv3.weight" in tensors and first.shape[0] != first.shape[1]


def _strided(found: Recognised) -> Recognised:
    """Strides in the 1x1: a backbone of its own name, or an option of a whole detector."""
    if found.kind == "detector":
        return replace(found, options={**found.options, "stride_in_1x1": True})
    match = BOTTLENECKS.fullmatch(str(found.backbone))
    if match is None:
        return found
    tensors = {key.replace("body.model.", "body."): value for key, value in found.tensors.items()}
    return replace(found, backbone=f"detrank/{match[2]}{CAFFE}", tensors=tensors)
