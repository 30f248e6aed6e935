"""What a candidate costs beside its scores: finding objects with the whole detector, and fine-tuning it as the workspace does."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import torch
from sqlalchemy import select
from sqlalchemy.orm import Session

import models_store
from app.db import tables
from app.db.documents import DatasetSummary, InferenceCost, StepCost, TrainingAsked
from app.queue import training_costs
from worker.attempt import Attempt
from worker.data.batches import decoded
from worker.handlers.plans import MOST_LOOKED_AT, plan_by
from worker.handlers.ranking.candidate import InHand
from worker.handlers.ranking.features import pixels_of as pixels_kept
from worker.handlers.ranking.zero_point import UNREADABLE
from worker.handlers.training_costs import device_name, key_here, measured, memory_of, too_large
from worker.training.cost import StepCost as Measured
from worker.training.cost import measured_step, pixels_of
from worker.training.errors import Untrainable
from worker.training.examples import VALIDATION_SHARE
from worker.training.plan import Plan
from worker.training.recipe import default_recipe, recipes

# of the seconds that a candidate took, what measuring a training may add where nobody asked for it
SHARE = 0.1
# of the whole detector: a step of an image is three of them, forwards and backwards, and two steps are made
_PASSES = 6.0
COMPARING_RECIPE = "quick"


def inference_of(attempt: Attempt, hand: InHand) -> InferenceCost | None:
    """Of the first picture of the sample; None where the detector does not find objects at this size."""
    reading = hand.reading
    try:
        kept = pixels_kept(attempt.settings).of(reading.dataset.digest)
        ((_, picture),) = decoded(reading.images[:1], threads=1, kept=kept)
        found = hand.models.inference_cost(reading.detector, picture, reading.spec.image_size, hand.device)
    except UNREADABLE:
        return None
    return {
        "ms_per_image": found.ms_per_image,
        "peak_memory_bytes": found.peak_memory_bytes,
        "image_hw": list(found.image_hw),
        "device": found.device,
    }


def training_of(
    attempt: Attempt, hand: InHand, checkpoint_id: str, inference: InferenceCost | None, spent_s: float
) -> TrainingAsked:
    """Which fine-tuning the candidate would have. Where no step of such a one is known, one is measured and kept.

    That takes seconds, so it is done where the ranking asks for it, and where nobody said anything within a tenth of
    `spent_s`, the seconds that the candidate took until now; a detector that finds nothing, `inference` None, is not tried unasked.
    """
    reading, wanted = hand.reading, hand.ranking.request.get("measure_training")
    manifest = reading.detector.manifest
    with attempt.database.reading() as session:
        dataset = session.get_one(tables.Dataset, hand.ranking.dataset_id)
        asked, plan = _asked(session, hand, checkpoint_id, dataset, manifest)
        known = training_costs.steps_of(session, [asked["key"]]) if plan is not None else {}
    key = asked["key"]
    if plan is None or key is None or wanted is False:
        return asked
    step = known.get(key)
    if step is not None and training_costs.alike(step["pixels"], asked["pixels"]):
        return asked
    if wanted is None and (
        inference is None or _guess_s(inference, plan, asked["pixels"] or 0.0) > SHARE * spent_s
    ):
        return asked
    found, why = _measured(hand, plan, asked["pixels"] or 0.0)
    if found is None:
        return {**asked, "unknown": why}
    with attempt.writing() as session:
        training_costs.keep(session, key, found, datetime.now(UTC))
    return asked


def _measured(hand: InHand, plan: Plan, pixels: float) -> tuple[StepCost | None, str | None]:
    """A step tried on a detector of its own; or why there is none."""
    reading = hand.reading
    ids = [image.id for image in reading.images]

    def tried() -> Measured:
        own = models_store.load_detector(hand.scratch, device=hand.device)
        return measured_step(own, reading.dataset, plan, ids, hand.device)

    try:
        step = hand.models.with_room(reading.detector, tried)
    except (torch.OutOfMemoryError, MemoryError):
        return too_large(pixels), None
    except (Untrainable, *UNREADABLE) as failure:
        reason = getattr(failure, "detail", None) or f"{type(failure).__name__}: {failure}"
        return None, f"a step of its training could not be tried: {reason}"[:500]
    return measured(step, pixels), None


def _guess_s(inference: InferenceCost, plan: Plan, pixels: float) -> float:
    """Roughly how long measuring takes, by a pass of the whole detector. It only says whether to.

    Larger pictures take longer, smaller ones may not: most of a two-stage detector is its head, which looks at as many boxes.
    """
    height, width = inference["image_hw"]
    larger = max(1.0, pixels / max(1, height * width))
    return _PASSES * min(plan.batch_size, plan.images) * inference["ms_per_image"] / 1e3 * larger


def _asked(
    session: Session,
    hand: InHand,
    checkpoint_id: str,
    dataset: tables.Dataset,
    manifest: models_store.Manifest,
) -> tuple[TrainingAsked, Plan | None]:
    device, counts = hand.device, _images(dataset)
    terms = _terms(session, hand.ranking, checkpoint_id)
    asked: TrainingAsked = {
        "key": None,
        "recipe": terms["recipe"],
        "image_size": None,
        "batch_size": None,
        "iterations": None,
        "budget_s": None,
        "val_looks": 0,
        "end_looks": 0,
        "pixels": None,
        "device": device_name(device),
        "memory_bytes": memory_of(device),
        "unknown": None,
    }
    images = _learned_images(terms, counts["train"])
    try:
        if not recipes()[terms["recipe"]].fits(manifest):
            terms = {"recipe": default_recipe(manifest).name}
        plan = plan_by(terms, manifest, images or 1)
    except (Untrainable, KeyError) as refusal:
        return {**asked, "unknown": getattr(refusal, "detail", None) or f"no recipe {refusal}"}, None
    asked["recipe"] = plan.recipe.name
    if images is None and plan.recipe.iterations is None and terms.get("iterations") is None:
        return {**asked, "unknown": "how many pictures so many shots come to is not drawn yet"}, None
    val = min(counts["val"], terms.get("max_val_images") or counts["val"])
    return {
        **asked,
        "key": key_here(manifest, plan, device),
        "image_size": plan.image_size,
        "batch_size": plan.batch_size,
        "iterations": plan.iterations,
        "budget_s": plan.budget_s,
        "val_looks": plan.evaluations * val,
        # the test, and what is drawn for people to look at
        "end_looks": counts["test"] + min(MOST_LOOKED_AT, counts["test"] or val),
        "pixels": pixels_of(hand.reading.detector, hand.reading.images, plan),
    }, plan


def _terms(session: Session, ranking: tables.Ranking, checkpoint_id: str) -> Mapping[str, Any]:
    """By which the candidate would be fine-tuned: as the ranking asks, else as the workspace did last, on this dataset first."""
    if asked := ranking.request.get("verify"):
        return asked["recipes"][asked["recipe_of"][checkpoint_id]]
    newest = (
        select(tables.Verification.request)
        .where(
            tables.Verification.workspace_id == ranking.workspace_id,
            tables.Verification.state == "succeeded",
        )
        .order_by(tables.Verification.id.desc())
        .limit(1)
    )
    for query in (newest.where(tables.Verification.dataset_id == ranking.dataset_id), newest):
        if (found := session.scalar(query)) is not None:
            return found
    return {"recipe": COMPARING_RECIPE}


def _images(dataset: tables.Dataset) -> dict[str, int]:
    """By split; without a validation split those of training that stand in for it."""
    splits = (dataset.summary or DatasetSummary()).get("splits", {})
    found = {name: splits[name]["images"] if name in splits else 0 for name in ("train", "val", "test")}
    if not found["val"]:
        found["val"] = max(1, round(VALIDATION_SHARE * found["train"]))
    return found


def _learned_images(terms: Mapping[str, Any], train: int) -> int | None:
    """None where that is only known once they are drawn."""
    if terms.get("shots"):
        return None
    return max(1, round(train * (terms.get("label_fraction") or 1.0)))
