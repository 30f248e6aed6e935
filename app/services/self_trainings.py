"""Self-training: a verified detector says where objects are in pictures without labels, and students learn from both."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.engine import database_now
from app.db.tables import Checkpoint, Dataset, Pretraining, Verification
from app.errors import Conflict, Fault, refuse
from app.ids import new_id
from app.queue import tree
from app.queue.states import JobKind, JobState, ResourceState
from app.schemas.pretrainings import PretrainingCreate
from app.schemas.verifications import TrainingTerms
from app.services import pretraining_comparisons, recipes, teachers, trainings
from app.services.catalogue import catalogue
from app.services.checkpoints import unusable
from app.services.datasets import ready, with_boxes
from app.services.records import named
from app.settings import Settings

DETREG, SELF_TRAINING = "detreg", "self_training"
# fields of a request that the other method has no answer to
ONLY_DETREG = (
    "architecture",
    "encoder_checkpoint",
    "config",
    "proposals",
    "max_proposals",
    "embedding_layer",
)
ONLY_SELF_TRAINING = ("labelled_dataset_id", "teacher_checkpoint", "rounds", "mean_teacher")
TERMS = tuple(TrainingTerms.model_fields)
# a student learns from all labels, whatever part of them its teacher had
_OF_SUBSET: dict[str, Any] = {"label_fraction": None, "shots": None, "subset_seed": 0}


def misplaced(asked: PretrainingCreate, names: tuple[str, ...]) -> list[Fault]:
    """The fields of the other method."""
    return [
        {"pointer": f"/{name}", "message": f"{name} is not of the method {asked.method}: leave it out"}
        for name in names
        if getattr(asked, name) is not None
    ]


def create(session: Session, workspace_id: str, asked: PretrainingCreate, settings: Settings) -> Pretraining:
    """A self-training with its first job.

    Raises InvalidRequest naming each field at fault, Conflict for what cannot be used.
    """
    faults = misplaced(asked, ONLY_DETREG) + trainings.faults_of(_given(asked), settings)
    faults += _of_labelled(asked)
    if asked.mean_teacher and asked.ema == 0:
        message = "a mean teacher is the mean of the student's weights: give its decay, such as 0.999, or leave it out"
        faults.append({"pointer": "/ema", "message": message})
    dataset = named(session, Dataset, workspace_id, asked.dataset_id, "/dataset_id", faults)
    labelled = named(
        session, Dataset, workspace_id, asked.labelled_dataset_id, "/labelled_dataset_id", faults
    )
    teacher = named(
        session, Checkpoint, workspace_id, asked.teacher_checkpoint, "/teacher_checkpoint", faults
    )
    start = named(session, Checkpoint, workspace_id, asked.from_checkpoint, "/from_checkpoint", faults)
    refuse(faults)
    _refuse_unfit(dataset, labelled)
    made_by: Verification | None
    if teacher is None:
        made_by = best = _best_verified(session, labelled)
        teacher = session.get_one(Checkpoint, best.trained_checkpoint_id)
    else:
        made_by = _verification_of(session, teacher)
    _refuse_unable(teacher, labelled)
    if start is None:
        start = _begun_with(session, made_by) or teacher
    if why := unusable(start):
        raise Conflict(why, errors=[{"pointer": "/from_checkpoint", "message": why}])
    terms = _terms(asked, made_by, start)
    if asked.mean_teacher:
        terms["ema"] = terms["ema"] or catalogue()["pretraining"]["mean_decay"]
    request = {
        "method": asked.method,
        "name": asked.name,
        "dataset_id": dataset.id,
        "dataset_name": dataset.name,
        "labelled_dataset_id": labelled.id,
        "teacher_checkpoint_id": teacher.id,
        "teacher_verification_id": made_by.id if made_by is not None else None,
        "from_checkpoint_id": start.id,
        "start_name": start.name,
        "rounds": asked.rounds or 1,
        "mean_teacher": bool(asked.mean_teacher),
        "recipe": terms["recipe"],
        "proposals": None,
        "seed": asked.seed,
        "terms": terms,
        "compare": pretraining_comparisons.of(
            session,
            workspace_id,
            asked.compare,
            labelled,
            [("/compare/recipe", start.architecture, f"the checkpoint {start.name}")],
            settings,
            self_training=True,
            terms=terms,
        ),
    }
    row = Pretraining(
        id=new_id("pt"),
        workspace_id=workspace_id,
        dataset_id=dataset.id,
        start_checkpoint_id=start.id,
        state=JobState.QUEUED,
        request=request,
        created_at=database_now(session),
    )
    tree.begin(session, row, JobKind.PRETRAIN, max_attempts=settings.max_attempts)
    session.flush()
    return row


def _given(asked: PretrainingCreate) -> dict[str, Any]:
    """What is asked for of the terms of a training; a pretraining's request has not all of them."""
    return {name: getattr(asked, name, None) for name in TERMS} | _OF_SUBSET


