"""DETReg's objective (arXiv 2106.04550): find regions without classes, and tell what a frozen encoder sees in each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models_store.detr.layerwise import Layerwise
from models_store.detr.loss import FOCAL, SOFTMAX, Target, match, set_loss

EMBEDDING_WEIGHT = 1.0


def detreg_loss(
    outputs: Layerwise,
    embedded: Tensor,
    targets: Sequence[Target],
    vectors: Sequence[Tensor],
    *,
    no_object: bool,
) -> dict[str, Tensor]:
    """Weighted losses by name. ``embedded`` (B, Q, n): of the last layer's queries; ``vectors``: B times (n_i, n).

    Classes, boxes and matching of every decoder layer as DETR and Deformable DETR have them, with the regions as
    objects; ``loss_embedding``: mean absolute difference between the vector that the last layer's matched query gives
    and the encoder's (arXiv 2106.04550, equation 2 and section 3.2, and its code).
    """
    found = set_loss(outputs, targets, no_object=no_object)
    matching = (SOFTMAX if no_object else FOCAL).matching
    given, wanted = [], []
    for row, (target, vector) in enumerate(zip(targets, vectors, strict=True)):
        queries, objects = match(
            outputs.logits[-1, row], outputs.boxes[-1, row], target, no_object=no_object, class_cost=matching
        )
        given.append(embedded[row, queries])
        wanted.append(vector[objects])
    pairs = torch.cat(given), torch.cat(wanted)
    difference = F.l1_loss(*pairs) if len(pairs[0]) else embedded.sum() * 0
    return found | {"loss_embedding": EMBEDDING_WEIGHT * difference}
