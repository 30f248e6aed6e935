"""Jobs and workers as callers see them."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.engine import database_now
from app.db.tables import Checkpoint, Job, WorkerRecord
from app.queue import events
from app.queue.jobs import shown, shown_as
from app.queue.states import ACTIVE, JobState
from app.schemas.jobs import JobView, Progress, WorkerDetails, WorkerView
from app.services.listing import Listing

LISTING = Listing(Job, "job", {"state": lambda state: shown_as(JobState(state))})


def view(job: Job) -> JobView:
    return JobView(
        id=job.id,
        kind=job.kind,
        state=shown(job),
        stage=job.stage,
        resource_id=job.resource_id,
        checkpoint_id=job.payload.get("checkpoint_id"),
        shard=job.payload.get("shard"),
        shards=job.payload.get("shards"),
        queue=job.queue,
        priority=job.priority,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        worker=job.worker,
        progress=Progress(**events.progress_of(job)),
        error=job.error,
        cancel_requested_at=job.cancel_requested_at,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def workers(session: Session, lease_s: float, workspace_id: str | None) -> list[WorkerView]:
    """Worker processes, those heard of last first, with jobs and loaded detectors of one workspace; None: of all."""
    now: datetime = database_now(session)
    records = session.scalars(select(WorkerRecord).order_by(WorkerRecord.seen_at.desc()).limit(100)).all()
    at_work = _at_work(session, workspace_id)
    weights = _weights(session, records, workspace_id)
    return [
        WorkerView(
            name=record.name,
            queues=record.queues,
            alive=now - record.seen_at < timedelta(seconds=lease_s),
            details=_details(record, weights),
            jobs=at_work.get(record.name, []),
            started_at=record.started_at,
            seen_at=record.seen_at,
        )
        for record in records
    ]


def _at_work(session: Session, workspace_id: str | None) -> dict[str | None, list[str]]:
    """Ids of jobs in the hands of workers, by the worker's name."""
    query = (
        select(Job.worker, Job.id).where(Job.state.in_([state.value for state in ACTIVE])).order_by(Job.id)
    )
    if workspace_id is not None:
        query = query.where(Job.workspace_id == workspace_id)
    found: dict[str | None, list[str]] = defaultdict(list)
    for worker, id in session.execute(query):
        found[worker].append(id)
    return found


def _weights(session: Session, records: Sequence[WorkerRecord], workspace_id: str | None) -> set[str]:
    """Digests of the loaded detectors that are the workspace's own."""
    held = {model["weights_sha256"] for record in records for model in record.details.get("models") or ()}
    if workspace_id is None or not held:
        return held
    own = select(Checkpoint.weights_sha256).where(
        Checkpoint.workspace_id == workspace_id, Checkpoint.weights_sha256.in_(held)
    )
    return {digest for digest in session.scalars(own) if digest is not None}


def _details(record: WorkerRecord, weights: set[str]) -> WorkerDetails:
    models = [model for model in record.details.get("models") or () if model["weights_sha256"] in weights]
    return WorkerDetails(**record.details | {"models": models})