def _of_labelled(asked: PretrainingCreate) -> list[Fault]:
    if asked.labelled_dataset_id is None:
        message = "self-training needs labels too: name the dataset that the teacher was fine-tuned on"
    elif asked.labelled_dataset_id == asked.dataset_id:
        message = (
            "it is the dataset without labels itself: name another one; to learn from the pictures that a label_fraction leaves "
            "out, POST /v1/verifications with teacher_checkpoint_id"
        )
    else:
        return []
    return [{"pointer": "/labelled_dataset_id", "message": message}]


def _refuse_unfit(dataset: Dataset, labelled: Dataset) -> None:
    """Raises Conflict where one has no pictures to learn from, or the other no true boxes."""
    ready(dataset)
    ready(labelled)
    with_boxes(labelled, "a student learns from labels too", "/labelled_dataset_id")
    message = None
    pointer = "/dataset_id"
    splits = (dataset.summary or {}).get("splits") or {}
    if "train" not in splits or not splits["train"]["images"]:
        message = f"the dataset {dataset.id} has no training pictures: send some, without labels"
    elif labelled.supervision == "pseudo_boxes":
        pointer = "/labelled_dataset_id"
        message = (
            f"the boxes of {labelled.id} are pseudo boxes, which are no source of others: give true ones"
        )
    if message is not None:
        raise Conflict(message, errors=[{"pointer": pointer, "message": message}])


def _refuse_unable(teacher: Checkpoint, labelled: Dataset) -> None:
    if why := unusable(teacher):
        raise Conflict(why, errors=[{"pointer": "/teacher_checkpoint", "message": why}])
    if why := teachers.misfit(teacher, labelled):
        refuse([{"pointer": "/teacher_checkpoint", "message": why}])


def _verification_of(session: Session, teacher: Checkpoint) -> Verification | None:
    """The one that made the teacher."""
    query = select(Verification).where(
        Verification.workspace_id == teacher.workspace_id, Verification.trained_checkpoint_id == teacher.id
    )
    return session.scalar(query.order_by(Verification.id).limit(1))


def _best_verified(session: Session, labelled: Dataset) -> Verification:
    """By mAP on validation, for test images must not choose; the oldest of equals. Raises Conflict where there is none."""
    reached = Verification.result["best"]["map"].as_float()
    query = (
        select(Verification)
        .join(Checkpoint, Checkpoint.id == Verification.trained_checkpoint_id)
        .where(
            Verification.workspace_id == labelled.workspace_id,
            Verification.dataset_id == labelled.id,
            Verification.state == JobState.SUCCEEDED.value,
            Checkpoint.state == ResourceState.READY.value,
            reached.is_not(None),
        )
        .order_by(reached.desc(), Verification.id)
    )
    found = session.scalar(query.limit(1))
    if found is None:
        message = f"no detector was fine-tuned on {labelled.id} yet: POST /v1/verifications first, or name a teacher_checkpoint"
        raise Conflict(message, errors=[{"pointer": "/teacher_checkpoint", "message": message}])
    return found


def _begun_with(session: Session, made_by: Verification | None) -> Checkpoint | None:
    """What the teacher was before it was fine-tuned."""
    found = session.get(Checkpoint, made_by.checkpoint_id) if made_by is not None else None
    return found if found is not None and unusable(found) is None else None


def _terms(asked: PretrainingCreate, made_by: Verification | None, start: Checkpoint) -> dict[str, Any]:
    """Of every round's training: those of the teacher's own, so that pseudo boxes are what differs, with what is asked for.

    Raises InvalidRequest where the recipe does not fit what the student begins with.
    """
    given = _given(asked)
    its = made_by.request if made_by is not None and asked.recipe is None else {}
    if its and recipes.misfit(its["recipe"], start.architecture, "") is None:
        known = {name: its.get(name) for name in TERMS}
        if any(given[name] is not None for name in recipes.BUDGETS):
            known |= dict.fromkeys(recipes.BUDGETS)
        given = known | {name: value for name, value in given.items() if value is not None} | _OF_SUBSET
    if why := recipes.misfit(given["recipe"], start.architecture, f"the checkpoint {start.id}"):
        refuse([{"pointer": "/recipe", "message": why}])
    return recipes.filled(given, recipes.chosen(given["recipe"], start.architecture))
