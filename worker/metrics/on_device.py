"""Scoring with the features on a torch device. Import this module only where torch is wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from worker.metrics import torch_scan
from worker.metrics.base import Calibration, FeatureSet, Score
from worker.metrics.engine import Source
from worker.metrics.options import DEFAULTS, Options
from worker.metrics.registry import score_source


class Tensors(NamedTuple):
    """Features that already lie on the device: (N, D) of the objects, (R, D) of the regions; None: to be copied there."""

    objects: torch.Tensor | None = None
    regions: torch.Tensor | None = None


NOWHERE = Tensors()


def score_on_device(
    features: FeatureSet,
    metrics: Sequence[str],
    *,
    device: str = "cuda",
    tensors: Tensors = NOWHERE,
    permutations: int = 0,
    groups: int = 0,
    seed: int = 0,
    options: Options = DEFAULTS,
    check: Callable[[], None] | None = None,
) -> dict[str, Score]:
    """Like `score`, with the work that grows with N on `device`."""
    x = _on_device(features.features, tensors.objects, device)
    regions = features.regions
    region_x = None if regions is None else _on_device(regions.features, tensors.regions, device)
    source = Source(torch_scan, features, x, region_x)
    return score_source(source, metrics, Calibration(permutations, groups, seed, check), options)


def _on_device(features: np.ndarray, tensor: torch.Tensor | None, device: str) -> torch.Tensor:
    if tensor is None:
        tensor = torch.as_tensor(np.ascontiguousarray(features), device=device)
    return (tensor if tensor.is_floating_point() else tensor.to(torch.float64)).detach()
