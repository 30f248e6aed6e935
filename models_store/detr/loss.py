"""The set prediction loss of DETR (arXiv 2005.12872) and Deformable DETR (arXiv 2010.04159), weights included.

transformers' own has the class weight of Deformable DETR fixed at 1 where 2 was published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou, sigmoid_focal_loss

from models_store.detr.boxes import GIOU_COST, L1_COST, assign, box_costs
from models_store.detr.layerwise import Layerwise

L1_WEIGHT, GIOU_WEIGHT = L1_COST, GIOU_COST
NO_OBJECT_WEIGHT = 0.1
ALPHA, GAMMA = 0.25, 2.0


@dataclass(frozen=True)
class Target:
    """One image's objects: ``boxes`` (n, 4) cxcywh in [0, 1], ``labels`` (n,) from 0."""

    boxes: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Weights:
    """``classes`` weighs the class loss, ``matching`` the class term of the matching cost."""

    classes: float
    matching: float


SOFTMAX = Weights(classes=1.0, matching=1.0)
FOCAL = Weights(classes=2.0, matching=2.0)


def set_loss(
    outputs: Layerwise, targets: Sequence[Target], *, no_object: bool, weights: Weights | None = None
) -> dict[str, Tensor]:
    """Weighted losses by name, whose sum is the training loss: the last layer plain, layer i with suffix ``_i``.

    ``loss_ce``: cross entropy over classes and "no object" (weight 0.1), or focal loss, per box times queries;
    ``loss_bbox``: 5 L1; ``loss_giou``: 2 (1 - GIoU); each over the number of boxes in the batch, at least 1.
    Every layer is matched on its own. ``_enc``: the first stage of two-stage, where any object is class 0.
    """
    weights = weights or (SOFTMAX if no_object else FOCAL)
    boxes = max(1, sum(len(t.labels) for t in targets))
    last = len(outputs.logits) - 1
    found: dict[str, Tensor] = {}
    for index, (logits, predicted) in enumerate(zip(outputs.logits, outputs.boxes, strict=True)):
        one = _one_layer(logits, predicted, targets, boxes, no_object, weights)
        found |= {name + ("" if index == last else f"_{index}"): value for name, value in one.items()}
    if outputs.proposals is not None:
        anything = [Target(t.boxes, torch.zeros_like(t.labels)) for t in targets]
        one = _one_layer(*outputs.proposals, anything, boxes, no_object, weights)
        found |= {f"{name}_enc": value for name, value in one.items()}
    return found


def _one_layer(
    logits: Tensor,
    predicted: Tensor,
    targets: Sequence[Target],
    count: int,
    no_object: bool,
    weights: Weights,
) -> dict[str, Tensor]:
    """``logits`` (B, Q, C), ``predicted`` (B, Q, 4)."""
    matches = [
        match(logits[i], predicted[i], t, no_object=no_object, class_cost=weights.matching)
        for i, t in enumerate(targets)
    ]
    rows = torch.cat([torch.full_like(q, i) for i, (q, _) in enumerate(matches)])
    queries = torch.cat([q for q, _ in matches])
    labels = torch.cat([t.labels[o] for t, (_, o) in zip(targets, matches, strict=True)])
    wanted = torch.cat([t.boxes[o] for t, (_, o) in zip(targets, matches, strict=True)])
    chosen = predicted[rows, queries]
    overlap = generalized_box_iou(
        box_convert(chosen, "cxcywh", "xyxy"), box_convert(wanted, "cxcywh", "xyxy")
    )
    classes = (_cross_entropy if no_object else _focal)(logits, rows, queries, labels, count)
    return {
        "loss_ce": weights.classes * classes,
        "loss_bbox": L1_WEIGHT * F.l1_loss(chosen, wanted, reduction="sum") / count,
        "loss_giou": GIOU_WEIGHT * (1 - overlap.diagonal()).sum() / count,
    }


@torch.no_grad()
def match(
    logits: Tensor, predicted: Tensor, target: Target, *, no_object: bool, class_cost: float
) -> tuple[Tensor, Tensor]:
    """(queries, objects) of one image, min(Q, n) pairs; ``logits`` (Q, C), ``predicted`` (Q, 4).

    With more objects than queries the costliest objects stay without a query and train nothing, as published.
    """
    if no_object:
        cost = -logits.softmax(-1)[:, target.labels]
    else:
        p = logits.sigmoid()
        negative = (1 - ALPHA) * p**GAMMA * -(1 - p + 1e-8).log()
        positive = ALPHA * (1 - p) ** GAMMA * -(p + 1e-8).log()
        cost = (positive - negative)[:, target.labels]
    return assign(class_cost * cost + box_costs(predicted, target.boxes))


def _cross_entropy(logits: Tensor, rows: Tensor, queries: Tensor, labels: Tensor, count: int) -> Tensor:
    outputs = logits.shape[-1]
    wanted = torch.full(logits.shape[:2], outputs - 1, dtype=torch.long, device=logits.device)
    wanted[rows, queries] = labels
    weight = torch.ones(outputs, device=logits.device, dtype=logits.dtype)
    weight[-1] = NO_OBJECT_WEIGHT
    return F.cross_entropy(logits.transpose(1, 2), wanted, weight)


def _focal(logits: Tensor, rows: Tensor, queries: Tensor, labels: Tensor, count: int) -> Tensor:
    wanted = torch.zeros_like(logits)
    wanted[rows, queries, labels] = 1
    return sigmoid_focal_loss(logits, wanted, ALPHA, GAMMA, reduction="none").sum() / count
