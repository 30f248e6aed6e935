"""Source class probabilities of torchvision's families: the head's own scores for boxes that are given.

Two-stage heads score the boxes themselves. Dense heads score anchors or points; an object gets the scores of the one
that training would have made responsible for it first: the anchor of highest IoU (RetinaNet, SSD), the point nearest
to the centre on the level of the object's size (FCOS, arXiv 1904.01355, section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from models_store.archs.face import Face, SourceHead
from models_store.source import normalised_sigmoids

CLASSIFICATION = ("backbone.", "head.classification_head.")
# Upper ends of FCOS's size ranges are this many cells of their level.
FCOS_REACH = 8

Levels = Callable[[Mapping[str, Tensor]], list[Tensor]]
Match = Callable[[Tensor, Tensor, Sequence[int]], Tensor]


def without_background(logits: Tensor) -> Tensor:
    """(n, C) softmax over the classes after output 0, float32: background renormalised away."""
    return logits.float()[:, 1:].softmax(-1)


def foreground_sigmoids(module: nn.Module, logits: Tensor) -> Tensor:
    """(n, C) of sigmoid outputs, the first left out where it is reserved."""
    return normalised_sigmoids(logits[:, module.reserved :])


def with_box_head(face: Face, roi_heads: nn.Module) -> Face:
    """`face` with the class scores of its box head on the objects' own boxes."""

    def probabilities(
        maps: Mapping[str, Tensor], boxes: Sequence[Tensor], image_hw: tuple[int, int]
    ) -> Tensor:
        if face.box_head is None:
            raise ValueError("this two-stage face has no box head")
        logits, _ = roi_heads.box_predictor(face.box_head(face.regions(dict(maps), boxes, image_hw)))
        return without_background(logits)

    parts = ("backbone.", "roi_heads.box_head.", "roi_heads.box_predictor.cls_score.")
    return replace(face, source=SourceHead(face.roi_levels, parts, probabilities))


def dense_source(
    module: nn.Module,
    maps: tuple[str, ...],
    match: Match,
    read: Callable[[Tensor], Tensor],
    levels: Levels | None = None,
) -> SourceHead:
    """A dense head's scores at the place that `match(boxes, anchors, cells per level)` gives each box.

    `maps`: what is read; `levels` makes the head's inputs of them, where they are not the maps themselves.
    """

    def probabilities(
        found: Mapping[str, Tensor], boxes: Sequence[Tensor], image_hw: tuple[int, int]
    ) -> Tensor:
        inputs = levels(found) if levels else [found[name] for name in maps]
        logits = module.head.classification_head(inputs)
        anchors = anchors_of(module, inputs, image_hw)
        cells = [x.shape[-2] * x.shape[-1] for x in inputs]
        picked = [
            logits[row, match(of_image.to(anchors), anchors, cells)] for row, of_image in enumerate(boxes)
        ]
        return read(torch.cat(picked))

    return SourceHead(maps, CLASSIFICATION, probabilities)


def anchors_of(module: nn.Module, inputs: Sequence[Tensor], image_hw: tuple[int, int]) -> Tensor:
    """(A, 4) xyxy float32 in prepared pixels, in the order of the head's outputs."""
    divisor = module.transform.size_divisible
    padded = [math.ceil(side / divisor) * divisor for side in image_hw]
    # Only sizes are read; in the maps' own precision far anchors would lose whole pixels.
    images = ImageList(torch.empty(1, 1, *padded, device="meta"), [image_hw])
    shapes = [torch.empty(1, 1, *x.shape[-2:], device=x.device) for x in inputs]
    return module.anchor_generator(images, shapes)[0]


def best_anchor(boxes: Tensor, anchors: Tensor, cells: Sequence[int]) -> Tensor:
    """(n,) index of the anchor of highest IoU; the first of equals."""
    return box_iou(boxes, anchors).argmax(dim=1)


def nearest_point(boxes: Tensor, anchors: Tensor, cells: Sequence[int]) -> Tensor:
    """(n,) index of the point nearest to each box's centre, on the level whose size range the box is in.

    From its centre a box reaches max(w, h) / 2; a level takes those that reach less than 8 of its cells.
    """
    level = torch.repeat_interleave(
        torch.arange(len(cells), device=boxes.device), torch.tensor(cells, device=boxes.device)
    )
    starts = [sum(cells[:i]) for i in range(len(cells))]
    upper = FCOS_REACH * (anchors[starts, 2] - anchors[starts, 0])
    reach = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1) / 2
    own = torch.searchsorted(upper[:-1].contiguous(), reach.contiguous(), right=True)
    centres, points = ((x[:, :2] + x[:, 2:]) / 2 for x in (boxes, anchors))
    # Products of far coordinates would lose the differences between neighbours.
    distance = torch.cdist(centres, points, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.masked_fill(level != own[:, None], math.inf).argmin(dim=1)
