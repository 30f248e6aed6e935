"""What callers may ask of jobs and rankings: cancel and retry. For services of the API; workers use leases.py."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.engine import database_now
from app.db.tables import Candidate, Checkpoint, Dataset, Job, Ranking
from app.errors import Conflict, NotFound
from app.queue import flow, jobs
from app.queue.states import ENDED, JobKind, JobState


def cancel(session: Session, job_id: str) -> Job:
    """Ask a job to stop: a queued one is over at once, a running one when its worker hears of it. Idempotent.

    A job that has ended stays as it is. Raises NotFound.
    """
    locked = jobs.lock(session, job_id)
    if locked is None:
        raise NotFound(f"there is no job {job_id}")
    job, now = locked.job, database_now(session)
    if job.state == JobState.QUEUED:
        job.cancel_requested_at = now
        jobs.move(session, job, JobState.CANCELLED, now=now)
        flow.follow(session, locked, now=now)
    elif job.state == JobState.RUNNING:
        job.cancel_requested_at = now
        jobs.move(session, job, JobState.CANCELLING, now=now)
        flow.follow(session, locked, now=now)
    return job


def cancel_ranking(session: Session, ranking_id: str) -> Ranking:
    """Ask a ranking and all its unfinished jobs to stop. Idempotent; one that has ended stays as it is. Raises NotFound."""
    ranking = session.get(Ranking, ranking_id, with_for_update=True, populate_existing=True)
    if ranking is None:
        raise NotFound(f"there is no ranking {ranking_id}")
    if ranking.state in ENDED:
        return ranking
    if ranking.cancel_requested_at is None:
        ranking.cancel_requested_at = database_now(session)
        if ranking.state == JobState.RUNNING:
            ranking.state = JobState.CANCELLING.value
        ranking.version += 1
    unfinished = session.scalars(
        select(Job.id)
        .where(Job.resource_id == ranking_id, Job.state.not_in([state.value for state in ENDED]))
        .order_by(Job.id)
    ).all()
    for job_id in unfinished:
        cancel(session, job_id)
    return ranking


def retry(session: Session, job_id: str) -> Job:
    """Queue a failed or cancelled job again with all its attempts; its dataset, checkpoint or ranking is at work again.

    Raises NotFound, and Conflict where the job is not over, succeeded, or its result is no longer wanted.
    """
    locked = jobs.lock(session, job_id)
    if locked is None:
        raise NotFound(f"there is no job {job_id}")
    job = locked.job
    if job.state not in (JobState.FAILED, JobState.CANCELLED):
        raise Conflict(f"the job {job_id} is {job.state}; only a failed or cancelled job can be tried again")
    if locked.resource is None:
        raise Conflict(f"what the job {job_id} worked for, {job.resource_id}, has been deleted")
    now = database_now(session)
    _put_back(session, locked, now)
    job.attempt, job.cancel_requested_at, job.started_at = 0, None, None
    job.progress_done, job.progress_total, job.progress_unit = 0, None, None
    job.progress_message, job.progress_eta_s = None, None
    jobs.move(session, job, JobState.QUEUED, now=now)
    flow.follow(session, locked, now=now)
    return job


def _put_back(session: Session, locked: jobs.Locked, now: datetime) -> None:
    """Make the resource ready to hear of the job again; refuse where it waits for another one."""
    job, resource = locked.job, locked.resource
    if isinstance(resource, Dataset | Checkpoint):
        if resource.job_id not in (None, job.id):
            raise Conflict(f"{resource.id} has a newer job, {resource.job_id}; look at that one")
        return
    ranking = locked.ranking
    if job.kind == JobKind.RANK and ranking.rank_job_id != job.id:
        raise Conflict(f"the ranking {ranking.id} has a newer job, {ranking.rank_job_id}; look at that one")
    if job.kind == JobKind.SCORE:
        candidate = session.get(Candidate, (ranking.id, job.payload["checkpoint_id"]), populate_existing=True)
        if candidate is None or candidate.job_id != job.id:
            raise Conflict(f"the ranking {ranking.id} no longer waits for the job {job.id}")
        ordering = (
            session.get(Job, ranking.rank_job_id, populate_existing=True) if ranking.rank_job_id else None
        )
        if ordering is not None and ordering.state not in ENDED:
            raise Conflict(
                f"the ranking {ranking.id} is being put in order; try again when {ordering.id} has ended"
            )
        ranking.rank_job_id = None
    ranking.cancel_requested_at = None
    ranking.state = JobState.QUEUED.value if ranking.state in ENDED else ranking.state
    flow.start_ranking(session, ranking, "ranking" if job.kind == JobKind.RANK else "scoring", now=now)
