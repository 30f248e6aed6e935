"""Initial weights that depend on a seed and a parameter's name only, not on the order of construction."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable

import torch
from torch import nn

PREDICTORS = (
    "box_predictor",
    "mask_predictor",
    "keypoint_predictor",
    "cls_logits",
    "cls_preds",
    "bbox_pred",
    "bbox_reg",
    "classification_head.module_list",
    "regression_head.module_list",
    "objectness",
)
PREDICTOR_STD = 0.01
FOCAL_PRIOR = 0.01


@torch.no_grad()
def initialise(module: nn.Module, names: Iterable[str], seed: int, *, focal: bool = False) -> None:
    """Fill the named parameters and buffers in place.

    Convolutions and linear layers: normal with variance 1/fan_in, predictors 0.01; norms and scales one,
    biases zero; ``focal`` sets classification biases so that every class starts at probability 0.01
    (arXiv 1708.02002, section 3.3). Raises KeyError for a name that the module does not have.
    """
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    for name in names:
        tensor = tensors[name]
        last = name.rsplit(".", 1)[-1]
        if last in {"running_mean", "num_batches_tracked"}:
            tensor.zero_()
        elif last in {"running_var", "scale_weight"} or (last == "weight" and tensor.dim() < 2):
            tensor.fill_(1)
        elif tensor.dim() < 2:
            prior = focal and any(part in name for part in ("cls_logits", "cls_preds"))
            tensor.fill_(-math.log((1 - FOCAL_PRIOR) / FOCAL_PRIOR) if prior else 0.0)
        else:
            generator = torch.Generator().manual_seed(seed * 0x9E3779B1 + zlib.crc32(name.encode()))
            fan_in = math.prod(tensor.shape[1:])
            std = PREDICTOR_STD if any(part in name for part in PREDICTORS) else fan_in**-0.5
            values = torch.empty(tensor.shape).normal_(0.0, std, generator=generator)
            tensor.copy_(values)
