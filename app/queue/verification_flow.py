"""What follows for a verification when its job changes state, and for whose part it is."""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from app.db.tables import Ranking, Search, Study, Verification
from app.queue import events, ranking_flow, search_flow, study_flow
from app.queue.jobs import Locked
from app.queue.states import ENDED, JobState


def mirror(session: Session, locked: Locked, now: datetime) -> None:
    """A verification's state is its job's; its owner hears of it, and moves on with the last one to end."""
    row, job = locked.resource, locked.job
    if not isinstance(row, Verification) or row.job_id != job.id or row.state == job.state:
        return
    row.state, row.stage = job.state, job.stage
    row.error = job.error if job.state == JobState.FAILED else None
    row.started_at = row.started_at or job.started_at
    row.finished_at = now if job.state in ENDED else None
    if job.state == JobState.QUEUED:
        row.cancel_requested_at = None
    elif job.state in (JobState.CANCELLING, JobState.CANCELLED):
        row.cancel_requested_at = job.cancel_requested_at
    data: dict[str, Any] = {"state": row.state, "attempt": job.attempt}
    if row.error is not None:
        data["error"] = row.error
    events.append(session, row, "state", data, now=now)
    if locked.owner is None:
        return
    about = {"id": row.id, "checkpoint_id": row.checkpoint_id, "seed": row.request.get("seed"), "state": row.state}
    events.append(session, locked.owner, "state", {"verification": about}, now=now)
    if job.state not in ENDED:
        return
    match locked.owner:
        case Ranking() as ranking:
            ranking_flow.verified(session, ranking, max_attempts=job.max_attempts, now=now)
        case Search() as search:
            search_flow.verified(session, search, max_attempts=job.max_attempts, now=now)
        case Study() as study:
            study_flow.part_ended(session, study, max_attempts=job.max_attempts, now=now)
