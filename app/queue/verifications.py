"""Verification rows: adding one with its job, and the subset of training images that it sees."""

import hashlib
import json
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db.engine import database_now
from app.db.tables import Ranking, Search, Study, Subset, Verification
from app.ids import new_id
from app.queue import events
from app.queue.jobs import Owner, add_job
from app.queue.states import JobKind, JobState

_OWNER_COLUMNS = {Ranking: "ranking_id", Search: "search_id", Study: "study_id"}
# what may differ between verifications whose mAP is compared
_FREE = frozenset({"checkpoint_id", "seed", "name"})


def add(
    session: Session,
    *,
    workspace_id: str,
    request: dict[str, Any],
    owner: Owner | None = None,
    position: int = 0,
    terms: str | None = None,
    stop_at: dict[str, Any] | None = None,
    max_attempts: int = 3,
) -> Verification:
    """A queued verification of a normalised request, with its job, in the caller's transaction; `owner` is locked.

    `terms`: digest of what makes it comparable with others; by default everything but checkpoint, seed and name.
    """
    subset = subset_for(
        session,
        workspace_id=workspace_id,
        dataset_id=request["dataset_id"],
        fraction=request.get("label_fraction"),
        shots=request.get("shots"),
        seed=request.get("subset_seed") or 0,
    )
    now = database_now(session)
    row = Verification(
        id=new_id("vf"),
        workspace_id=workspace_id,
        dataset_id=request["dataset_id"],
        checkpoint_id=request["checkpoint_id"],
        subset_id=subset.id,
        position=position,
        state=JobState.QUEUED.value,
        request=request,
        terms=terms or terms_of(request),
        stop_at=stop_at,
        created_at=now,
    )
    if owner is not None:
        setattr(row, _OWNER_COLUMNS[type(owner)], owner.id)
    session.add(row)
    session.flush()
    queue_job(session, row, max_attempts=max_attempts)
    events.append(session, row, "state", {"state": row.state}, now=now)
    return row


def queue_job(session: Session, row: Verification, *, max_attempts: int) -> None:
    """The job that trains a locked verification from where it stands; its former one, if any, has ended."""
    job = add_job(
        session,
        workspace_id=row.workspace_id,
        kind=JobKind.VERIFY,
        resource_id=row.id,
        payload={"checkpoint_id": row.checkpoint_id},
        max_attempts=max_attempts,
    )
    row.job_id = job.id


def go_on(
    session: Session, row: Verification, *, stop_at: dict[str, Any], max_attempts: int
) -> None:
    """Queue a verification of a locked owner that has paused again, from where it stands to another stop."""
    row.stop_at, row.state, row.stage = stop_at, JobState.QUEUED.value, None
    row.finished_at, row.error, row.progress = None, None, None
    queue_job(session, row, max_attempts=max_attempts)
    events.append(session, row, "state", {"state": row.state})


def terms_of(request: dict[str, Any]) -> str:
    """SHA-256 of a request without what may differ between verifications that are compared."""
    kept = {name: value for name, value in request.items() if name not in _FREE}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def subset_for(
    session: Session,
    *,
    workspace_id: str,
    dataset_id: str,
    fraction: float | None = None,
    shots: int | None = None,
    seed: int = 0,
    split: str = "train",
) -> Subset:
    """The row of a subset, the same one for everybody who asks for the same; a job fills in its images."""
    kind, value = "all", None
    if shots is not None:
        kind, value = "shots", shots
    elif fraction is not None and fraction < 1.0:
        kind, value = "fraction", fraction
    seed = 0 if kind == "all" else seed
    key = f"{split}/{kind}" + ("" if value is None else f"={value!r}/seed={seed}")
    insert = (sqlite if session.get_bind().dialect.name == "sqlite" else postgresql).insert
    session.execute(
        insert(Subset)
        .values(
            id=new_id("sub"),
            workspace_id=workspace_id,
            dataset_id=dataset_id,
            key=key,
            kind=kind,
            value=value,
            seed=seed,
            split=split,
            created_at=database_now(session),
        )
        .on_conflict_do_nothing(index_elements=["dataset_id", "key"])
    )
    return session.scalars(select(Subset).where(Subset.dataset_id == dataset_id, Subset.key == key)).one()
