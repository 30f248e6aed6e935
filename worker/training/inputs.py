"""What a training takes besides detector, dataset and plan: ids, means of the host, and who listens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from worker.data.pixels import PixelCache
from worker.evaluation.prediction import Prediction


@dataclass(frozen=True)
class Ids:
    """Image ids to learn from, to choose the best weights by, and to look at once at the end.

    Without `val` a seeded tenth of `train` is taken for it. `annotations`: the only objects to learn from, None for
    all of the training images.
    """

    train: Sequence[int]
    val: Sequence[int]
    test: Sequence[int]
    annotations: Sequence[int] | None = None


@dataclass(frozen=True)
class Host:
    """What a training may use here.

    `save_every_s`: seconds between two states on disk. `pixels`: decoded pictures that this host keeps for whoever
    reads the dataset next.
    """

    device: str | torch.device = "cpu"
    decode_threads: int = 2
    save_every_s: float = 60.0
    pixels: PixelCache | None = None


@dataclass(frozen=True)
class Renewal:
    """Training pictures whose objects are said anew at each step, from the plan's `renewed_from` on.

    `image_ids`: which. `objects`: of all that the averaged weights find in such a picture, as it was augmented for the step, what
    is to be learned from.
    """

    image_ids: frozenset[int]
    objects: Callable[[Prediction], Prediction]


@dataclass(frozen=True)
class Watch:
    """What is called while a training runs, all from the thread that called `train`.

    `progress`: after each step, with steps done, steps in all (None while unknown) and a line of text. `check`: before
    each step; it may raise to stop. `saved`: after each state written, with its iteration. `point`: with each new point
    of the curves, once it is complete. `log`: with a line of text.
    """

    progress: Callable[[int, int | None, str], None] = lambda done, total, message: None
    check: Callable[[], None] = lambda: None
    saved: Callable[[int], None] = lambda iteration: None
    point: Callable[[dict[str, Any]], None] = lambda point: None
    log: Callable[[str], None] = lambda text: None
