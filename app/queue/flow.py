"""What follows when a job changes state: its resource moves in the same transaction."""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from app.db.tables import Checkpoint, Dataset
from app.queue import ranking_flow, search_flow, shard_flow, study_flow, verification_flow
from app.queue.jobs import Locked
from app.queue.states import JobKind, JobState, ResourceState


def follow(session: Session, locked: Locked, *, now: datetime) -> None:
    """Bring everything that depends on a job in line with the state it has just taken. Idempotent."""
    match JobKind(locked.job.kind):
        case JobKind.INGEST | JobKind.INSPECT:
            _settle(locked, now)
        case JobKind.SHARD:
            shard_flow.mirror(session, locked, now)
        case JobKind.SCORE:
            ranking_flow.mirror(session, locked, now)
        case JobKind.RANK:
            ranking_flow.conclude(session, locked, now)
        case JobKind.VERIFY:
            verification_flow.mirror(session, locked, now)
        case JobKind.SEARCH:
            search_flow.decided(session, locked, now)
        case JobKind.STUDY:
            study_flow.concluded(session, locked, now)


def _settle(locked: Locked, now: datetime) -> None:
    """A dataset or checkpoint is ready once its job succeeded, invalid with the job's reason when it ended otherwise."""
    row, job = locked.resource, locked.job
    if not isinstance(row, Dataset | Checkpoint) or row.job_id not in (None, job.id):
        return
    match JobState(job.state):
        case JobState.SUCCEEDED:
            state, error = ResourceState.READY, None
        case JobState.FAILED:
            state, error = ResourceState.INVALID, job.error
        case JobState.CANCELLED:
            state, error = ResourceState.INVALID, _cancelled()
        case _:
            state, error = ResourceState.PROCESSING, None
    if row.state == state == ResourceState.PROCESSING:
        return
    row.state, row.error = state.value, error
    row.updated_at = now
    row.version += 1


def _cancelled() -> dict[str, Any]:
    return {
        "type": "urn:detrank:problem:cancelled",
        "code": "cancelled",
        "title": "It was cancelled",
        "status": 409,
        "detail": "the job that prepares it was cancelled; retry the job, or send it again",
        "errors": [],
        "retryable": False,
    }
