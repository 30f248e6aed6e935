"""How many seconds each candidate of a search takes: measured in the search, known from before, or reckoned from its score.

Reckoned: the ranking has timed a forward pass of every candidate, up to the layers that are scored. What comes after those
is taken for as long as that of the middle candidate, and a step of training or an evaluation for so many of both. That is rough: it only says whether a few iterations can be timed at all, and how candidates compare with each other. The
median ratio of measured to reckoned seconds corrects what is reckoned for the others.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from app.db import tables
from app.db.documents import DatasetSummary, Manifest
from app.queue.states import JobState
from worker.handlers.plans import MOST_LOOKED_AT
from worker.handlers.search.records import Known
from worker.handlers.verification.training_part import TIMED_IMAGES
from worker.ranking.halving import Pace

TRAINING = 10.0
EVALUATION = 5.0
LOADING_S = 3.0
STORING_S = 5.0
_BEFORE = 200


@dataclass(frozen=True)
class Seconds:
    """Of one candidate: a step of training, the evaluation of one image, and loading it."""

    step: float
    image: float
    loading: float


@dataclass(frozen=True)
class Paces:
    """By candidate. timing_s: of a few iterations. closing_s: to look at the winner on test, to draw and to store it.

    measured: those whose steps were measured.
    """

    of: dict[str, Pace]
    timing_s: dict[str, float]
    closing_s: dict[str, float]
    measured: frozenset[str]


def paces_of(session: Session, known: Known, timing_iterations: int) -> Paces:
    """The pace of every candidate that has a place in the order, for trainings as the search asks for them."""
    forward = {id: _forward_s(known, id) for id in known.order}
    middle = _median(forward.values())
    reckoned = {id: _reckoned(known, id, forward[id] + middle) for id in known.order}
    measured = {id: found for id in known.order if (found := _measured(known, id)) is not None}
    steps = _before(session, known) | {id: found.step for id, found in measured.items()}
    step_ratio = _median(steps[id] / reckoned[id].step for id in steps)
    image_ratio = _median(found.image / reckoned[id].image for id, found in measured.items())
    load_ratio = _median(found.loading / reckoned[id].loading for id, found in measured.items())
    seconds = {
        id: measured.get(id)
        or Seconds(
            steps.get(id, guess.step * step_ratio), guess.image * image_ratio, guess.loading * load_ratio
        )
        for id, guess in reckoned.items()
    }
    val, test = _images(known, "val"), _images(known, "test")
    evaluations = known.request["verification"]["evaluations"]
    drawn = min(MOST_LOOKED_AT, test or val)
    val = min(val, known.request["verification"]["max_val_images"] or val)
    return Paces(
        of={
            # the last evaluation on schedule is that of the end, which each part has
            id: Pace(each.step, each.loading + val * each.image, (evaluations - 1) * val * each.image)
            for id, each in seconds.items()
        },
        timing_s={
            id: each.loading + timing_iterations * each.step + min(TIMED_IMAGES, val) * each.image
            for id, each in seconds.items()
        },
        closing_s={
            id: each.loading + STORING_S + (val + test + drawn) * each.image for id, each in seconds.items()
        },
        measured=frozenset(steps),
    )


def _forward_s(known: Known, id: str) -> float:
    """Of one image of the size that is trained on, through what the ranking ran."""
    cost, manifest = known.candidates[id].cost, known.checkpoints[id].manifest or Manifest()
    size = known.request["verification"]["image_size"] or manifest.get("input", {}).get("min_size") or 800
    measured_at = min(cost["image_hw"]) if cost and "image_hw" in cost else size
    ms_per_image = cost["ms_per_image"] if cost else 100.0
    return max(1e-6, ms_per_image / 1000 * (size / measured_at) ** 2)


def _reckoned(known: Known, id: str, image_s: float) -> Seconds:
    batch_size = known.request["verification"]["batch_size"]
    loading_s = float((known.candidates[id].timings or {}).get("load") or 0.0) + LOADING_S
    return Seconds(image_s * batch_size * TRAINING, image_s * EVALUATION, loading_s)


def _measured(known: Known, id: str) -> Seconds | None:
    """From its last part that trained anything; None without one."""
    for part in reversed(list(known.parts("timing", "round"))):
        end = part["iterations"] or 0
        done = end - part["begin"]
        row = known.verifications[part["verification_id"]]
        if part["checkpoint_id"] != id or row.result is None:
            continue
        if part["state"] != JobState.SUCCEEDED or done <= 0:
            continue
        evaluated = _evaluations(row.request, part["begin"], end) * row.result["val"]["images"]
        return Seconds(
            ((part["trained_s"] or 0.0) - part["begin_s"]) / done,
            (part["evaluating_s"] or 0.0) / max(1, evaluated),
            part["loading_s"] or 0.0,
        )
    return None


def _evaluations(request: Mapping[str, Any], begin: int, end: int) -> int:
    """How often a part looked at the validation images: on schedule, and where it paused in between."""
    times, whole = int(request["evaluations"]), int(request["iterations"])
    due = end * times // whole - begin * times // whole
    at_its_end = end * times // whole > (end - 1) * times // whole
    return due + (0 if at_its_end else 1)


def _images(known: Known, split: str) -> int:
    """The number of images of a split; without a validation split, of those that training takes for it."""
    splits = (known.dataset.summary or DatasetSummary()).get("splits", {})
    count = {name: splits[name]["images"] if name in splits else 0 for name in ("train", "val", "test")}
    if split == "val" and not count["val"]:
        return max(1, math.ceil(count["train"] / 10))
    return count[split]


def _before(session: Session, known: Known) -> dict[str, float]:
    """Seconds of a step in the latest training of the same architecture by equal terms, outside of this search."""
    wanted = {known.checkpoints[id].architecture for id in known.order}
    query = (
        select(tables.Verification, tables.Checkpoint.architecture)
        .join(tables.Checkpoint, tables.Checkpoint.id == tables.Verification.checkpoint_id)
        .where(
            tables.Verification.workspace_id == known.search.workspace_id,
            tables.Verification.state == JobState.SUCCEEDED.value,
            tables.Verification.seconds.is_not(None),
            tables.Checkpoint.architecture.in_(wanted),
        )
        .where(tables.Verification.search_id.is_(None) | (tables.Verification.search_id != known.search.id))
        .order_by(tables.Verification.id.desc())
        .limit(_BEFORE)
        .options(defer(tables.Verification.curves))
    )
    found: dict[str, float] = {}
    for row, architecture in session.execute(query):
        done = row.result["iterations"] if row.result else 0
        if (
            architecture is not None
            and architecture not in found
            and done > 0
            and row.seconds
            and _same_work(row.request, known.request["verification"])
        ):
            found[architecture] = row.seconds / done
    return {id: found[a] for id in known.order if (a := known.checkpoints[id].architecture) in found}


def _same_work(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(
        one.get(name) == other.get(name)
        for name in ("recipe", "image_size", "batch_size", "freeze", "precision", "ema")
    )


def _median(ratios: Iterable[float]) -> float:
    found = [ratio for ratio in ratios if ratio > 0 and math.isfinite(ratio)]
    return median(found) if found else 1.0
