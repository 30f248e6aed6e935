"""What a step of a training costs on this device, measured on one: seconds, and the most memory alive at once."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from models_store.detector import Detector
from models_store.manifest import Manifest
from models_store.pooling import training_pools
from models_store.trainable import POLICIES, has_mask_branch
from worker.data.dataset import Dataset, Image
from worker.features.cost import Peak, bytes_of
from worker.features.inference import nothing_found
from worker.training.examples import examples_of
from worker.training.optimiser import optimiser_of, set_rate
from worker.training.order import Ready, base_size, made_ready, size_of
from worker.training.pictures import Pictures
from worker.training.plan import Plan
from worker.training.randomness import per_image_samplers
from worker.training.recipe import Phase
from worker.training.step import Stepper, precision_of

# small enough that a few steps change nothing that they cost
RATE_FACTOR = 1e-3


@dataclass(frozen=True)
class StepCost:
    """step_s: seconds of a step of the optimiser at the mean of the plan's sizes, pictures ready; image_s: of finding the
    objects of one picture at the plan's size.

    peak_memory_bytes: weights, and the most that is alive at once of gradients, the optimiser's state and what the step keeps
    for them, at the largest of the plan's sizes. On CUDA it is what the allocator says; elsewhere it is counted by storage,
    without a kernel's scratch space, decoded pictures and the program itself.
    """

    step_s: float
    image_s: float
    peak_memory_bytes: int


def measured_step(
    detector: Detector, dataset: Dataset, plan: Plan, image_ids: Sequence[int], device: str | torch.device
) -> StepCost:
    """Two steps of a training by `plan`, on the first of these images; the first is weighed, the second timed.

    The detector is changed: hand over one of its own. Where a step goes through the network in parts, as on a CPU with large
    pictures, one part is run and stands for all. The phase with the most trained parameters stands for all of them.

    Raises Untrainable, and torch.OutOfMemoryError where not even one image fits.
    """
    device = torch.device(device)
    masks = has_mask_branch(detector.module) and dataset.segmentations is not None
    examples, _ = examples_of(dataset, image_ids[: plan.batch_size], None, masks=masks)
    detector.replace_head(len(dataset.categories), plan.seed)
    detector.module.to(device=device, memory_format=torch.channels_last)
    base = base_size(detector, plan.image_size)
    fixed = detector.manifest.input.fixed_size is not None
    scales = (1.0,) if fixed else plan.recipe.augmentation.scales
    with (
        training_pools(detector),
        per_image_samplers(detector.module, plan.recipe.rois) as samplers,
        Pictures() as pictures,
    ):
        batches = made_ready(
            examples,
            pictures,
            plan.recipe.augmentation,
            batch_size=len(examples),
            seed=plan.seed,
            first=0,
            share=list,
            threads=1,
        )
        try:
            batch = next(batches)
        finally:
            batches.close()
        precision = precision_of(plan.precision, device)
        stepper = Stepper(detector, plan, samplers, device, precision, lambda text: None)
        optimiser = optimiser_of(detector, plan.recipe, _widest(plan), device)
        set_rate(optimiser, RATE_FACTOR)
        largest, usual = _sizes(base, scales)
        part = stepper.parts(batch, largest)[0]
        peak = Peak(device)
        with peak:
            stepper.step(part, 0, largest, optimiser)
        part = stepper.parts(batch, usual)[0]
        began = time.perf_counter()
        stepper.step(part, 1, usual, optimiser)
        _wait(device)
        seconds = time.perf_counter() - began
    step_s = seconds * len(batch) / len(part) * _mean_square(scales) / _scale_of(usual, base) ** 2
    image_s = _looking(detector, batch[0], plan)
    weights = bytes_of(detector.module)
    return StepCost(step_s, image_s, peak.bytes + weights)


def key_of(manifest: Manifest, plan: Plan, device_name: str) -> str:
    """SHA-256 of all that a step's cost follows from but the size of the pictures: the architecture, what is done with it, and
    where. The weights and the classes are not among it.
    """
    own = manifest.to_json()
    facts: dict[str, Any] = {name: own[name] for name in ("architecture", "backbone", "input")}
    options = {name: value for name, value in own["options"].items() if name not in _OF_WEIGHTS}
    recipe = plan.to_json()["recipe"]
    facts |= {
        "options": options,
        "recipe": {name: recipe[name] for name in ("optimiser", "rois", "augmentation", "clip_norm")},
        "freeze": _widest(plan).freeze,
        "batch_size": min(plan.batch_size, plan.images),
        "image_size": plan.image_size,
        "precision": plan.precision,
        "micro_batch": plan.micro_batch,
        "device": device_name,
        "threads": torch.get_num_threads(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


# of a manifest's options, what a new head takes away
_OF_WEIGHTS = ("labels_from", "object_class")


def pixels_of(detector: Detector, images: Sequence[Image], plan: Plan) -> float:
    """Of the median picture as the network sees it; the images are at least one."""
    areas = sorted(
        math.prod(detector.resized(image.height, image.width, plan.image_size)) for image in images
    )
    return float(areas[len(areas) // 2])


def _widest(plan: Plan) -> Phase:
    """The phase that trains the most."""
    return min(plan.phases, key=lambda phase: POLICIES.index(phase.freeze))


def _sizes(base: Any, scales: Sequence[float]) -> tuple[Any, Any]:
    """The largest size, and the one nearest to the middle by what it costs."""
    middle = math.sqrt(_mean_square(scales))
    usual = min(scales, key=lambda scale: abs(scale - middle))
    return size_of(0, base, (max(scales),), 0), size_of(0, base, (usual,), 0)


def _scale_of(size: Any, base: Any) -> float:
    low = size if isinstance(size, int) else size[0]
    return low / (base if isinstance(base, int) else base[0])


def _mean_square(scales: Sequence[float]) -> float:
    return sum(scale * scale for scale in scales) / len(scales)


def _looking(detector: Detector, ready: Ready, plan: Plan) -> float:
    """Seconds of an evaluation for one picture: the faster of two passes."""
    device = next(detector.module.parameters()).device
    found = math.inf
    with torch.no_grad(), nothing_found(detector.module):
        for _ in range(2):
            began = time.perf_counter()
            detector.predictions([ready.pixels], image_size=plan.image_size)
            _wait(device)
            found = min(found, time.perf_counter() - began)
    return found


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
