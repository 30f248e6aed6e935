"""Where the surest query of a detector looks: the cross-attention of the last decoder layer, of DETR and of Deformable DETR."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models_store.detr.boxes import absolute
from models_store.detr.detector import DetrDetector
from models_store.sizes import Size

# Of the models that have it in the form that is read here.
READ = ("detr", "deformable_detr")
CELL = 16  # pixels of a map of where points lie


@dataclass(frozen=True, eq=False)
class LookedAt:
    """``attention`` (h, w) float64 over the picture, its sum is 1; ``box`` (4,) xyxy in pixels, ``label`` and ``score`` of the query."""

    attention: np.ndarray
    box: np.ndarray
    label: int
    score: float


@torch.no_grad()
def looked_at(detector: DetrDetector, image: np.ndarray, image_size: Size | None = None) -> LookedAt:
    """Of the query with the highest class score. ``image`` uint8 (h, w, 3) RGB. Raises KeyError for another kind of detector."""
    if detector.family.model_type not in READ:
        raise KeyError(f"{detector.family.title} is not one of {', '.join(READ)}")
    pixels = detector.prepare([image], image_size)
    cross = detector.module.model.decoder.layers[-1].encoder_attn
    seen: dict[str, Any] = {}
    deformable = detector.family.memory == "levels"
    handles = _points(cross, seen) if deformable else _products(cross, detector.module.model, seen)
    mask = torch.ones_like(pixels[:, 0], dtype=torch.long)
    try:
        outputs = detector.module(pixel_values=pixels, pixel_mask=mask)
    finally:
        for handle in handles:
            handle.remove()
    logits = outputs.logits[0]
    scores = logits.softmax(-1)[:, :-1] if detector.family.no_object else logits.sigmoid()
    query = int(scores.max(dim=1).values.argmax())
    rows, columns = pixels.shape[-2:]
    grid = (max(1, rows // CELL), max(1, columns // CELL))
    heads = detector.module.config.decoder_attention_heads
    attention = _splat(seen, query, grid) if deformable else _softmax(seen, query, heads)
    box = absolute(outputs.pred_boxes[0, query], (image.shape[0], image.shape[1]))
    return LookedAt(
        (attention / attention.sum()).double().cpu().numpy(),
        box.double().cpu().numpy(),
        int(scores[query].argmax()),
        float(scores[query].max()),
    )


def _points(cross: nn.Module, seen: dict[str, Any]) -> list[Any]:
    def before(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen["places"], seen["weights"] = inputs[4], inputs[5]

    return [cross.attn.register_forward_pre_hook(before)]


def _splat(seen: dict[str, Any], query: int, grid: tuple[int, int]) -> Tensor:
    """Weights of the points that a query reads, of all heads and levels, added up in cells."""
    places = seen["places"][0, query].reshape(-1, 2)
    weights = seen["weights"][0, query].reshape(-1)
    rows, columns = grid
    inside = ((places >= 0) & (places < 1)).all(dim=1)
    column = (places[inside, 0] * columns).long()
    row = (places[inside, 1] * rows).long()
    found = weights.new_full((rows * columns,), 1e-9)
    return found.index_add(0, row * columns + column, weights[inside]).view(rows, columns)


def _products(cross: nn.Module, model: nn.Module, seen: dict[str, Any]) -> list[Any]:
    def keep(name: str) -> Any:
        return lambda _, __, output: seen.update({name: output})

    layers = {"query": cross.q_proj, "key": cross.k_proj, "map": model.input_projection}
    return [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]


def _softmax(seen: dict[str, Any], query: int, heads: int) -> Tensor:
    """The mean over heads of what a query looks at."""
    asked = seen["query"][0, query].view(heads, -1)
    keys = seen["key"][0].view(len(seen["key"][0]), heads, -1)
    products = torch.einsum("hd,nhd->hn", asked, keys) / asked.shape[1] ** 0.5
    return products.softmax(dim=1).mean(dim=0).view(seen["map"].shape[-2:])
