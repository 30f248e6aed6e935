"""How work whose parts build on each other differs: it ends with the first part that did not succeed."""

from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Job
from app.errors import Problem
from app.queue.states import BROKEN, JobKind, JobState

Verdict = Callable[[Session, Job], tuple[JobState, Problem | None] | None]


def ends_with(*needed: JobKind) -> Verdict:
    """A verdict: where a child of these kinds failed or was cancelled, so does the job; others may fail without it."""

    def verdict(session: Session, job: Job) -> tuple[JobState, Problem | None] | None:
        query = select(Job).where(Job.parent_id == job.id, Job.kind.in_([kind.value for kind in needed]))
        parts = session.scalars(query.order_by(Job.id)).all()
        for state in (JobState.FAILED, JobState.CANCELLED):
            for part in parts:
                if part.state == state and part.state in BROKEN:
                    return state, part.error
        return None

    return verdict
