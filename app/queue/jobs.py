"""Job rows: adding them, locking them, taking them from one state to the next. What follows from that is `tree.py`.

Order of locks, everywhere: the jobs above first, outermost before the others, then the job, then rows. Callers that
keep to this order cannot deadlock.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session, aliased

from app import tracing
from app.db.engine import database_now
from app.db.tables import Job
from app.errors import Problem
from app.ids import new_id
from app.queue import events, outbox
from app.queue.states import ACTIVE, ENDED, FOLLOWS, JobKind, JobState

MAX_ATTEMPTS = 3


class IllegalTransition(RuntimeError):
    """A bug of ours: a job was about to enter a state that may not follow its own."""


def new_job(
    session: Session,
    *,
    kind: JobKind,
    queue: str,
    row_id: str,
    workspace_id: str,
    parent: Job | None,
    payload: Mapping[str, Any],
    max_attempts: int,
) -> Job:
    """A queued job with its first event and its bell, all in the caller's transaction."""
    now = database_now(session)
    job = Job(
        id=new_id("job"),
        workspace_id=workspace_id,
        kind=kind.value,
        queue=queue,
        resource_id=row_id,
        parent_id=parent.id if parent is not None else None,
        priority=parent.priority if parent is not None else 0,
        payload=dict(payload),
        state=JobState.QUEUED.value,
        attempt=0,
        max_attempts=max_attempts,
        progress_done=0,
        worked_s=0.0,
        created_at=now,
        traceparent=tracing.traceparent(),
        event_seq=0,
        version=1,
    )
    session.add(job)
    session.flush()
    events.append(session, job, "state", {"state": job.state}, now=now)
    outbox.add(session, job.id, now=now)
    return job


def lock(session: Session, job_id: str, *, skip_locked: bool = False) -> Job | None:
    """Lock all jobs above a job, outermost first, then the job; None where there is no such job.

    With `skip_locked`, None also where somebody else holds one of them (Postgres; SQLite has one writer at a time).
    """
    chain = [*reversed(above(session, job_id)), job_id]
    job = None
    for id in chain:
        job = _lock_row(session, id, skip_locked)
        if job is None:
            return None
    return job


def above(session: Session, job_id: str) -> list[str]:
    """Ids of the jobs above a job, the nearest first. A job's parent never changes, so no lock is needed."""
    first = select(Job.id, Job.parent_id).where(Job.id == job_id).cte(recursive=True)
    up = aliased(Job)
    chain = first.union_all(select(up.id, up.parent_id).where(up.id == first.c.parent_id))
    parents = dict(session.execute(select(chain.c.id, chain.c.parent_id)).all())
    found: list[str] = []
    at = parents.get(job_id)
    while at is not None:
        found.append(at)
        at = parents.get(at)
    return found


def _lock_row(session: Session, job_id: str, skip_locked: bool) -> Job | None:
    query = select(Job).where(Job.id == job_id).with_for_update(skip_locked=skip_locked)
    return session.execute(query, execution_options={"populate_existing": True}).scalar_one_or_none()


def shown(job: Job) -> JobState:
    """A job's state as callers see it: one that waits for its children is at work as they are."""
    if job.state != JobState.WAITING:
        return JobState(job.state)
    if job.cancel_requested_at is not None:
        return JobState.CANCELLING
    return JobState.QUEUED if job.started_at is None else JobState.RUNNING


def shown_as(state: JobState) -> list[ColumnElement[bool]]:
    """`shown` in SQL: the jobs that callers see in a state are those of one condition and those of the next."""
    waits = {
        JobState.CANCELLING: Job.cancel_requested_at.is_not(None),
        JobState.QUEUED: and_(Job.cancel_requested_at.is_(None), Job.started_at.is_(None)),
        JobState.RUNNING: and_(Job.cancel_requested_at.is_(None), Job.started_at.is_not(None)),
    }
    own = Job.state == state.value
    if state not in waits:
        return [own]
    return [own, and_(Job.state == JobState.WAITING.value, waits[state])]


def set_state(
    session: Session,
    job: Job,
    state: JobState,
    *,
    now: datetime,
    error: Problem | None = None,
    delay_s: float = 0.0,
) -> None:
    """Take a locked job to `state` and say so in its events; a job that is queued again rings after `delay_s`.

    Raises IllegalTransition where `state` may not follow.
    """
    before = JobState(job.state)
    if state not in FOLLOWS[before]:
        raise IllegalTransition(f"{job.id}: {before} cannot become {state}")
    if before is JobState.QUEUED:
        outbox.drop(session, job.id)
    if before in ACTIVE and state not in ACTIVE and job.claimed_at is not None:
        job.worked_s += max(0.0, (now - job.claimed_at).total_seconds())
    job.state = state.value
    job.error = error
    if state not in ACTIVE:
        job.token = None
        job.lease_until = None
        job.stage = None
    job.finished_at = now if state in ENDED else None
    job.not_before = None
    if state is JobState.QUEUED:
        job.not_before = now + timedelta(seconds=delay_s) if delay_s > 0 else None
        outbox.add(session, job.id, now=now, delay_s=delay_s)
    data: dict[str, Any] = {"state": shown(job).value, "attempt": job.attempt}
    if error is not None and state is not JobState.RUNNING:
        data["error"] = error
    events.append(session, job, "state", data, now=now)


def forget_progress(job: Job) -> None:
    """Give a locked job all its attempts back and remove its progress."""
    job.attempt, job.cancel_requested_at, job.started_at = 0, None, None
    job.claimed_at, job.worked_s = None, 0.0
    job.progress_done, job.progress_total, job.progress_unit = 0, None, None
    job.progress_message, job.progress_eta_s = None, None
