"""From a model's raw output to boxes, each with a score and the prompt that it answers; what transformers' processors do, by position.

Boxes come as (Q, 4) centre, width, height in shares of the model's picture; `extent` is (width, height) of that picture in pixels of
the real one. Nothing is thresholded or clipped here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou


@dataclass(frozen=True, eq=False)
class Said:
    """`boxes` (n, 4) float32 xyxy pixels, `scores` (n,) and `texts` (n,) in [0, 1], `prompts` (n,) int64 from 0.

    `texts`: the probability of the prompt itself, where a family tells it from the box's score; else the score again.
    """

    boxes: Tensor
    scores: Tensor
    texts: Tensor
    prompts: Tensor

    def at(self, rows: Tensor) -> Said:
        return Said(self.boxes[rows], self.scores[rows], self.texts[rows], self.prompts[rows])


def by_phrases(logits: Tensor, boxes: Tensor, phrases: Tensor, extent: tuple[float, float]) -> Said:
    """Grounding DINO: logits (Q, T) of queries for tokens; `phrases` (t,) int64, t <= T: whose token each is, -1 for nobody's.

    A query's score is its best token, whoever's, as arXiv 2303.05499 has it; it says the phrase of the best token that is a
    phrase's, whose probability is `texts`.
    """
    probabilities = logits.float().sigmoid()
    own = torch.nonzero(phrases >= 0).flatten()
    best, place = probabilities[:, own].max(dim=1)
    return Said(
        _pixels(boxes, extent),
        probabilities.amax(dim=1),
        best,
        phrases[own][place],
    )


def by_queries(logits: Tensor, boxes: Tensor, extent: tuple[float, float]) -> Said:
    """OWL: logits (Q, P) of patches for prompts; a patch says its best prompt."""
    best, prompts = logits.float().max(dim=1)
    scores = best.sigmoid()
    return Said(_pixels(boxes, extent), scores, scores, prompts)


def by_classes(logits: Tensor, boxes: Tensor, extent: tuple[float, float]) -> Said:
    """OmDet-Turbo: logits (Q, P); of all pairs of a query and a prompt the best Q."""
    prompts = logits.shape[1]
    scores, pairs = logits.float().sigmoid().flatten().topk(len(boxes))
    return Said(_pixels(boxes, extent)[pairs // prompts], scores, scores, pairs % prompts)


def one_of_a_place(parts: list[Said], overlap: float = 0.8) -> Said:
    """What several texts said of one picture: of boxes of different texts on the same place the surest, as within one text."""
    if len(parts) == 1:
        return parts[0]
    whose = torch.cat([torch.full_like(part.prompts, n) for n, part in enumerate(parts)])
    whole = Said(*(torch.cat([getattr(p, name) for p in parts]) for name in Said.__dataclass_fields__))
    order = whole.scores.argsort(descending=True, stable=True)
    whole, whose = whole.at(order), whose[order]
    rival = (box_iou(whole.boxes, whole.boxes) >= overlap) & (whose[:, None] != whose[None, :])
    kept = torch.ones(len(whose), dtype=torch.bool, device=whose.device)
    for row in range(len(whose)):
        if kept[row]:
            kept[row + 1 :] &= ~rival[row, row + 1 :]
    return whole.at(torch.nonzero(kept).flatten())


def joined(parts: list[Said]) -> Said:
    return Said(*(torch.cat([getattr(p, name) for p in parts]) for name in Said.__dataclass_fields__))


def _pixels(boxes: Tensor, extent: tuple[float, float]) -> Tensor:
    return box_convert(boxes.float(), "cxcywh", "xyxy") * boxes.new_tensor([*extent, *extent]).float()
