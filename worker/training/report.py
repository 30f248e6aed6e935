"""What a training says of its losses."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from worker.training.errors import TrainingDiverged
from worker.training.plan import Plan

# A DETR has the same losses for each decoder layer before the last.
AUXILIARY = re.compile(r"_(\d+|enc)$")


def averaged(summed: Mapping[str, Tensor], steps: int) -> dict[str, float]:
    """Means by name, those of earlier decoder layers added up as `auxiliary`. One transfer from the device."""
    if not summed:
        return {}
    values = (torch.stack(list(summed.values())) / max(steps, 1)).tolist()
    found: dict[str, float] = {}
    for name, value in zip(summed, values, strict=True):
        kind = "auxiliary" if AUXILIARY.search(name) else name
        found[kind] = found.get(kind, 0.0) + value
    return found


def diverged(
    losses: Mapping[str, float], iteration: int, rate: float, plan: Plan, precision: torch.dtype
) -> TrainingDiverged:
    wrong = sorted(name for name, value in losses.items() if not math.isfinite(value))
    advice = [f"a lower rate (lr_factor {plan.lr_factor / 3:.2g})"]
    if precision != torch.float32:
        advice.append("precision float32")
    if plan.recipe.clip_norm is None:
        advice.append("a recipe that clips gradients, such as quick")
    return TrainingDiverged(
        f"{', '.join(wrong)} stopped being a finite number by iteration {iteration}, at rate {rate:.2g} (recipe "
        f"{plan.recipe.name}, batch {plan.batch_size}): try {', or '.join(advice)}"
    )
