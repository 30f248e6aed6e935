"""Candidates whose images several `shard` jobs read: adding the jobs, and what follows when one changes state.

A candidate with shards waits for all of them. The last to succeed adds the `score` job that puts their parts together; one
that fails or is cancelled stops the others, and the candidate ends with the last of them.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Candidate, Job, Ranking, Shard
from app.queue import events, jobs
from app.queue.jobs import Locked, add_job
from app.queue.ranking_flow import advance_ranking, start_ranking
from app.queue.states import ENDED, JobKind, JobState

_BROKEN_OFF = frozenset({JobState.FAILED, JobState.CANCELLED, JobState.CANCELLING})


def add(session: Session, ranking: Ranking, checkpoint_id: str, shards: int, *, max_attempts: int) -> str:
    """So many queued `shard` jobs of one candidate; the id of the first, which stands for all until there is a `score` job."""
    ids = []
    for position in range(shards):
        job = add_job(
            session,
            workspace_id=ranking.workspace_id,
            kind=JobKind.SHARD,
            resource_id=ranking.id,
            payload={"checkpoint_id": checkpoint_id, "shard": position, "shards": shards},
            max_attempts=max_attempts,
        )
        session.add(
            Shard(ranking_id=ranking.id, checkpoint_id=checkpoint_id, position=position, job_id=job.id)
        )
        ids.append(job.id)
    session.flush()
    return ids[0]


def jobs_of(session: Session, ranking_id: str, checkpoint_id: str) -> list[Job]:
    """The `shard` jobs of a candidate as they are now, by position; none where it is read as a whole."""
    query = (
        select(Job)
        .join(Shard, Shard.job_id == Job.id)
        .where(Shard.ranking_id == ranking_id, Shard.checkpoint_id == checkpoint_id)
        .order_by(Shard.position)
    )
    return list(session.scalars(query, execution_options={"populate_existing": True}))


def is_awaited(session: Session, candidate: Candidate, job: Job) -> bool:
    """Whether the candidate still waits for this `shard` job: it has not come to its `score` job yet."""
    ids = {each.id for each in jobs_of(session, candidate.ranking_id, candidate.checkpoint_id)}
    return {job.id, candidate.job_id} <= ids


def mirror(session: Session, locked: Locked, now: datetime) -> None:
    """Brings a candidate in line with its shards, of which one has just changed state."""
    ranking, job = locked.ranking, locked.job
    if ranking is None:
        return
    key = (ranking.id, job.payload["checkpoint_id"])
    candidate = session.get(Candidate, key, populate_existing=True)
    if candidate is None or not is_awaited(session, candidate, job):
        return
    if job.state in _BROKEN_OFF:
        _stop_others(session, jobs_of(session, *key), now)
    shards = jobs_of(session, *key)
    states = [JobState(each.state) for each in shards]
    before, candidate.state = candidate.state, _together(states).value
    candidate.error = next((each.error for each in shards if each.state == JobState.FAILED), None)
    if set(states) == {JobState.SUCCEEDED}:
        candidate.job_id = _add_score_job(session, ranking, job, now).id
        candidate.state = JobState.RUNNING.value if ranking.cancel_requested_at is None else JobState.CANCELLED.value
    if candidate.state != before or job.state == JobState.SUCCEEDED:
        about: dict[str, Any] = {
            "checkpoint_id": candidate.checkpoint_id,
            "job_id": candidate.job_id,
            "state": candidate.state,
            "attempt": job.attempt,
            "shards": {"done": states.count(JobState.SUCCEEDED), "total": len(states)},
        }
        events.append(session, ranking, "state", {"candidate": about}, now=now)
    if candidate.state == before:
        return
    if candidate.state == JobState.RUNNING:
        start_ranking(session, ranking, "scoring", now=now)
    if candidate.state in ENDED:
        advance_ranking(session, ranking, max_attempts=job.max_attempts, now=now)


def _together(states: list[JobState]) -> JobState:
    """The state of a candidate whose shards are in these."""
    found = set(states)
    if found <= ENDED:
        return next(
            state for state in (JobState.FAILED, JobState.CANCELLED, JobState.SUCCEEDED) if state in found
        )
    if found & _BROKEN_OFF:
        return JobState.CANCELLING
    return JobState.QUEUED if found == {JobState.QUEUED} else JobState.RUNNING


def _stop_others(session: Session, shards: list[Job], now: datetime) -> None:
    for shard in shards:
        if shard.state in (JobState.QUEUED, JobState.RUNNING):
            other = jobs.lock(session, shard.id)
            if other is not None and other.job.state in (JobState.QUEUED, JobState.RUNNING):
                jobs.stop(session, other.job, now=now)


def _add_score_job(session: Session, ranking: Ranking, shard: Job, now: datetime) -> Job:
    job = add_job(
        session,
        workspace_id=ranking.workspace_id,
        kind=JobKind.SCORE,
        resource_id=ranking.id,
        payload={"checkpoint_id": shard.payload["checkpoint_id"], "shards": shard.payload["shards"]},
        max_attempts=shard.max_attempts,
    )
    if ranking.cancel_requested_at is not None:  # there all the same, so that it can be tried again
        jobs.stop(session, job, now=now)
    return job
