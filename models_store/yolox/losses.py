"""YOLOX's training: which points learn which object (SimOTA, arXiv 2107.08430, section 2.1), and what they learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

RADIUS = 2.5
CANDIDATES = 10
IOU_COST = 3.0
FAR = 1e5
BOX_WEIGHT = 5.0
EPS = 1e-8


@dataclass(frozen=True)
class Points:
    """``centres`` (A, 2) in input pixels, ``strides`` (A,)."""

    centres: Tensor
    strides: Tensor


def losses(
    boxes: Tensor, objects: Tensor, classes: Tensor, points: Points, targets: Sequence[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """``loss_box``: 5 (1 - IoU^2); ``loss_objectness`` of every point, ``loss_classification`` towards the IoU; all over the
    number of points that learn an object, at least 1.

    ``boxes`` (B, A, 4) xyxy, ``objects`` (B, A) and ``classes`` (B, A, C) logits; ``targets``: boxes (n, 4), labels (n,).
    """
    learned = torch.zeros_like(objects)
    box_terms, class_terms = [boxes.sum() * 0], [classes.sum() * 0]
    count = 0
    for row, target in enumerate(targets):
        wanted, labels = target["boxes"].to(boxes), target["labels"]
        chosen, whose, overlap = assign(boxes[row], objects[row], classes[row], points, wanted, labels)
        if not len(chosen):
            continue
        count += len(chosen)
        learned[row, chosen] = 1
        box_terms.append((1 - _pairwise_iou(boxes[row, chosen], wanted[whose]) ** 2).sum())
        soft = F.one_hot(labels[whose], classes.shape[-1]) * overlap[:, None]
        class_terms.append(
            F.binary_cross_entropy_with_logits(classes[row, chosen].float(), soft.float(), reduction="sum")
        )
    number = max(count, 1)
    objectness = F.binary_cross_entropy_with_logits(objects.float(), learned.float(), reduction="sum")
    return {
        "loss_box": BOX_WEIGHT * torch.stack(box_terms).sum() / number,
        "loss_objectness": objectness / number,
        "loss_classification": torch.stack(class_terms).sum() / number,
    }


@torch.no_grad()
def assign(
    boxes: Tensor, objects: Tensor, classes: Tensor, points: Points, wanted: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(points, the object of each, their IoU) of one image, by SimOTA.

    An object takes the points of least cost: classes plus 3 x -log IoU, and much more outside its box and centre (2.5
    cells around it). It takes as many as its ten best IoUs sum up to, at least one; a point that several want goes to the
    cheapest.
    """
    empty = torch.zeros(0, dtype=torch.long, device=boxes.device)
    if not len(wanted):
        return empty, empty, boxes.new_zeros(0)
    inside, central = _inside(points, wanted)
    near = torch.nonzero((inside | central).any(0)).flatten()
    if not len(near):
        return empty, empty, boxes.new_zeros(0)
    overlap = box_iou(wanted, boxes[near])
    scores = (classes[near].float().sigmoid() * objects[near, None].float().sigmoid()).sqrt()
    truth = F.one_hot(labels, classes.shape[-1]).float()
    class_cost = F.binary_cross_entropy(
        scores[None].expand(len(wanted), -1, -1), truth[:, None].expand(-1, len(near), -1), reduction="none"
    ).sum(-1)
    fits = (inside & central)[:, near]
    cost = class_cost - IOU_COST * (overlap + EPS).log() + FAR * ~fits
    taken = torch.zeros_like(cost, dtype=torch.bool)
    numbers = overlap.topk(min(CANDIDATES, len(near)), dim=1).values.sum(1).int().clamp(min=1)
    for row, number in enumerate(numbers.tolist()):
        taken[row, cost[row].topk(number, largest=False).indices] = True
    several = taken.sum(0) > 1
    cheapest = cost[:, several].argmin(0)
    taken[:, several] = F.one_hot(cheapest, len(wanted)).bool().T
    columns = torch.nonzero(taken.any(0)).flatten()
    whose = taken[:, columns].int().argmax(0)
    return near[columns], whose, overlap[whose, columns]


def _inside(points: Points, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """(n, A) whether a point is in an object's box, and in the square around its centre."""
    x, y = points.centres.T[:, None]
    left, top, right, bottom = wanted.T[..., None]
    boxed = (x > left) & (x < right) & (y > top) & (y < bottom)
    reach = RADIUS * points.strides
    central = ((x - (left + right) / 2).abs() < reach) & ((y - (top + bottom) / 2).abs() < reach)
    return boxed, central


def _pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """(n,) of boxes that belong together, with a gradient."""
    low = torch.maximum(first[:, :2], second[:, :2])
    high = torch.minimum(first[:, 2:], second[:, 2:])
    common = (high - low).clamp(min=0).prod(1)
    areas = [(x[:, 2:] - x[:, :2]).clamp(min=0).prod(1) for x in (first, second)]
    return common / (areas[0] + areas[1] - common + EPS)
