"""Heads of detectron2's Faster and Mask R-CNN with a pyramid, where torchvision's are built alike: to torchvision's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

RPN, BOX, MASK = "proposal_generator.rpn_head.", "roi_heads.box_head.", "roi_heads.mask_head."
SCORES, BOXES = "roi_heads.box_predictor.cls_score.", "roi_heads.box_predictor.bbox_pred."
LEAVES = ("weight", "bias")
# What a pickle keeps of anchors, and an average of the losses.
BESIDE = re.compile(r"pixel_(mean|std)|.*anchor_generator\.cell_anchors.*|.*\.loss_normalizer")
NAMES = (
    (RPN + r"conv\.", "rpn.head.conv.0.0."),
    (RPN + r"objectness_logits\.", "rpn.head.cls_logits."),
    (RPN + r"anchor_deltas\.", "rpn.head.bbox_pred."),
    (BOX + r"fc1\.", "roi_heads.box_head.fc6."),
    (BOX + r"fc2\.", "roi_heads.box_head.fc7."),
    *((rf"{MASK}mask_fcn{i + 1}\.", f"roi_heads.mask_head.{i}.0.") for i in range(4)),
    (MASK + r"deconv\.", "roi_heads.mask_predictor.conv5_mask."),
)


def heads(tensors: Mapping[str, Tensor]) -> tuple[str, int, dict[str, Tensor]] | None:
    """(architecture, classes, tensors) of the heads; None where some of them have no place in torchvision's.

    ``tensors``: all that is neither body nor pyramid.
    """
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if BESIDE.fullmatch(key):
            continue
        target = next((re.sub(p, t, key) for p, t in NAMES if re.match(p, key)), None)
        if target is not None:
            found[target] = tensor
        elif not key.startswith((SCORES, BOXES, MASK + "predictor.")):
            return None
    try:
        found |= _predictors(tensors)
    except KeyError:
        return None
    masks = MASK + "predictor.weight" in tensors
    classes = tensors[SCORES + "weight"].shape[0] - 1
    return "detrank/maskrcnn" if masks else "detrank/fasterrcnn_fpn", classes, found


def _predictors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Background is detectron2's last class and torchvision's first; there it has boxes and masks, which nobody reads."""
    found: dict[str, Tensor] = {}
    for leaf in LEAVES:
        scores, boxes = tensors[SCORES + leaf], tensors[BOXES + leaf]
        classes = scores.shape[0] - 1
        found[SCORES + leaf] = torch.cat([scores[-1:], scores[:-1]])
        each = boxes.repeat(classes, *[1] * (boxes.dim() - 1)) if len(boxes) == 4 else boxes
        found[BOXES + leaf] = torch.cat([torch.zeros_like(each[:4]), each])
        if MASK + "predictor." + leaf in tensors:
            mask = tensors[MASK + "predictor." + leaf]
            mask = mask.repeat(classes, *[1] * (mask.dim() - 1)) if len(mask) == 1 else mask
            found["roi_heads.mask_predictor.mask_fcn_logits." + leaf] = torch.cat(
                [torch.zeros_like(mask[:1]), mask]
            )
    return found
