"""Deleting datasets and checkpoints that nothing needs any more, and saying who needs the others."""

from typing import Any

from sqlalchemy import ColumnElement, Select, String, cast, delete, exists, or_, select, update
from sqlalchemy.orm import Session

from app.db.tables import (
    Candidate,
    Checkpoint,
    Dataset,
    Pretraining,
    PseudoLabelling,
    Ranking,
    Search,
    Study,
    Subset,
    Verification,
)
from app.db.work import Work
from app.errors import Conflict
from app.queue.kinds import KINDS
from app.queue.removal import forget_jobs
from app.queue.states import ENDED

LISTED_USERS = 20


# columns that name a dataset or a checkpoint for as long as their row is there
USERS: dict[type[Any], tuple[Any, ...]] = {
    Dataset: (
        Ranking.dataset_id,
        Verification.dataset_id,
        Search.dataset_id,
        Pretraining.dataset_id,
        PseudoLabelling.dataset_id,
        PseudoLabelling.truth_dataset_id,
    ),
    Checkpoint: (
        Candidate.checkpoint_id,
        Verification.checkpoint_id,
        Pretraining.start_checkpoint_id,
        Pretraining.encoder_checkpoint_id,
        PseudoLabelling.checkpoint_id,
    ),
}


def unused(table: type[Any]) -> list[ColumnElement[bool]]:
    """Conditions on rows of a table that nothing refers to; none where nothing can."""
    return [~exists().where(column == table.id) for column in USERS.get(table, ())]


def remove_dataset(session: Session, dataset: Dataset) -> None:
    """Deletes the locked record, its subsets and jobs. Raises Conflict, naming who uses it."""
    id = dataset.id
    for users, by in (
        (Ranking, "rankings"),
        (Verification, "verifications"),
        (Search, "searches"),
        (Pretraining, "pretrainings"),
        (PseudoLabelling, "pseudo-labellings"),
    ):
        found = select(users.id).where(users.dataset_id == id).order_by(users.id)
        _refuse(session, found, "the dataset is used by", by)
    waiting = select(Verification.id).where(
        Verification.request["test_dataset_id"].as_string() == id, Verification.state.not_in(ENDED)
    )
    _refuse(session, waiting.order_by(Verification.id), "the dataset is measured on by", "verifications")
    measured = select(PseudoLabelling.id).where(PseudoLabelling.truth_dataset_id == id)
    _refuse(session, measured.order_by(PseudoLabelling.id), "the dataset is used by", "pseudo-labellings")
    session.execute(
        update(PseudoLabelling)
        .where(PseudoLabelling.made_dataset_id == id)
        .values(made_dataset_id=None, version=PseudoLabelling.version + 1)
    )
    forget_jobs(session, [id])
    session.execute(delete(Subset).where(Subset.dataset_id == id))
    session.delete(dataset)


def remove_checkpoint(session: Session, checkpoint: Checkpoint) -> None:
    """Deletes the locked record and its jobs. Raises Conflict, naming who uses it."""
    id = checkpoint.id
    users = select(Candidate.ranking_id).where(Candidate.checkpoint_id == id).order_by(Candidate.ranking_id)
    _refuse(session, users, "the checkpoint is a candidate of", "rankings")
    fine_tuned = select(Verification.id).where(Verification.checkpoint_id == id).order_by(Verification.id)
    _refuse(session, fine_tuned, "the checkpoint is fine-tuned by", "verifications")
    needed = select(Pretraining.id).where(
        or_(Pretraining.start_checkpoint_id == id, Pretraining.encoder_checkpoint_id == id)
    )
    _refuse(session, needed.order_by(Pretraining.id), "the checkpoint is pretrained by", "pretrainings")
    waiting = select(Verification.id).where(
        Verification.request["teacher_checkpoint_id"].as_string() == id, Verification.state.not_in(ENDED)
    )
    _refuse(session, waiting.order_by(Verification.id), "the checkpoint teaches", "verifications")
    teaches = (
        select(PseudoLabelling.id).where(PseudoLabelling.checkpoint_id == id).order_by(PseudoLabelling.id)
    )
    _refuse(session, teaches, "the checkpoint is the teacher of", "pseudo-labellings")
    # its scores stay known
    for owner in (Ranking, Search, Study):  # which show what their verifications made
        column = getattr(Verification, f"{owner.__tablename__}_id")
        owners = select(column).where(Verification.trained_checkpoint_id == id)
        session.execute(update(owner).where(owner.id.in_(owners)).values(version=owner.version + 1))
    for maker in (Verification, Pretraining, PseudoLabelling):
        made_by = update(maker).where(maker.trained_checkpoint_id == id)
        session.execute(made_by.values(trained_checkpoint_id=None, version=maker.version + 1))
    forget_jobs(session, [id])
    session.delete(checkpoint)


def named_by_work(session: Session, id: str) -> str | None:
    """The id of work that has not ended and whose request names `id`, wherever in it; None where there is none."""
    tables = {kind.table for kind in KINDS.values() if issubclass(kind.table, Work)}
    for table in sorted(tables, key=lambda each: str(each.__tablename__)):
        names = cast(table.request, String).contains(id)
        found = session.scalar(select(table.id).where(table.state.not_in(ENDED), names).limit(1))
        if found is not None:
            return str(found)
    return None


def _refuse(session: Session, users: Select[Any], is_used: str, by: str) -> None:
    """Raises Conflict where there are `users`, and names the first ones; `is_used` begins the sentence."""
    found = session.scalars(users.limit(LISTED_USERS)).all()
    if found:
        raise Conflict(
            f"{is_used} {len(found)} {by}; delete them first: {', '.join(found)}",
            errors=[{"pointer": "", "message": f"used by /v1/{by}/{user}"} for user in found],
        )
