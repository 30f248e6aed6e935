"""Predictions of every decoder layer, which transformers gives only together with its own loss.

transformers' ``auxiliary_loss`` switch also changes what DETR computes (each layer then reads the normalised output
of the one before), so the layers are read by hooks and the heads applied here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models_store.detr.families import Family

EPSILON = 1e-5


@dataclass(frozen=True)
class Layerwise:
    """``logits`` (L, B, Q, C) and ``boxes`` (L, B, Q, 4) cxcywh in [0, 1], the last decoder layer last.

    ``proposals``: (logits (B, N, C), boxes (B, N, 4)) of the first stage of two-stage Deformable DETR. ``states``:
    (B, Q, d), what the last layer's heads read; None for YOLOS.
    """

    logits: Tensor
    boxes: Tensor
    proposals: tuple[Tensor, Tensor] | None = None
    states: Tensor | None = None

    def float(self) -> Layerwise:
        """In float32, whatever the network ran in."""
        proposals = None if self.proposals is None else (self.proposals[0].float(), self.proposals[1].float())
        states = None if self.states is None else self.states.float()
        return Layerwise(self.logits.float(), self.boxes.float(), proposals, states)


def layerwise(module: nn.Module, family: Family, pixels: Tensor, mask: Tensor) -> Layerwise:
    """All decoder layers of a family with ``set_loss``; YOLOS has only the last."""
    if family.tokens:
        outputs = module(pixel_values=pixels)
        return Layerwise(outputs.logits[None], outputs.pred_boxes[None])
    if family.memory == "levels":
        return _deformable(module, module(pixel_values=pixels, pixel_mask=mask))
    return _detr(module, family, pixels, mask)


def _detr(module: nn.Module, family: Family, pixels: Tensor, mask: Tensor) -> Layerwise:
    decoder = module.model.decoder
    seen: list[Tensor] = []
    kept: dict[str, Any] = {}

    def after_layer(_: nn.Module, __: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    def after_decoder(_: nn.Module, __: Any, output: Any) -> None:
        kept["decoder"] = output

    handles = [layer.register_forward_hook(after_layer) for layer in decoder.layers]
    handles.append(decoder.register_forward_hook(after_decoder))
    try:
        outputs = module(pixel_values=pixels, pixel_mask=mask)
    finally:
        for handle in handles:
            handle.remove()
    centres = None
    if family.model_type == "conditional_detr":
        centres = unsquash(kept["decoder"].reference_points).transpose(0, 1)
    logits, boxes = [], []
    for state in seen[:-1]:
        normed = decoder.layernorm(state)
        logits.append(module.class_labels_classifier(normed))
        delta = module.bbox_predictor(normed)
        boxes.append(_shifted(delta, centres).sigmoid())
    return Layerwise(
        torch.stack([*logits, outputs.logits]),
        torch.stack([*boxes, outputs.pred_boxes]),
        states=outputs.last_hidden_state,
    )


def _deformable(module: nn.Module, outputs: Any) -> Layerwise:
    states = outputs.intermediate_hidden_states
    logits, boxes = [], []
    for index in range(states.shape[1] - 1):
        before = (
            outputs.init_reference_points
            if index == 0
            else outputs.intermediate_reference_points[:, index - 1]
        )
        state = states[:, index]
        logits.append(module.class_embed[index](state))
        boxes.append(_shifted(module.bbox_embed[index](state), unsquash(before)).sigmoid())
    proposals = None
    if module.config.two_stage:
        proposals = (outputs.enc_outputs_class, outputs.enc_outputs_coord_logits.sigmoid())
    return Layerwise(
        torch.stack([*logits, outputs.logits]),
        torch.stack([*boxes, outputs.pred_boxes]),
        proposals,
        states[:, -1],
    )


def _shifted(delta: Tensor, reference: Tensor | None) -> Tensor:
    """Box logits around a reference: centres only where it has two coordinates."""
    if reference is None:
        return delta
    known = reference.shape[-1]
    return torch.cat([delta[..., :known] + reference, delta[..., known:]], dim=-1)


def unsquash(x: Tensor) -> Tensor:
    """The logit of x in [0, 1], bounded at 1e-5 as the published code does."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=EPSILON) / (1 - x).clamp(min=EPSILON))
