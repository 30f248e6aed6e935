"""Trainings that a study need not repeat: the same weights, trained before on the same images by the same plan."""

from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import tables
from app.queue.states import JobState
from worker.attempt import Attempt
from worker.data.subsets import Subset
from worker.training.plan import Plan

# of a request, what the plan does not say
_ALSO_EQUAL = ("test_dataset_id", "teacher_checkpoint_id", "unlabelled_dataset_id")
_COPIED = ("curves", "pictures", "plots", "seconds", "trained_checkpoint_id")


def found_equal(
    attempt: Attempt,
    row: tables.Verification,
    checkpoint: tables.Checkpoint,
    dataset: tables.Dataset,
    plan: Plan,
    subset: Subset,
) -> tables.Verification | None:
    """A verification of this workspace that ended with the numbers that `row` would get; None where there is none.

    Only those that ask for it are answered so, as the parts of a study do. Equal are: the pictures and boxes of the dataset,
    the images that it is trained on, the weights and how they are read, and the plan, whose seed and recipe decide
    everything else.
    """
    if not row.request.get("reuse"):
        return None
    with attempt.database.reading() as session:
        query = (
            select(tables.Verification, tables.Subset)
            .join(tables.Checkpoint, tables.Checkpoint.id == tables.Verification.checkpoint_id)
            .join(tables.Dataset, tables.Dataset.id == tables.Verification.dataset_id)
            .join(tables.Subset, tables.Subset.id == tables.Verification.subset_id)
            .where(
                tables.Verification.workspace_id == row.workspace_id,
                tables.Verification.state == JobState.SUCCEEDED.value,
                tables.Verification.stop_at.is_(None),
                tables.Verification.id != row.id,
                tables.Checkpoint.weights_sha256 == checkpoint.weights_sha256,
                tables.Dataset.digest == dataset.digest,
            )
            .order_by(tables.Verification.id)
        )
        for other, its_subset in session.execute(query):
            if any(other.request.get(name) != row.request.get(name) for name in _ALSO_EQUAL):
                continue
            if keeps_weights(row) and other.trained_checkpoint_id is None:
                continue
            if (
                other.plan is None
                or other.result is None
                or Plan.from_json(other.plan).identity() != plan.identity()
            ):
                continue
            same_images = its_subset.image_ids == list(subset.image_ids)
            boxes = None if subset.annotation_ids is None else list(subset.annotation_ids)
            manifest = session.get_one(tables.Checkpoint, other.checkpoint_id).manifest
            if same_images and its_subset.annotation_ids == boxes and manifest == checkpoint.manifest:
                return other
    return None


def keeps_weights(row: tables.Verification) -> bool:
    """Whether the fine-tuned weights become a checkpoint, with pictures; only a study does without."""
    return row.request.get("keep_weights", True)


def taken_over(row: tables.Verification, found: tables.Verification) -> Callable[[Session], None]:
    """The write of the other's result, which says whose it is."""
    result = found.result
    if result is None:
        raise AssertionError(f"{found.id} is {found.state}, without a result")

    def finish(session: Session) -> None:
        mine, its = session.get(tables.Verification, row.id), session.get(tables.Verification, found.id)
        if mine is None:
            return
        for name in _COPIED:
            setattr(mine, name, getattr(its or found, name))
        if its is None:
            mine.trained_checkpoint_id = None
        mine.result = {**result, "reused_from": result.get("reused_from") or found.id}

    return finish
