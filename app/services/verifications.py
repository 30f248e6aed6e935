"""Verifications: making, finding, stopping, trying again, removing."""

from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session, defer

from app.db.tables import Checkpoint, Dataset, Event, Ranking, Verification
from app.errors import Conflict, NotFound
from app.queue import control, jobs
from app.queue import verifications as rows
from app.queue.states import ENDED
from app.schemas.verifications import TrainingTerms, VerificationCreate, VerificationQuery
from app.services import recipes
from app.services.checkpoints import unusable
from app.services.datasets import ready, with_boxes
from app.services.faults import Fault, refuse
from app.services.listing import page
from app.services.records import forget_jobs, owned
from app.settings import Settings

# what lists and tables do not show
WITHOUT_DETAILS = tuple(defer(getattr(Verification, name)) for name in ("result", "curves", "plan", "pictures", "plots"))


def terms_of(asked: TrainingTerms) -> dict[str, Any]:
    return {name: getattr(asked, name) for name in TrainingTerms.model_fields}


def create(session: Session, workspace_id: str, asked: VerificationCreate, settings: Settings) -> Verification:
    """A verification with its job. Raises InvalidRequest naming each field at fault, Conflict for what cannot be used."""
    terms = terms_of(asked)
    faults = recipes.faults_of(terms, "", settings.verify_time_limit_s / 60)
    dataset = _found(session, Dataset, workspace_id, asked.dataset_id, "/dataset_id", faults)
    # key share: it cannot be deleted before the verification that names it is there
    checkpoint = _found(session, Checkpoint, workspace_id, asked.checkpoint_id, "/checkpoint_id", faults)
    refuse(faults)
    ready(dataset)
    with_boxes(dataset, "what is found is compared with boxes")
    if why := unusable(checkpoint):
        raise Conflict(why, errors=[{"pointer": "/checkpoint_id", "message": why}])
    if why := recipes.misfit(asked.recipe, checkpoint.architecture, f"the checkpoint {checkpoint.id}"):
        refuse([{"pointer": "/recipe", "message": why}])
    recipe = asked.recipe or recipes.default_recipe(checkpoint.architecture)
    request = recipes.filled(terms, recipe) | {
        "dataset_id": dataset.id,
        "checkpoint_id": checkpoint.id,
        "seed": asked.seed,
        "name": asked.name,
    }
    return rows.add(session, workspace_id=workspace_id, request=request, max_attempts=settings.max_attempts)


def find(session: Session, workspace_id: str, id: str) -> Verification:
    return owned(session, Verification, workspace_id, id)


def listed(
    session: Session, workspace_id: str, asked: VerificationQuery
) -> tuple[list[Verification], str | None]:
    query = select(Verification).options(*WITHOUT_DETAILS).where(Verification.workspace_id == workspace_id)
    for name in ("state", "dataset_id", "checkpoint_id", "ranking_id", "search_id", "study_id"):
        value = getattr(asked, name)
        if value is not None:
            query = query.where(getattr(Verification, name) == value)
    return page(session, query, Verification, asked)


def cancel(session: Session, workspace_id: str, id: str) -> Verification:
    """Asks it to stop; harmless for one that has ended."""
    row = owned(session, Verification, workspace_id, id)
    control.cancel(session, row.job_id)
    return row


def retry(session: Session, workspace_id: str, id: str) -> Verification:
    """Tries a failed or cancelled one again, from the state it had reached. Raises Conflict for any other."""
    row = owned(session, Verification, workspace_id, id)
    if row.state not in ("failed", "cancelled"):
        raise Conflict(f"the verification {id} is {row.state}; only a failed or cancelled one can be tried again")
    control.retry(session, row.job_id)
    return row


def remove(session: Session, workspace_id: str, id: str) -> None:
    """Deletes one that has ended; the fine-tuned checkpoint stays. Raises Conflict while it is at work."""
    owned(session, Verification, workspace_id, id)
    row = jobs.lock_resource(session, Verification, id)
    if row is None:
        raise NotFound(f"there is no verification {id!r} in this workspace; GET /v1/verifications lists them")
    if row.state not in ENDED:
        raise Conflict(f"the verification is {row.state}: POST /v1/verifications/{id}:cancel first, or wait until it ends")
    for name in ("search_id", "study_id"):
        owner = getattr(row, name)
        if owner is not None:
            raise Conflict(
                f"the verification is a part of {owner}; delete that instead",
                errors=[{"pointer": "", "message": f"used by {owner}"}],
            )
    ranking = session.get(Ranking, row.ranking_id) if row.ranking_id else None
    if ranking is not None and ranking.state not in ENDED:
        raise Conflict(
            f"the verification is a part of the ranking {ranking.id}, which is {ranking.state}: wait until it ends",
            errors=[{"pointer": "", "message": f"used by /v1/rankings/{ranking.id}"}],
        )
    forget(session, [row.id])


def forget(session: Session, ids: list[str]) -> None:
    """Deletes ended verifications with their jobs and events."""
    for id in ids:
        forget_jobs(session, id)
        session.execute(delete(Event).where(Event.stream_id == id))
    session.execute(delete(Verification).where(Verification.id.in_(ids)))


def events_of_curve(session: Session, id: str) -> list[dict[str, Any]]:
    """Points of a training that has not succeeded, in order of iteration; one told again by a later attempt counts once."""
    query = select(Event.data).where(Event.stream_id == id, Event.kind == "curve").order_by(Event.seq)
    points = {(point.get("iteration"), point.get("kind")): point for point in session.scalars(query)}
    return [points[key] for key in sorted(points, key=lambda key: (key[0] or 0, str(key[1])))]


def _found(session: Session, model: Any, workspace_id: str, id: str, pointer: str, faults: list[Fault]) -> Any:
    try:
        row = owned(session, model, workspace_id, id)
    except NotFound as missing:
        faults.append({"pointer": pointer, "message": missing.detail})
        return None
    session.refresh(row, with_for_update={"read": True, "key_share": True})
    return row
