"""What the candidates of a ranking cost to run and to train, who is on the frontier, and who costs too much."""

import math
from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.db.documents import Cost as Kept
from app.db.documents import TrainingAsked
from app.db.tables import Candidate, Checkpoint
from app.queue.training_costs import Foreseen, foreseen, steps_of
from app.schemas.ranking_views import CandidateView, Cost, InferenceCost, TrainingCost
from app.schemas.rankings import RankingFilters


def costs_of(session: Session, pairs: Sequence[tuple[Candidate, Checkpoint]]) -> dict[str, Cost]:
    """By checkpoint. What fine-tuning takes is by the steps that have been measured until now."""
    asked = {
        checkpoint.id: candidate.cost.get("training") if candidate.cost else None
        for candidate, checkpoint in pairs
    }
    steps = steps_of(session, [one["key"] for one in asked.values() if one])
    found = {}
    for candidate, checkpoint in pairs:
        training = asked[checkpoint.id]
        took = foreseen(training, steps.get(training["key"] or "")) if training else None
        found[checkpoint.id] = _cost(candidate.cost, checkpoint, training, took)
    return found


def _cost(
    kept: Kept | None, checkpoint: Checkpoint, training: TrainingAsked | None, took: Foreseen | None
) -> Cost:
    inference = kept.get("inference") if kept else None
    return Cost(
        parameters=kept["parameters"] if kept else checkpoint.parameters,
        peak_memory_bytes=kept["peak_memory_bytes"] if kept else None,
        ms_per_image=kept["ms_per_image"] if kept else None,
        device=kept["device"] if kept else None,
        licence=checkpoint.licence,
        inference=InferenceCost.model_validate(inference) if inference else None,
        training=_training(training, took) if training and took else None,
    )


def _training(asked: TrainingAsked, took: Foreseen) -> TrainingCost:
    return TrainingCost(
        recipe=asked["recipe"],
        image_size=asked["image_size"],
        batch_size=asked["batch_size"],
        iterations=asked["iterations"],
        seconds=None if took.seconds is None else round(took.seconds, 1),
        step_s=None if took.step_s is None else round(took.step_s, 4),
        peak_memory_bytes=took.peak_memory_bytes,
        memory_bytes=asked["memory_bytes"],
        fits=took.fits,
        device=asked["device"],
        measured=took.measured,
        unknown=took.unknown,
    )


def mark_frontier(candidates: Sequence[CandidateView], quantity: str | None) -> None:
    """Says of each candidate, in place, whether no other with a place is as fast and better. quantity: `gain` or `value`."""
    placed = [one for one in candidates if one.rank is not None]
    ms = milliseconds(placed)
    placed = [one for one in placed if one.checkpoint_id in ms]
    worth = accuracies(placed, quantity)
    best = -math.inf
    for one in sorted(
        placed, key=lambda one: (ms[one.checkpoint_id], -worth.get(one.checkpoint_id, -math.inf))
    ):
        own = worth.get(one.checkpoint_id)
        if own is not None and own > best:
            best, one.frontier = own, True


def milliseconds(candidates: Sequence[CandidateView]) -> dict[str, float]:
    """By checkpoint: of finding the objects of a picture, or where that is not known of all of them of reading one."""
    whole = {one.checkpoint_id: one.cost.inference.ms_per_image for one in candidates if one.cost.inference}
    if len(whole) == len(candidates):
        return whole
    read = {one.checkpoint_id: one.cost.ms_per_image for one in candidates}
    return {id: ms for id, ms in read.items() if ms is not None}


def accuracies(candidates: Sequence[CandidateView], quantity: str | None) -> dict[str, float]:
    """By checkpoint: the predicted mAP where all have one, else what orders them."""
    told = {one.checkpoint_id: one.predicted_map.mean for one in candidates if one.predicted_map}
    if len(told) == len(candidates):
        return told
    scores = {one.checkpoint_id: one.gain if quantity == "gain" else one.value for one in candidates}
    return {id: value for id, value in scores.items() if value is not None}


def reason_against(cost: Cost, filters: RankingFilters) -> str | None:
    """Why `filters` leave a candidate out; None where they do not. An unknown cost keeps no limit."""
    reasons = []
    inference, training = cost.inference, cost.training
    for unit, found, most in (
        ("parameters", cost.parameters, filters.max_parameters),
        ("bytes of memory", cost.peak_memory_bytes, filters.max_memory_bytes),
        ("ms per image", cost.ms_per_image, filters.max_ms_per_image),
        ("ms to find objects", inference.ms_per_image if inference else None, filters.max_inference_ms),
        (
            "bytes of memory to find objects",
            inference.peak_memory_bytes if inference else None,
            filters.max_inference_memory_bytes,
        ),
        ("seconds of fine-tuning", training.seconds if training else None, filters.max_training_s),
        (
            "bytes of memory to fine-tune",
            training.peak_memory_bytes if training else None,
            filters.max_training_memory_bytes,
        ),
    ):
        if most is None:
            continue
        if found is None:
            reasons.append(f"its {unit} are not known, and at most {most:,} are asked for")
        elif found > most:
            reasons.append(f"{found:,} {unit}, and at most {most:,} are asked for")
    fits = training.fits if training else None
    if filters.fits is not None and fits is not filters.fits:
        wanted = "fits into the device's memory" if filters.fits else "does not fit into it"
        known = {True: "it fits", False: "it does not fit", None: "that is not known"}[fits]
        reasons.append(f"asked for are those whose fine-tuning {wanted}: {known}")
    if filters.licences and (cost.licence or "").casefold() not in {
        name.casefold() for name in filters.licences
    }:
        reasons.append(
            f"its licence is {cost.licence or 'not known'}; asked for: {', '.join(filters.licences)}"
        )
    return "; ".join(reasons) or None
