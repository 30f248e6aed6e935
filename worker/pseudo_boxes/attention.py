"""What the last block of a vision transformer looks at, and which of its tokens are alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from timm.layers import Attention
from torch import Tensor, nn

from models_store.detector import Detector
from models_store.sizes import Size
from worker.pseudo_boxes.pseudo_boxes import Unteachable


@dataclass(frozen=True, eq=False)
class Tokens:
    """Of one picture with h x w patches: `attention` (h, w) float64, the mean over heads of what the class token looks at,
    where there is none of what all tokens look at; `vectors` (h * w, d) float32 of length 1, attention times value."""

    attention: np.ndarray
    vectors: np.ndarray


def transformer_of(detector: Detector) -> nn.Module:
    """The vision transformer within. Raises Unteachable `no_attention`."""
    for part in detector.module.modules():
        blocks: Any = getattr(part, "blocks", None)
        chain = (
            isinstance(blocks, nn.Sequential | nn.ModuleList) and len(blocks) and hasattr(part, "patch_embed")
        )
        if chain and isinstance(getattr(blocks[-1], "attn", None), Attention):
            return part
    raise Unteachable(
        "no_attention",
        f"{detector.manifest.backbone or detector.manifest.architecture} has no attention over one grid of patches: cuts need "
        "a plain vision transformer, such as DINO's in timm/vit_small_patch16_224; or use selective_search",
    )


@torch.no_grad()
def tokens_of(detector: Detector, pixels: np.ndarray, image_size: Size) -> Tokens:
    """Of a picture uint8 (height, width, 3) whose shorter side becomes `image_size`. Raises Unteachable `no_attention`."""
    net = transformer_of(detector)
    layer = next(each.name for each in reversed(detector.layers) if each.name.startswith("backbone."))
    seen: dict[str, Any] = {}

    def before_attention(_: nn.Module, inputs: tuple[Tensor, ...], __: Any = None) -> None:
        seen["x"] = inputs[0]

    def after_patches(_: nn.Module, __: Any, output: Tensor) -> None:
        seen["grid"] = tuple(output.shape[1:3])

    last: Attention = net.blocks[-1].attn
    handles = [
        last.register_forward_pre_hook(before_attention),
        net.patch_embed.register_forward_hook(after_patches),
    ]
    try:
        detector.feature_maps(detector.prepare([pixels], image_size), [layer])
    finally:
        for handle in handles:
            handle.remove()
    attention, vectors = _attend(last, seen["x"], int(net.num_prefix_tokens))
    rows, columns = seen["grid"]
    # What was padded for the sake of strides is no picture.
    height, width = detector.resized(pixels.shape[0], pixels.shape[1], image_size)
    padded = detector.prepare([pixels], image_size).shape[-2:]
    inside = max(1, round(rows * height / padded[0])), max(1, round(columns * width / padded[1]))
    grid = vectors.view(rows, columns, -1)[: inside[0], : inside[1]].reshape(inside[0] * inside[1], -1)
    return Tokens(
        attention.view(rows, columns)[: inside[0], : inside[1]].double().cpu().numpy(),
        torch.nn.functional.normalize(grid.float(), dim=1).cpu().numpy(),
    )


def _attend(layer: Attention, x: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
    """(n,) what is looked at, (n, d) attention times value, of the patches of one picture; one head at a time."""
    _, count, _ = x.shape
    query, key, value = (
        layer.qkv(x).reshape(count, 3, layer.num_heads, layer.head_dim).permute(1, 2, 0, 3).unbind(0)
    )
    query, key = layer.q_norm(query), layer.k_norm(key)
    looked = x.new_zeros(count - prefix)
    mixed = []
    for q, k, v in zip(query, key, value, strict=True):
        weights = (q * layer.scale @ k.T).softmax(dim=-1)
        looked += (weights[0] if prefix else weights.mean(dim=0))[prefix:] / layer.num_heads
        mixed.append((weights @ v)[prefix:])
    return looked, torch.cat(mixed, dim=1)
