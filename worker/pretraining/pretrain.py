"""Pretraining a detector by a plan: what is checked before, and what is said after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models_store.detector import Detector
from models_store.manifest import Manifest
from models_store.pretraining import Encoder, Pretrained, encoder_of, made_pretrainable
from worker.data.dataset import Dataset, Image
from worker.pretraining.errors import Unpretrainable
from worker.pretraining.loop import MOST_WATCHED, Pretraining, WatchedPictures, in_pixels, regions_of
from worker.pretraining.proposals import RANDOM, SELECTIVE_SEARCH, Boxes
from worker.pretraining.recipe import PretrainingPlan, RegionSettings
from worker.training import ranks, state
from worker.training.examples import Example
from worker.training.fine_tune import digest_of, must_run
from worker.training.inputs import Host, Ids, Watch
from worker.training.pictures import Pictures
from worker.training.plan import Plan
from worker.training.step import Stepper, precision_of

# Below this there is nothing to tell apart.
LEAST_PICTURES = 8


@dataclass
class PretrainedDetector:
    """What a pretraining gave. `detector`: with the last weights, its embedding head still there.

    `curves`: as of a training, evaluated points with `val: {"recall": {"proposals": {k: share}, "objects": ...}}`.
    `start`: the same recall before the first step. `end`: recalls at the end. `finished`: `completed`, `budget` or
    `paused`. `pictures`: how many were learned from, `left_out`: those without a region.
    """

    detector: Pretrained
    curves: list[dict[str, Any]]
    start: dict[str, Any]
    end: WatchedPictures
    iterations: int
    seconds: float
    finished: str
    pictures: int
    left_out: int
    warnings: list[str] = field(default_factory=list)


def usable(images: Iterable[Image], regions: RegionSettings, found: Boxes | None) -> list[Image]:
    """The pictures that have a region to learn from. Raises Unpretrainable: `too_few_pictures`, `no_proposals`."""
    images = list(images)
    if len(images) < LEAST_PICTURES:
        raise Unpretrainable(
            "too_few_pictures",
            f"{len(images)} pictures are left to pretrain on, at least {LEAST_PICTURES} are needed: send more, without labels",
        )
    if regions.proposals == RANDOM:
        return images
    if found is None:
        raise AssertionError(f"{regions.proposals} has to be searched before")
    # where the search merges all into one, that is the picture itself: DETReg's code takes another picture below two
    least = 2 if regions.proposals == SELECTIVE_SEARCH else 1
    kept = [
        each
        for each in images
        if len(found[each.id]) >= least and len(regions_of(regions, found, each, 0, epoch=0))
    ]
    if len(kept) < LEAST_PICTURES:
        raise Unpretrainable(
            "no_proposals",
            f"{regions.proposals} found something in {len(kept)} of {len(images)} pictures, at least {LEAST_PICTURES} are "
            "needed: are they blank? proposals random needs nothing in them",
        )
    return kept


def prepared(
    detector: Detector, encoder: Detector, layer: str, sizes: tuple[int, int] | None, seed: int
) -> Pretrained:
    """The detector with what pretraining needs, and sees pictures at `sizes`. Raises Unusable."""
    reader: Encoder = encoder_of(encoder, layer)
    ready = made_pretrainable(detector, reader.width, seed)
    if sizes is not None and ready.manifest.input.fixed_size is None:
        manifest: Manifest = ready.manifest
        spec = manifest.input
        size = type(spec)(sizes[0], sizes[1], None, spec.mean, spec.std, spec.divisor)
        ready.manifest = manifest.but(input=size)
    return Pretrained(ready, reader)


def pretrain(
    detector: Pretrained,
    dataset: Dataset,
    plan: PretrainingPlan,
    ids: Ids,
    found: Boxes | None,
    folder: Path,
    host: Host = Host(),
    watch: Watch = Watch(),
    looked: Callable[[float, WatchedPictures], None] = lambda epoch, watched: None,
) -> PretrainedDetector:
    """Pretrain on the pictures of `ids.train`; those of `ids.val` are only looked at.

    `found`: regions by image id, of both, as `proposed` gives them; None with random ones. `folder`, `host`
    and `watch` are as in `worker.training.fine_tune.train`; `looked` is called with the epoch and what was found, in the first process.

    Raises Untrainable, Unpretrainable, TrainingDiverged, torch.OutOfMemoryError, BadPicture.
    """
    device = torch.device(host.device)
    by_id = {image.id: image for image in dataset.images}
    images = usable([by_id[i] for i in ids.train], plan.regions, found)
    left_out = len(ids.train) - len(images)
    watched = list(ids.val)[:MOST_WATCHED]
    detector.module.to(device=device, memory_format=torch.channels_last)
    detector.encoder.detector.module.to(device=device, memory_format=torch.channels_last)
    who = {
        "plan": plan.training.identity(),
        "regions": plan.to_json()["regions"],
        "dataset": dataset.digest,
        "images": digest_of([[image.id for image in images], watched]),
    }
    kept = state.read(folder, who)
    precision = (kept and kept.position.precision) or str(precision_of(plan.training.precision, device))
    precision = getattr(torch, ranks.told_by_first(precision).removeprefix("torch."))
    with Pictures() as pictures:
        must_run(detector, plan.training)
        pretraining = Pretraining(
            detector,
            dataset,
            plan.training,
            [Example(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64)) for image in images],
            watched,
            [],
            folder,
            who,
            Stepper(detector, plan.training, (), device, precision, watch.log),
            pictures,
            host,
            watch,
            regions=plan.regions,
            found=found,
            truth=_truth(dataset, [by_id[i] for i in watched], plan.regions, found, plan.training),
            looked=looked,
        )
        try:
            pretraining.restore(kept)
            pretraining.watch_start()
            trained = pretraining.run()
        finally:
            detector.module.eval().requires_grad_(False)
    end: Any = trained.val
    return PretrainedDetector(
        detector=detector,
        curves=trained.curves,
        start=trained.start,
        end=end,
        iterations=trained.iterations,
        seconds=trained.seconds,
        finished=trained.finished,
        pictures=len(images),
        left_out=left_out,
        warnings=list(_warnings(left_out, plan.regions)),
    )


def _truth(
    dataset: Dataset, images: Sequence[Image], regions: RegionSettings, found: Boxes | None, plan: Plan
) -> tuple[Mapping[int, np.ndarray], Mapping[int, np.ndarray] | None]:
    proposals = {
        image.id: in_pixels(regions_of(regions, found, image, plan.seed, epoch=0), image) for image in images
    }
    if not dataset.has_boxes:
        return proposals, None
    objects = {
        image.id: dataset.boxes[(dataset.annotation_image_ids == image.id) & ~dataset.iscrowd]
        for image in images
    }
    return proposals, objects


def _warnings(left_out: int, regions: RegionSettings) -> Iterable[str]:
    if left_out:
        yield f"{left_out} pictures have no region by {regions.proposals} and are not learned from"
