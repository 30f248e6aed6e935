"""Losses of one picture whose classes are known and whose boxes are not. Pictures are never mixed: each has a call of its own.

Boxes are xyxy, half-open, in any one unit. WSDDN: arXiv 1511.02853, equations 1 to 4; OICR: arXiv 1704.00138, section 3.2
and algorithm 1; several seeds of a class: arXiv 2004.04725, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou, nms

from models_store.instances.heads import Said

EPSILON = 1e-6
# Large moves are bounded as in torchvision: a factor of 62 at most.
CODER = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))


@dataclass(frozen=True)
class Refinement:
    """How instances are taught by the one before. ``overlap``: IoU from which an instance belongs to a seed.

    ``share``: of the instances, by score, that may be seeds of a class, after suppression at ``apart``; None for the best
    alone, as OICR has it. ``weight_mil`` and ``weight_boxes`` weigh the losses beside the refinements'.
    """

    overlap: float = 0.5
    share: float | None = None
    apart: float = 0.2
    weight_mil: float = 1.0
    weight_boxes: float = 1.0


@dataclass(frozen=True)
class Taught:
    """Of n instances: ``labels`` (n,) long, 0 for background and class + 1; ``weights`` (n,); ``boxes`` (n, 4) of their seeds."""

    labels: Tensor
    weights: Tensor
    boxes: Tensor


def instance_scores(said: Said) -> Tensor:
    """(n, C): softmax over classes times softmax over instances; a class's sum over instances is in [0, 1]."""
    return said.classes.softmax(dim=1) * said.instances.softmax(dim=0)


def mil_loss(scores: Tensor, present: Tensor) -> Tensor:
    """Binary cross entropy of the picture's classes, the mean over classes. ``scores`` (n, C), ``present`` (C,) bool."""
    told = scores.sum(dim=0).clamp(EPSILON, 1 - EPSILON)
    return F.binary_cross_entropy(told, present.to(told))


@torch.no_grad()
def taught(scores: Tensor, present: Tensor, boxes: Tensor, how: Refinement) -> Taught:
    """What one stage teaches the next. ``scores`` (n, C) of that stage, ``boxes`` (n, 4).

    The best instances of each class of the picture are its seeds. Every instance gets the class of the seed that it
    overlaps most, background where that is below ``how.overlap``, and that seed's score as weight.
    """
    rows, classes = [], []
    for label in torch.nonzero(present).flatten().tolist():
        found = _seeds(scores[:, label], boxes, how)
        rows.append(found)
        classes.append(torch.full_like(found, label))
    if not rows:
        nothing = torch.zeros(len(boxes), dtype=torch.long, device=boxes.device)
        return Taught(nothing, scores.new_ones(len(boxes)), boxes)
    seeds, labels = torch.cat(rows), torch.cat(classes)
    overlap, nearest = box_iou(boxes, boxes[seeds]).max(dim=1)
    belongs = overlap >= how.overlap
    return Taught(
        torch.where(belongs, labels[nearest] + 1, 0),
        scores[seeds, labels][nearest].clamp(min=0),
        boxes[seeds][nearest],
    )


def _seeds(scores: Tensor, boxes: Tensor, how: Refinement) -> Tensor:
    """Rows of the seeds of one class; ``scores`` (n,)."""
    if how.share is None:
        return scores.argmax().view(1)
    count = max(1, int(len(scores) * how.share))
    best = scores.argsort(descending=True, stable=True)[:count]
    kept = nms(boxes[best].float(), scores[best].float(), how.apart)
    return best[kept]


@dataclass(frozen=True)
class Sure:
    """``boxes`` (m, 4), ``labels`` (m,) long from 0, ``scores`` (m,)."""

    boxes: Tensor
    labels: Tensor
    scores: Tensor


@torch.no_grad()
def sure_boxes(
    scores: Tensor,
    boxes: Tensor,
    present: Tensor,
    image_hw: tuple[int, int],
    *,
    relative: float = 0.5,
    apart: float = 0.3,
) -> Sure:
    """Of each class of the picture its best box, and those with at least ``relative`` of its score after suppression at ``apart``.

    ``scores`` (n, C), ``boxes`` (n, 4) in pixels of the picture of ``image_hw``, cut at its edges; one that is all outside is none.
    """
    height, width = image_hw
    inside = boxes.float().clamp(min=0).minimum(boxes.new_tensor([width, height] * 2).float())
    usable = torch.nonzero((inside[:, 2:] - inside[:, :2] >= 1).all(dim=1)).flatten()
    rows, labels = [], []
    for label in torch.nonzero(present).flatten().tolist() if len(usable) else []:
        own = scores[usable, label]
        kept = usable[own >= relative * own.max()]
        kept = kept[nms(inside[kept], scores[kept, label].float(), apart)]
        rows.append(kept)
        labels.append(torch.full_like(kept, label))
    picked = torch.cat(rows) if rows else usable[:0]
    classes = torch.cat(labels) if labels else usable[:0]
    return Sure(inside[picked], classes, scores[picked, classes])


def refinement_loss(logits: Tensor, target: Taught) -> Tensor:
    """Mean over instances of weight times cross entropy. ``logits`` (n, C + 1), background first."""
    return (target.weights * F.cross_entropy(logits, target.labels, reduction="none")).mean()


def box_loss(deltas: Tensor, boxes: Tensor, target: Taught) -> Tensor:
    """Smooth L1 of the moves to the seed's box, of the instances that belong to one; weighted; per instance of any kind."""
    rows = torch.nonzero(target.labels).flatten()
    if not len(rows):
        return deltas.sum() * 0
    wanted = CODER.encode_single(target.boxes[rows], boxes[rows])
    found = F.smooth_l1_loss(deltas[rows], wanted, beta=1.0, reduction="none").sum(dim=1)
    return (target.weights[rows] * found).sum() / len(boxes)


def picture_losses(said: Said, boxes: Tensor, present: Tensor, how: Refinement) -> dict[str, Tensor]:
    """Losses of one picture by name, whose sum is minimised. ``boxes`` (n, 4) of its instances, ``present`` (C,) bool.

    Each stage is taught by the one before, the first by the product of the two softmaxes, moves by the last: no gradient flows
    from pupil to teacher.
    """
    scores = instance_scores(said)
    losses = {"loss_mil": how.weight_mil * mil_loss(scores, present)}
    before = scores.detach()
    for number, logits in enumerate(said.refined, start=1):
        losses[f"loss_refine_{number}"] = refinement_loss(logits, taught(before, present, boxes, how))
        before = logits.detach().softmax(dim=1)[:, 1:]
    if said.deltas is not None:
        losses["loss_boxes"] = how.weight_boxes * box_loss(
            said.deltas, boxes, taught(before, present, boxes, how)
        )
    return losses


def refined_scores(said: Said) -> Tensor:
    """(n, C) mean of the refinements' class probabilities; where there is none, the product of the two softmaxes."""
    if not said.refined:
        return instance_scores(said)
    return torch.stack([each.softmax(dim=1)[:, 1:] for each in said.refined]).mean(dim=0)


def moved(said: Said, boxes: Tensor) -> Tensor:
    """(n, 4) the instances' boxes after their moves."""
    return boxes if said.deltas is None else CODER.decode_single(said.deltas, boxes)


def summed(losses: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean over pictures of each loss."""
    return {name: torch.stack([one[name] for one in losses]).mean() for name in losses[0]}
