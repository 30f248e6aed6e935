"""What callers may ask of jobs, and of all that jobs work for: cancel and retry. For services of the API; workers use leases.py."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.engine import database_now
from app.db.tables import Candidate, Job, Ranking, Search, Study, Verification
from app.errors import Conflict, NotFound
from app.queue import flow, jobs, ranking_flow, search_flow, shard_flow, study_flow, wholes
from app.queue.states import ENDED, JobKind, JobState


def cancel(session: Session, job_id: str) -> Job:
    """Ask a job to stop: a queued one is over at once, a running one when its worker hears of it. Idempotent.

    A job that has ended stays as it is. Raises NotFound.
    """
    locked = jobs.lock(session, job_id)
    if locked is None:
        raise NotFound(f"there is no job {job_id}")
    job, now = locked.job, database_now(session)
    if job.state in (JobState.QUEUED, JobState.RUNNING):
        jobs.stop(session, job, now=now)
        flow.follow(session, locked, now=now)
    return job


def cancel_ranking(session: Session, ranking_id: str) -> Ranking:
    """Ask a ranking, its verifications and all their unfinished jobs to stop. Idempotent; one that has ended stays as it is.

    Raises NotFound.
    """
    ranking = jobs.lock_resource(session, Ranking, ranking_id)
    if ranking is None:
        raise NotFound(f"there is no ranking {ranking_id}")
    if ranking.state in ENDED:
        return ranking
    _ask_to_stop(session, ranking)
    verifications = session.scalars(select(Verification.id).where(Verification.ranking_id == ranking_id))
    _cancel_jobs_of(session, [ranking_id, *verifications])
    return ranking


def cancel_whole(session: Session, table: type[wholes.Whole], id: str) -> wholes.Whole:
    """Ask a search or study, its rankings and verifications and all their unfinished jobs to stop. Idempotent.

    Raises NotFound.
    """
    row = jobs.lock_resource(session, table, id)
    if row is None:
        raise NotFound(f"there is no {table.__name__.lower()} {id}")
    if row.state in ENDED:
        return row
    _ask_to_stop(session, row)
    for ranking in wholes.parts(session, row, Ranking):
        cancel_ranking(session, ranking.id)
    _cancel_jobs_of(session, [row.id, *(part.id for part in wholes.parts(session, row, Verification))])
    return row


def _ask_to_stop(session: Session, row: Ranking | wholes.Whole) -> None:
    """Mark a locked row that has not ended, once."""
    if row.cancel_requested_at is None:
        row.cancel_requested_at = database_now(session)
        if row.state == JobState.RUNNING:
            row.state = JobState.CANCELLING.value
        row.version += 1


def _cancel_jobs_of(session: Session, resources: list[str]) -> None:
    unfinished: list[str] = []
    for start in range(0, len(resources), 500):  # SQLite takes a limited number of parameters
        some = Job.resource_id.in_(resources[start : start + 500])
        query = select(Job.id).where(some, Job.state.not_in([state.value for state in ENDED]))
        unfinished += session.scalars(query)
    for job_id in sorted(unfinished):
        cancel(session, job_id)


def retry(session: Session, job_id: str) -> Job:
    """Queue a failed or cancelled job again with all its attempts; its dataset, checkpoint or ranking is at work again.

    With a shard go the other shards of its candidate, which stopped with it.

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
    for stopped in _stopped_with(session, job):
        jobs.queue_again(session, stopped, now=now)
    flow.follow(session, locked, now=now)
    return job


def _put_back(session: Session, locked: jobs.Locked, now: datetime) -> None:
    """Make the resource ready to hear of the job again; refuse where it waits for another one."""
    job, resource = locked.job, locked.resource
    if not isinstance(resource, Ranking) and resource.job_id not in (None, job.id):
        raise Conflict(f"{resource.id} has a newer job, {resource.job_id}; look at that one")
    match resource, locked.owner:
        case (Search() as search, _):
            search_flow.put_back(session, search, None, now)
        case (Study() as study, _):
            study_flow.put_back(session, study, None, now)
        case (_, Search() as search):
            search_flow.put_back(session, search, job, now)
        case (_, Study() as study):
            study_flow.put_back(session, study, job, now)
    ranking = locked.owner if isinstance(resource, Verification) else resource
    if not isinstance(ranking, Ranking):
        return
    if job.kind == JobKind.RANK:
        if ranking.rank_job_id != job.id:
            raise Conflict(
                f"the ranking {ranking.id} has a newer job, {ranking.rank_job_id}; look at that one"
            )
        stage = "ranking"
    else:
        _refuse_while_ordering(session, ranking)
        stage = "verifying"
    if job.kind in (JobKind.SCORE, JobKind.SHARD):
        candidate = session.get(Candidate, (ranking.id, job.payload["checkpoint_id"]), populate_existing=True)
        awaited = candidate is not None and (
            candidate.job_id == job.id or shard_flow.is_awaited(session, candidate, job)
        )
        if not awaited:
            raise Conflict(f"the ranking {ranking.id} no longer waits for the job {job.id}")
        if candidate.state == JobState.CANCELLING:
            raise Conflict(f"other shards of {candidate.checkpoint_id} are still stopping; try again when it is over")
        ranking.rank_job_id = None
        stage = "scoring"
    ranking.cancel_requested_at = None
    ranking.state = JobState.QUEUED.value if ranking.state in ENDED else ranking.state
    ranking_flow.start_ranking(session, ranking, stage, now=now)


def _stopped_with(session: Session, job: Job) -> list[Job]:
    """A locked job that failed or was cancelled, and the shards of the same candidate that did, locked too."""
    if job.kind != JobKind.SHARD:
        return [job]
    shards = shard_flow.jobs_of(session, job.resource_id, job.payload["checkpoint_id"])
    locked = [jobs.lock(session, each.id) for each in shards]
    return [each.job for each in locked if each and each.job.state in (JobState.FAILED, JobState.CANCELLED)]


def _refuse_while_ordering(session: Session, ranking: Ranking) -> None:
    ordering = session.get(Job, ranking.rank_job_id, populate_existing=True) if ranking.rank_job_id else None
    if ordering is not None and ordering.state not in ENDED:
        raise Conflict(
            f"the ranking {ranking.id} is being put in order; try again when {ordering.id} has ended"
        )
