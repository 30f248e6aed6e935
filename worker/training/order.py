"""Which images make which batch, and batches made ready in threads ahead of the step that uses them."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from models_store.detector import Detector
from models_store.sizes import Size
from worker.data.lookahead import in_order
from worker.training.augment import augmented
from worker.training.examples import Example
from worker.training.pictures import Pictures
from worker.training.randomness import ORDER, PICTURE, SCALE, stream
from worker.training.recipe import Augmentation

AHEAD_BATCHES = 2


@dataclass(frozen=True, eq=False)
class Ready:
    """One image of a batch: its place in the examples, pixels (h, w, 3) uint8 and target after augmentation."""

    index: int
    pixels: np.ndarray
    target: dict[str, Tensor]


def batches(examples: Sequence[Example], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """ceil(n / batch_size) batches of indices, each image once, wide pictures together and tall ones together.

    Only what is left of both groups is mixed, in the last batches drawn. Depends on seed and epoch alone.
    """
    rng = stream(seed, ORDER, epoch)
    order = rng.permutation(len(examples)).tolist()
    groups: tuple[list[int], list[int]] = ([], [])
    for index in order:
        image = examples[index].image
        groups[image.height > image.width].append(index)
    whole, left = [], []
    for group in groups:
        full = len(group) // batch_size * batch_size
        whole += [group[i : i + batch_size] for i in range(0, full, batch_size)]
        left += group[full:]
    whole += [left[i : i + batch_size] for i in range(0, len(left), batch_size)]
    return [whole[i] for i in rng.permutation(len(whole)).tolist()]


def base_size(detector: Detector, image_size: int | None) -> Size:
    """What a training's scales are factors of."""
    spec = detector.manifest.input
    if image_size is not None:
        return image_size
    return spec.fixed_size[0] if spec.fixed_size is not None else (spec.min_size, spec.max_size)


def size_of(iteration: int, base: Size, scales: Sequence[float], seed: int) -> Size:
    """The image size of one iteration: one of the factors for the whole batch."""
    factor = scales[int(stream(seed, SCALE, iteration).integers(len(scales)))]
    if factor == 1:
        return base
    low, high = (base, None) if isinstance(base, int) else base
    return max(1, round(low * factor)) if high is None else (max(1, round(low * factor)), high)


def made_ready(
    examples: Sequence[Example],
    pictures: Pictures,
    augmentation: Augmentation,
    *,
    batch_size: int,
    seed: int,
    first: int,
    share: Callable[[list[int]], list[int]],
    threads: int,
) -> Generator[list[Ready]]:
    """Batches of iteration `first`, `first + 1` and so on without end; `share` picks this process's part of each."""

    def prepare(epoch: int, index: int) -> Ready:
        example = examples[index]
        pixels, target = augmented(
            pictures.read(example.image), example, augmentation, stream(seed, PICTURE, epoch, index)
        )
        return Ready(index, pixels, target)

    yield from in_batches(
        examples, prepare, batch_size=batch_size, seed=seed, first=first, share=share, threads=threads
    )


def in_batches(
    examples: Sequence[Example],
    prepare: Callable[[int, int], Ready],
    *,
    batch_size: int,
    seed: int,
    first: int,
    share: Callable[[list[int]], list[int]],
    threads: int,
) -> Generator[list[Ready]]:
    """As `made_ready`, of what `prepare(epoch, index)` makes; it is called in threads."""
    per_epoch = math.ceil(len(examples) / batch_size)

    def places() -> Iterator[tuple[int, int, int]]:
        iteration = first
        while True:
            epoch, number = divmod(iteration, per_epoch)
            for batch in batches(examples, batch_size, seed, epoch)[number:]:
                part = share(batch)
                # An empty part is a place too, or its batch would never end.
                for index in part or [-1]:
                    yield epoch, index, len(part)
                iteration += 1

    def make(place: tuple[int, int, int]) -> tuple[Ready | None, int]:
        epoch, index, count = place
        return (None, 0) if index < 0 else (prepare(epoch, index), count)

    waiting: list[Ready] = []
    ahead = max(2, AHEAD_BATCHES * batch_size)
    for ready, count in in_order(make, places(), threads=threads, ahead=ahead):
        if ready is not None:
            waiting.append(ready)
        if len(waiting) == count:
            yield waiting
            waiting = []
