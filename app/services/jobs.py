"""Jobs and workers as callers see them."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.engine import database_now
from app.db.tables import Event, Job, WorkerRecord
from app.queue import control, events
from app.queue.states import ENDED
from app.schemas.jobs import JobQuery, JobView, Progress, WorkerView
from app.services.listing import page
from app.services.records import owned

_AT_ONCE = 200


def find(session: Session, workspace_id: str, id: str) -> Job:
    return owned(session, Job, workspace_id, id)


def listed(session: Session, workspace_id: str, asked: JobQuery) -> tuple[list[Job], str | None]:
    query = select(Job).where(Job.workspace_id == workspace_id)
    for column, value in (
        (Job.state, asked.state),
        (Job.kind, asked.kind),
        (Job.resource_id, asked.resource_id),
    ):
        if value is not None:
            query = query.where(column == value)
    return page(session, query, Job, asked)


def cancel(session: Session, workspace_id: str, id: str) -> Job:
    """Asks it to stop; harmless for one that has ended."""
    owned(session, Job, workspace_id, id)
    return control.cancel(session, id)


def retry(session: Session, workspace_id: str, id: str) -> Job:
    """Queues a failed or cancelled job again. Raises Conflict for any other."""
    owned(session, Job, workspace_id, id)
    return control.retry(session, id)


def view(job: Job) -> JobView:
    return JobView(
        id=job.id,
        kind=job.kind,
        state=job.state,
        stage=job.stage,
        resource_id=job.resource_id,
        checkpoint_id=job.payload.get("checkpoint_id"),
        shard=job.payload.get("shard"),
        shards=job.payload.get("shards"),
        queue=job.queue,
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


def events_after(session: Session, stream_id: str, seq: int, kind: str | None = None) -> list[Event]:
    """The next events of a stream, oldest first; at most 200 at a time."""
    query = select(Event).where(Event.stream_id == stream_id, Event.seq > seq)
    if kind is not None:
        query = query.where(Event.kind == kind)
    return list(session.scalars(query.order_by(Event.seq).limit(_AT_ONCE)))


def stream_state(session: Session, model: Any, id: str) -> tuple[int, str] | None:
    """(number of the last event, state) of a stream; None where it has been deleted."""
    row = session.execute(select(model.event_seq, model.state).where(model.id == id)).one_or_none()
    return None if row is None else (row.event_seq, row.state)


def is_over(state: str) -> bool:
    return state in ENDED


def workers(session: Session, lease_s: float) -> list[WorkerView]:
    """Worker processes, those heard of last first."""
    now: datetime = database_now(session)
    records = session.scalars(select(WorkerRecord).order_by(WorkerRecord.seen_at.desc()).limit(100)).all()
    return [
        WorkerView(
            name=record.name,
            queues=record.queues,
            alive=now - record.seen_at < timedelta(seconds=lease_s),
            details=record.details,
            started_at=record.started_at,
            seen_at=record.seen_at,
        )
        for record in records
    ]
