"""Boxes as DETR counts them, and which query answers for which object."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou

L1_COST = 5.0
GIOU_COST = 2.0


def relative(boxes: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """(n, 4) xyxy in pixels of an image of ``image_hw`` to (n, 4) cxcywh in [0, 1]."""
    height, width = image_hw
    scale = boxes.new_tensor([width, height, width, height], dtype=torch.float32)
    return box_convert(boxes.float() / scale, "xyxy", "cxcywh")


def absolute(boxes: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """(n, 4) cxcywh in [0, 1] to xyxy in pixels, inside the image."""
    height, width = image_hw
    scale = boxes.new_tensor([width, height, width, height])
    return box_convert(boxes, "cxcywh", "xyxy").clamp(0, 1) * scale


def box_costs(predicted: Tensor, wanted: Tensor) -> Tensor:
    """(Q, n): 5 L1 - 2 GIoU of cxcywh boxes, the published weights of arXiv 2005.12872, without any class."""
    distance = torch.cdist(predicted, wanted, p=1)
    overlap = generalized_box_iou(
        box_convert(predicted, "cxcywh", "xyxy"), box_convert(wanted, "cxcywh", "xyxy")
    )
    return L1_COST * distance - GIOU_COST * overlap


def assign(costs: Tensor) -> tuple[Tensor, Tensor]:
    """(query indices, object indices), each min(Q, n) long, of least total cost. ``costs``: (Q, n)."""
    table = np.nan_to_num(costs.detach().float().cpu().numpy(), nan=1e6, posinf=1e6, neginf=-1e6)
    rows, columns = linear_sum_assignment(table)
    return torch.as_tensor(rows, device=costs.device), torch.as_tensor(columns, device=costs.device)


def query_of_each(costs: Tensor) -> Tensor:
    """(n,) the query of every object, one to one; with more objects than queries, in rounds.

    ``costs``: (Q, n). The first round gives Q objects a query each, the next round gives the queries anew to the
    objects that are left, so no object goes without and no query serves two objects of one round.
    """
    chosen = torch.full((costs.shape[1],), -1, dtype=torch.long, device=costs.device)
    while bool((chosen < 0).any()):
        left = torch.nonzero(chosen < 0).flatten()
        queries, objects = assign(costs[:, left])
        chosen[left[objects]] = queries
    return chosen


def per_image(predicted: Tensor, wanted: list[Tensor], choose: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """``choose`` on the box costs of each image. ``predicted`` (B, Q, 4), ``wanted`` B times (n_i, 4), cxcywh."""
    return [choose(box_costs(p, w)) for p, w in zip(predicted, wanted, strict=True)]
