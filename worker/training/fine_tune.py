"""Fine-tuning a detector by a plan: what is checked before, and what is said after."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models_store.detector import Detector
from models_store.errors import out_of_memory
from models_store.pooling import training_pools
from models_store.trainable import has_mask_branch
from worker.data.dataset import Dataset
from worker.training import ranks, state
from worker.training.errors import Untrainable
from worker.training.examples import Example, examples_of, with_validation
from worker.training.inputs import Host, Ids, Renewal, Watch
from worker.training.loop import Training
from worker.training.pictures import Pictures
from worker.training.plan import Plan
from worker.training.randomness import per_image_samplers
from worker.training.step import Stepper, precision_of
from worker.training.trained import Trained


def train(
    detector: Detector,
    dataset: Dataset,
    plan: Plan,
    ids: Ids,
    folder: Path,
    host: Host = Host(),
    watch: Watch = Watch(),
    renewal: Renewal | None = None,
) -> Trained:
    """Fine-tune `detector` on images and objects of `dataset`. A head for other classes than the dataset's is replaced.

    `renewal`: what a plan with `renewed_from` needs. `folder` holds the state; with one in it training goes on exactly where it stood.

    Raises Untrainable, TrainingDiverged, torch.OutOfMemoryError, and BadPicture for a picture that cannot be decoded.
    """
    if not dataset.has_boxes:
        raise Untrainable(
            "no_objects", f"the dataset has {dataset.supervision}, no boxes: a detector cannot learn from it"
        )
    if (plan.renewed_from is None) != (renewal is None):
        raise Untrainable(
            "bad_plan", "pseudo boxes that are said anew need both a plan that says when and who says them"
        )
    device = torch.device(host.device)
    train_ids, val_ids, note = with_validation(ids.train, ids.val, plan.seed)
    masks = has_mask_branch(detector.module) and dataset.segmentations is not None
    examples, thin = examples_of(dataset, train_ids, ids.annotations, masks=masks)
    if not any(len(example.labels) for example in examples):
        raise Untrainable("no_objects", f"the {len(examples)} training images hold no object to learn from")
    _must_divide(detector, plan, len(examples))
    names = detector.manifest.class_names
    # What was pretrained knows one class, whatever it is called.
    class_agnostic = detector.manifest.options.get("object_class") is not None
    other = detector.manifest.num_classes != len(dataset.categories) or names not in (
        None,
        dataset.categories,
    )
    if class_agnostic or other:
        detector.replace_head(len(dataset.categories), plan.seed)
    detector.module.to(device=device, memory_format=torch.channels_last)
    who = {
        "plan": plan.identity(),
        "dataset": dataset.digest,
        "images": digest_of([train_ids, val_ids, None if ids.annotations is None else list(ids.annotations)]),
    }
    kept = state.read(folder, who)
    precision = (kept and kept.position.precision) or str(precision_of(plan.precision, device))
    # Nobody writes before everybody has read.
    precision = getattr(torch, ranks.told_by_first(precision).removeprefix("torch."))
    with (
        training_pools(detector),
        per_image_samplers(detector.module, plan.recipe.rois) as samplers,
        Pictures(kept=None if host.pixels is None else host.pixels.of(dataset.digest)) as pictures,
    ):
        must_run(detector, plan)
        training = Training(
            detector,
            dataset,
            plan,
            examples,
            val_ids,
            list(ids.test),
            folder,
            who,
            Stepper(detector, plan, samplers, device, precision, watch.log),
            pictures,
            host,
            watch,
            renewal,
        )
        try:
            if kept is None and plan.data_dependent_init:
                training.begin(samplers)
            training.restore(kept)
            trained = training.run()
        finally:
            detector.module.eval().requires_grad_(False)
    found = _warnings(dataset, examples, note, thin, masks != has_mask_branch(detector.module))
    trained.warnings.extend(found)
    return trained


def must_run(detector: Detector, plan: Plan) -> None:
    """Raises Untrainable `bad_plan` where the network does not run at the smallest size that it will get."""
    if plan.image_size is None:
        return
    fixed = detector.manifest.input.fixed_size is not None
    smallest = max(1, round(plan.image_size * (1 if fixed else min(plan.recipe.augmentation.scales))))
    blank = np.zeros((smallest, smallest, 3), np.uint8)
    try:
        detector.predictions([blank], image_size=smallest)
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, torch.OutOfMemoryError) or out_of_memory(error):
            raise
        raise Untrainable(
            "bad_plan",
            f"{detector.manifest.architecture} does not run at {smallest} pixels, the smallest size of image_size "
            f"{plan.image_size}: ask for a larger one ({str(error)[:200]})",
        ) from None


def _must_divide(detector: Detector, plan: Plan, images: int) -> None:
    """Raises Untrainable `bad_plan` where some process would have no image and the others would wait for its norms."""
    least = min(plan.batch_size, images % plan.batch_size or plan.batch_size)
    synchronised = any(isinstance(part, nn.SyncBatchNorm) for part in detector.module.modules())
    if ranks.several() and synchronised and least < ranks.world():
        raise Untrainable(
            "bad_plan",
            f"a batch of {least} of the {images} images leaves some of {ranks.world()} processes without one, which "
            "syncbn cannot have: choose a batch_size that leaves a larger rest, or norm bn or frozen",
        )


def digest_of(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _warnings(
    dataset: Dataset, examples: list[Example], note: str | None, thin: int, without_masks: bool
) -> Iterator[str]:
    if note:
        yield note
    if thin:
        yield f"{thin} boxes with a side below one pixel are not learned from"
    seen = {int(label) for example in examples for label in example.labels}
    if missing := [name for label, name in enumerate(dataset.categories) if label not in seen]:
        yield f"no training object of {', '.join(missing[:10])}: the detector cannot learn them"
    if without_masks:
        yield "the dataset has no masks: the mask branch is not trained"
