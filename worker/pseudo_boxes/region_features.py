"""What a backbone sees in each region of a picture: ROI align of its maps, in cells, and of what is around."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models_store.detector import Detector
from worker.features.pool import local_vectors
from worker.pseudo_boxes.pseudo_boxes import Unteachable

VERSION = "region_features/1"
DEFAULT_STRIDE = 16
LARGEST = 65504.0  # of float16


@dataclass(frozen=True)
class FeatureSettings:
    """`layers`: maps of the backbone, () for the one whose stride is nearest to 16; `image_size`: shorter side in pixels.

    A region is read as `grid` x `grid` cells and, with `context` above 1, as the box that is so many times as wide and
    high around it. Both tell a part from the whole and where to move; with few real pictures they are learned by heart
    (docs/studies/pseudo-boxes).
    """

    layers: tuple[str, ...] = ()
    image_size: int | None = 320
    grid: int = 1
    context: float = 1.0


def layers_of(detector: Detector, asked: Sequence[str]) -> tuple[str, ...]:
    """The maps to read. Raises Unteachable `unknown_layer`."""
    maps = {layer.name: layer for layer in detector.layers if layer.kind == "map"}
    if unknown := sorted(set(asked) - set(maps)):
        raise Unteachable(
            "unknown_layer", f"{detector.manifest.architecture} has no map {unknown}: {', '.join(maps)}"
        )
    if asked:
        return tuple(asked)
    body = [layer for layer in maps.values() if layer.name.startswith("backbone.")] or list(maps.values())
    if not body:
        raise Unteachable(
            "unknown_layer", f"{detector.manifest.architecture} gives no map to read regions from"
        )
    nearest = min(body, key=lambda layer: (abs(np.log2((layer.stride or 1) / DEFAULT_STRIDE)), layer.name))
    return (nearest.name,)


@torch.no_grad()
def region_vectors(
    detector: Detector, pixels: np.ndarray, boxes: np.ndarray, settings: FeatureSettings = FeatureSettings()
) -> np.ndarray:
    """(n, D) float16 of `boxes` (n, 4) xyxy in pixels of a picture uint8 (h, w, 3) RGB. Raises Unteachable `unknown_layer`."""
    layers = layers_of(detector, settings.layers)
    prepared = detector.prepare([pixels], settings.image_size)
    height, width = detector.resized(pixels.shape[0], pixels.shape[1], settings.image_size)
    scale = np.array([width / pixels.shape[1], height / pixels.shape[0]] * 2, np.float32)
    cells = _cells(torch.as_tensor(boxes * scale), settings, (height, width))
    padded = (prepared.shape[-2], prepared.shape[-1])
    maps = detector.feature_maps(prepared, layers)
    parts = [local_vectors(maps[layer], [cells.view(-1, 4)], padded) for layer in layers]
    joined = torch.cat([part.view(len(boxes), cells.shape[1] * part.shape[1]) for part in parts], dim=1)
    return joined.cpu().numpy().clip(-LARGEST, LARGEST).astype(np.float16)


def _cells(boxes: Tensor, settings: FeatureSettings, image_hw: tuple[int, int]) -> Tensor:
    """(n, grid * grid [+ 1], 4): the cells of each box, row by row, then the box around it, cut at the picture."""
    low, high = boxes[:, :2], boxes[:, 2:]
    step = (high - low) / settings.grid
    found = []
    for row in range(settings.grid):
        for column in range(settings.grid):
            corner = low + step * step.new_tensor([column, row])
            found.append(torch.cat([corner, corner + step], dim=1))
    if settings.context > 1:
        middle, half = (low + high) / 2, (high - low) / 2 * settings.context
        extent = boxes.new_tensor([image_hw[1], image_hw[0]])
        around = [(middle - half).clamp(min=0), torch.minimum(middle + half, extent)]
        found.append(torch.cat(around, dim=1))
    return torch.stack(found, dim=1)
