"""What is said of each instance (a region, or a query) of a picture whose image labels are all that is known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

REFINEMENTS = 3
HEAD_STD = 0.01


@dataclass(frozen=True)
class Said:
    """Of n instances: ``classes``, ``instances`` (n, C) logits of the two streams; ``refined``: K times (n, C + 1) logits,
    background first; ``deltas`` (n, 4): how the instance's box is to be moved, None where boxes come from elsewhere."""

    classes: Tensor
    instances: Tensor
    refined: tuple[Tensor, ...]
    deltas: Tensor | None = None

    def of(self, rows: slice) -> Said:
        """The same of some of the instances."""
        deltas = None if self.deltas is None else self.deltas[rows]
        return Said(
            self.classes[rows], self.instances[rows], tuple(each[rows] for each in self.refined), deltas
        )


class InstanceHeads(nn.Module):
    """Two streams of multiple-instance learning (WSDDN, arXiv 1511.02853) and refinements (OICR, arXiv 1704.00138)."""

    def __init__(
        self, width: int, classes: int, *, refinements: int = REFINEMENTS, moves: bool = True
    ) -> None:
        super().__init__()
        self.mil = nn.ModuleList([nn.Linear(width, classes), nn.Linear(width, classes)])
        self.refine = nn.ModuleList([nn.Linear(width, classes + 1) for _ in range(refinements)])
        self.move = nn.Linear(width, 4) if moves else None

    def forward(self, x: Tensor) -> Said:
        """``x`` (n, width), the instances of one picture or of several, one after another."""
        return Said(
            self.mil[0](x),
            self.mil[1](x),
            tuple(each(x) for each in self.refine),
            None if self.move is None else self.move(x),
        )

    @torch.no_grad()
    def start(self, generator: torch.Generator) -> None:
        """Small weights and no bias, as published: every class and instance alike at first."""
        for layer in (*self.mil, *self.refine, *([] if self.move is None else [self.move])):
            layer.weight.normal_(0.0, HEAD_STD, generator=generator)
            layer.bias.zero_()
