"""Verification rows: adding one with its job, and the subset of training images that it sees."""

import hashlib
import json
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db.documents import StopAt
from app.db.engine import database_now
from app.db.tables import Job, Subset, Verification
from app.ids import new_id
from app.queue import tree
from app.queue.jobs import MAX_ATTEMPTS
from app.queue.states import JobKind, JobState

# the column of a verification that names its parent's row, by the parent's kind
_OWNERS = {JobKind.RANK: "ranking_id", JobKind.SEARCH: "search_id", JobKind.STUDY: "study_id"}
# fields that may differ between verifications whose mAP is compared
_FREE = frozenset({"checkpoint_id", "seed", "name"})


def add(
    session: Session,
    *,
    workspace_id: str,
    request: dict[str, Any],
    parent: Job | None = None,
    position: int = 0,
    terms: str | None = None,
    stop_at: StopAt | None = None,
    max_attempts: int = MAX_ATTEMPTS,
) -> Verification:
    """A queued verification of a normalised request, with its job, in the caller's transaction.

    `parent`: the locked job above it, whose number of attempts it gets. `terms`: digest of the fields that make verifications
    comparable; by default of all but checkpoint, seed and name.
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
    if parent is not None:
        owner = _OWNERS.get(JobKind(parent.kind))
        if owner is not None:
            setattr(row, owner, parent.resource_id)
    payload = {"checkpoint_id": row.checkpoint_id}
    tree.begin(session, row, JobKind.VERIFY, parent=parent, payload=payload, max_attempts=max_attempts)
    return row


def go_on(session: Session, row: Verification, job: Job, *, stop_at: StopAt | None) -> None:
    """Queue the locked job of a paused verification again: it goes on to another stop, or with None to its end."""
    row.stop_at, row.progress = stop_at, None
    session.flush()
    tree.go_on(session, job)


def terms_of(request: dict[str, Any]) -> str:
    """SHA-256 of a request without the fields that may differ between verifications that are compared."""
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
    """The row of a subset, one for all equal requests; a job fills in its images."""
    kind: str = "all"
    value: float | None = None
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
