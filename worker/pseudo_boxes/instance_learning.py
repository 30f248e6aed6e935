"""Multiple-instance learning on kept features: which of a picture's regions are what its labels name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from models_store.instances.heads import REFINEMENTS, InstanceHeads, Said
from models_store.instances.losses import Refinement, moved, picture_losses, refined_scores, summed
from worker.pseudo_boxes.pseudo_boxes import Arrays, Unteachable, Watching
from worker.training.randomness import NETWORK, ORDER, number, seeded, stream

CPU = torch.device("cpu")


@dataclass(frozen=True)
class LearningSettings:
    """`epochs` over the pictures with `batch_size` of them a step, Adam at `rate` falling to a hundredth by a cosine.

    `hidden`: units of each of the two layers before the heads; `dropout` behind each.
    """

    epochs: int = 12
    batch_size: int = 4
    rate: float = 1e-3
    weight_decay: float = 1e-4
    hidden: int = 128
    dropout: float = 0.5
    refinements: int = REFINEMENTS
    refinement: Refinement = field(default_factory=Refinement)
    moves: bool = True

    def checked(self) -> LearningSettings:
        """Raises Unteachable `bad_settings`."""
        if self.epochs < 1 or self.batch_size < 1 or self.hidden < 1 or self.refinements < 0:
            raise Unteachable(
                "bad_settings", "epochs, batch_size and hidden are at least 1, refinements at least 0"
            )
        if not 0 <= self.dropout < 1 or not self.rate > 0:
            raise Unteachable("bad_settings", "dropout is in [0, 1), rate above 0")
        return self


class InstanceNet(nn.Module):
    """Vectors of regions, standardised, through two layers to the heads."""

    def __init__(self, width: int, classes: int, settings: LearningSettings) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        hidden, drop = settings.hidden, settings.dropout
        self.trunk = nn.Sequential(
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Dropout(drop),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(drop),
        )
        self.heads = InstanceHeads(hidden, classes, refinements=settings.refinements, moves=settings.moves)

    def forward(self, x: Tensor) -> Said:
        return self.heads(self.trunk((x.float() - self.mean) / self.std))


@dataclass(frozen=True, eq=False)
class Learned:
    """`net` in evaluation mode; `curves`: of each epoch the mean of every loss by name."""

    net: InstanceNet
    curves: list[dict[str, float]]


def learn(
    looked: Mapping[int, Arrays],
    present: Mapping[int, np.ndarray],
    settings: LearningSettings = LearningSettings(),
    *,
    seed: int = 0,
    watching: Watching = Watching(),
) -> Learned:
    """Learn from `present`, image id to (C,) bool, what the regions of these pictures are; each picture needs one.

    `looked`: of each picture `boxes` (n, 4) xyxy and `vectors` (n, D), read anew for each step, so that memory does not grow
    with the pictures. The same seed gives the same weights.
    """
    settings = settings.checked()
    ids = sorted(present)
    width = looked[ids[0]]["vectors"].shape[1]
    with seeded(CPU, number(seed, NETWORK)):
        net = InstanceNet(width, len(present[ids[0]]), settings)
    net.heads.start(torch.Generator().manual_seed(number(seed, NETWORK, 1)))
    mean, std = _moments(looked[id]["vectors"] for id in ids)
    net.mean.copy_(mean)
    net.std.copy_(std)
    optimiser = torch.optim.Adam(net.parameters(), lr=settings.rate, weight_decay=settings.weight_decay)
    steps = settings.epochs * -(-len(ids) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, settings.rate / 100)
    curves = []
    net.train()
    with seeded(CPU, number(seed, NETWORK, 2)):
        for epoch in range(settings.epochs):
            order = [ids[i] for i in stream(seed, ORDER, epoch).permutation(len(ids)).tolist()]
            told: list[tuple[int, dict[str, Tensor]]] = []
            for start in range(0, len(order), settings.batch_size):
                watching.check()
                batch = order[start : start + settings.batch_size]
                losses = _losses(net, [(looked[id], present[id]) for id in batch], settings.refinement)
                optimiser.zero_grad(set_to_none=True)
                torch.stack(list(losses.values())).sum().backward()
                optimiser.step()
                schedule.step()
                told.append((len(batch), {name: value.detach() for name, value in losses.items()}))
            curves.append(
                {name: sum(n * float(one[name]) for n, one in told) / len(ids) for name in told[0][1]}
            )
            watching.progress(epoch + 1, settings.epochs, "epochs")
    return Learned(net.eval(), curves)


def _losses(
    net: InstanceNet, pictures: Sequence[tuple[Arrays, np.ndarray]], how: Refinement
) -> dict[str, Tensor]:
    """The layers run over the regions of all pictures at once; what compares instances stays within a picture."""
    said = net(torch.cat([torch.from_numpy(arrays["vectors"]) for arrays, _ in pictures]))
    found, start = [], 0
    for arrays, present in pictures:
        boxes = torch.from_numpy(np.asarray(arrays["boxes"], np.float32))
        own = said.of(slice(start, start + len(boxes)))
        found.append(picture_losses(own, boxes, torch.from_numpy(present), how))
        start += len(boxes)
    return summed(found)


def _moments(vectors: Iterable[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each number over all regions; 1 where one never changes."""
    count, mean, spread = 0, np.zeros(1), np.zeros(1)
    for each in vectors:
        # Of parts: Chan, Golub and LeVeque (1979); one reading, no large differences of large sums.
        x = each.astype(np.float64)
        own, joined = x.mean(axis=0), count + len(x)
        spread = spread + ((x - own) ** 2).sum(axis=0) + (own - mean) ** 2 * count * len(x) / joined
        mean = mean + (own - mean) * len(x) / joined
        count = joined
    std = np.sqrt(spread / count)
    return torch.as_tensor(mean).float(), torch.as_tensor(np.where(std > 1e-6, std, 1.0)).float()


@torch.no_grad()
def told_of(net: InstanceNet, vectors: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of one picture's regions, scores (n, C) in [0, 1] and boxes (n, 4) after their moves, float64."""
    said = net(torch.from_numpy(vectors))
    places = moved(said, torch.from_numpy(np.asarray(boxes, np.float32))).view(-1, 4)
    return refined_scores(said).double().numpy(), places.double().numpy()
