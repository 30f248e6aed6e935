"""The children of a job that is asked after them: how many there are, and what they cost."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import tables
from app.queue.states import JobKind


def parts_of(session: Session, job_id: str, kind: JobKind) -> int:
    """How many children of this kind the job has."""
    query = select(func.count()).where(tables.Job.parent_id == job_id, tables.Job.kind == kind.value)
    return session.scalar(query) or 0


def worked_s(session: Session, job_id: str, kind: JobKind) -> float:
    """Seconds that its children of this kind were in the hands of workers."""
    query = select(func.sum(tables.Job.worked_s)).where(
        tables.Job.parent_id == job_id, tables.Job.kind == kind.value
    )
    return round(float(session.scalar(query) or 0.0), 1)
