"""Fresh layers begin at the scale of the target's own pictures, where what the body gives is far from it.

Those that read the body are looked at first: where they give, on average, what is within a factor (the plan's
`init_band`) of the aim, all layers stay as they are, for scaling them was found to cost such a body a little. Else
one layer after another, in the order in which they are computed, as in LSUV (arXiv 1511.06422, algorithm 1;
data-dependent initialisation is also arXiv 1511.06856): a layer's weights are divided by the standard deviation
of what it gives and multiplied by the recipe's `init_std`. One pass is enough for that, for a layer's output is put
right before anything reads it. Not taken over: the orthogonal weights that LSUV begins with.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from models_store.detector import Detector
from models_store.detr.detector import DetrDetector
from models_store.fresh import (
    FreshLayer,
    distance_of,
    fresh_layers,
    measured_by_what_passes,
    scaled_by_what_passes,
)
from models_store.sizes import Size
from models_store.trainable import needs_equal_sizes
from worker.training import ranks
from worker.training.examples import Example
from worker.training.order import Ready, made_ready
from worker.training.pictures import Pictures
from worker.training.plan import Plan
from worker.training.randomness import SAMPLES, START, PerImageSampler, number, seeded

IMAGES = 8
# Two images of 800 x 1066: no more memory than a step of the training needs.
PIXELS = 2 * 800 * 1066


@dataclass(frozen=True)
class Begun:
    """How fresh layers begin. factors: of each one's weights, empty where all were left alone. distance: how far what
    they read off the body was from the aim, as a factor of at least 1; None where that was not asked."""

    factors: dict[str, float]
    distance: float | None = None


def data_dependent_init(
    detector: Detector,
    plan: Plan,
    examples: Sequence[Example],
    pictures: Pictures,
    samplers: Sequence[PerImageSampler],
    size: Size,
    *,
    threads: int,
) -> Begun:
    """Scale the fresh layers of `detector` in place, or leave them alone where they are within `plan.init_band`.

    Reads the first images of the training's own order, augmented as the training has them, at `size`: at most
    `IMAGES` of them and `PIXELS` in all, but one at least. Always in float32 on the CPU, so that every host begins
    alike; every process of a training begins with the first one's weights.
    """
    layers = fresh_layers(detector)
    if not layers:
        return Begun({})
    module = detector.module
    begun = Begun({})
    if ranks.is_first():
        device = next(module.parameters()).device
        batch = _batch(detector, plan, examples, pictures, size, threads)
        module.to("cpu")

        def one_pass() -> None:
            for index, sampler in enumerate(samplers):
                sampler.seeds = [number(plan.seed, SAMPLES, 0, ready.index, index) for ready in batch]
            with seeded(torch.device("cpu"), number(plan.seed, START)), _buffers_kept(module):
                detector.losses([r.pixels for r in batch], [r.target for r in batch], image_size=size)

        begun = _begun(layers, module, plan, _std(detector, plan), one_pass)
        module.to(device)
    if ranks.several():
        own = dict(module.named_parameters())
        for layer in layers:
            weight = own[f"{layer.name}.weight"]
            weight.data.copy_(ranks.told_by_first(weight.data))
    return ranks.told_by_first(begun)


def _begun(
    layers: list[FreshLayer], module: nn.Module, plan: Plan, std: float, one_pass: Callable[[], None]
) -> Begun:
    distance = None
    # Who leaves nothing alone is saved the first pass.
    if plan.init_band > 1:
        with measured_by_what_passes(module, layers, std) as read_off_the_body:
            one_pass()
        distance = distance_of(read_off_the_body.values())
        if read_off_the_body and distance <= plan.init_band:
            return Begun({}, distance)
    with torch.no_grad(), scaled_by_what_passes(layers, std) as factors:
        one_pass()
    return Begun(factors, distance)


@contextlib.contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    """Statistics that move in training begin where they began."""
    kept = {name: buffer.clone() for name, buffer in module.named_buffers()}
    yield
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            buffer.copy_(kept[name])


def _std(detector: Detector, plan: Plan) -> float:
    """What a query-based detector projects stands beside position embeddings of about unit size."""
    return 1.0 if isinstance(detector, DetrDetector) else plan.recipe.init_std


def _batch(
    detector: Detector,
    plan: Plan,
    examples: Sequence[Example],
    pictures: Pictures,
    size: Size,
    threads: int,
) -> list[Ready]:
    """The images that are looked at; where batches have to have one size, those of the first one's size."""
    batches = made_ready(
        examples,
        pictures,
        plan.recipe.augmentation,
        batch_size=plan.batch_size,
        seed=plan.seed,
        first=0,
        share=list,
        threads=threads,
    )
    chosen: list[Ready] = []
    first, pixels, one_size = None, 0, needs_equal_sizes(detector)
    with contextlib.closing(batches):
        epoch = itertools.islice(batches, math.ceil(len(examples) / plan.batch_size))
        for ready in itertools.chain.from_iterable(epoch):
            height, width = ready.pixels.shape[:2]
            shape = detector.resized(height, width, size)
            pixels += math.prod(shape)
            if chosen and (pixels > PIXELS or len(chosen) == IMAGES):
                break
            first = first or shape
            if shape == first or not one_size:
                chosen.append(ready)
    return chosen
