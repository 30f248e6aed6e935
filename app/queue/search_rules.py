"""How a search differs: it ends as its ranking did where that has no order; after that it decides itself which parts go on."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Job, Search
from app.errors import Problem
from app.queue.states import BROKEN, JobKind, JobState


def verdict(session: Session, job: Job) -> tuple[JobState, Problem | None] | None:
    """A search whose ranking did not succeed ends as that did, as long as it has not gone on."""
    if goes_on_without(session, job, JobKind.RANK):
        return None
    ranking = session.scalars(
        select(Job).where(Job.parent_id == job.id, Job.kind == JobKind.RANK.value, Job.state.in_(BROKEN))
    ).first()
    return None if ranking is None else (JobState(ranking.state), ranking.error)


def again(session: Session, job: Job) -> list[Job]:
    """What was stopped with the search; a part that failed, or was cancelled alone, is left out for good."""
    parts = session.scalars(select(Job).where(Job.parent_id == job.id).order_by(Job.id)).all()
    if not goes_on_without(session, job, JobKind.RANK):
        return [each for each in parts if each.kind == JobKind.RANK and each.state in BROKEN]
    asked = job.cancel_requested_at
    return [
        each
        for each in parts
        if each.kind == JobKind.VERIFY
        and each.state == JobState.CANCELLED
        and asked is not None
        and each.cancel_requested_at is not None
        and each.cancel_requested_at >= asked
    ]


def refuses(session: Session, job: Job, part: JobKind) -> str | None:
    """Why a part of a search cannot be tried again: a search that has its answer is over."""
    if job.state != JobState.SUCCEEDED or goes_on_without(session, job, part):
        return None
    return f"the search {job.resource_id} has ended with its answer; start another one with a larger budget"


def goes_on_without(session: Session, job: Job, part: JobKind) -> bool:
    """Whether the search no longer waits for its ranking: it has decided on a round, with the order that it had."""
    return part is JobKind.RANK and session.get_one(Search, job.resource_id).rounds is not None
