"""Verifications: making them, and the subsets that they see."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Checkpoint, Dataset, Event, Subset, Verification
from app.errors import Conflict, Fault, refuse
from app.queue import verifications as rows
from app.schemas.verifications import VerificationCreate
from app.services import recipes, teachers, trainings
from app.services.checkpoints import unusable
from app.services.datasets import ready, with_boxes
from app.services.listing import Listing
from app.services.records import named
from app.settings import Settings

# what lists and tables do not show
DETAILS = ("result", "curves", "plan", "pictures", "plots")
LISTING = Listing(Verification, "vf", unread=DETAILS)
# of a large dataset megabytes; they are made by the first request that names them, and filled by its job
SUBSETS = Listing(Subset, "sub", unread=("image_ids", "annotation_ids"))


def create(
    session: Session, workspace_id: str, asked: VerificationCreate, settings: Settings
) -> Verification:
    """A verification with its job.

    Raises InvalidRequest naming each field at fault, Conflict for what cannot be used.
    """
    terms = trainings.terms_of(asked)
    faults = trainings.faults_of(terms, settings)
    dataset = named(session, Dataset, workspace_id, asked.dataset_id, "/dataset_id", faults)
    checkpoint = named(session, Checkpoint, workspace_id, asked.checkpoint_id, "/checkpoint_id", faults)
    other = named(session, Dataset, workspace_id, asked.test_dataset_id, "/test_dataset_id", faults)
    teacher = named(
        session, Checkpoint, workspace_id, asked.teacher_checkpoint_id, "/teacher_checkpoint_id", faults
    )
    refuse(faults)
    ready(dataset)
    if teacher is not None:
        _refuse_unable(teacher, dataset, asked)
    with_boxes(dataset, "what is found is compared with boxes")
    if other is not None:
        ready(other)
        with_boxes(other, "what is found is compared with boxes", "/test_dataset_id")
    if why := unusable(checkpoint):
        raise Conflict(why, errors=[{"pointer": "/checkpoint_id", "message": why}])
    if why := recipes.misfit(asked.recipe, checkpoint.architecture, f"the checkpoint {checkpoint.id}"):
        refuse([{"pointer": "/recipe", "message": why}])
    recipe = recipes.chosen(asked.recipe, checkpoint.architecture)
    request = recipes.filled(terms, recipe) | {
        "dataset_id": dataset.id,
        "checkpoint_id": checkpoint.id,
        "seed": asked.seed,
        "name": asked.name,
        **({"test_dataset_id": other.id} if other is not None else {}),
        **({"teacher_checkpoint_id": teacher.id} if teacher is not None else {}),
    }
    return rows.add(session, workspace_id=workspace_id, request=request, max_attempts=settings.max_attempts)


def _refuse_unable(teacher: Checkpoint, dataset: Dataset, asked: VerificationCreate) -> None:
    """Raises InvalidRequest where the checkpoint cannot teach what the subset leaves out, Conflict where it is not ready."""
    if why := unusable(teacher):
        raise Conflict(why, errors=[{"pointer": "/teacher_checkpoint_id", "message": why}])
    faults: list[Fault] = []
    if asked.label_fraction in (None, 1.0) and asked.shots is None:
        message = (
            "all training images are labelled, so none is left to be taught: give a label_fraction or shots"
        )
        faults.append({"pointer": "/label_fraction", "message": message})
    if why := teachers.misfit(teacher, dataset):
        faults.append({"pointer": "/teacher_checkpoint_id", "message": why})
    refuse(faults)


def events_of_curve(session: Session, id: str) -> list[dict[str, Any]]:
    """Points of a training that has not succeeded, in order of iteration.

    A point that a later attempt reported again counts once.
    """
    query = select(Event.data).where(Event.stream_id == id, Event.kind == "curve").order_by(Event.seq)
    points = {(point.get("iteration"), point.get("kind")): point for point in session.scalars(query)}
    return [points[key] for key in sorted(points, key=lambda key: (key[0] or 0, str(key[1])))]
