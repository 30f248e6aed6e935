"""Leases: which worker may work on a job, and write for it. Only the database's clock counts.

A claim hands out a token; every later write asks for it (`WHERE token = mine`), so a worker that slept past its lease, or
whose job was taken from it, can change nothing.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.db.engine import Database, database_now
from app.db.tables import Job
from app.errors import AttemptsExhausted, Problem, TransientFailure
from app.queue import events, jobs, tree
from app.queue.states import ACTIVE, JobKind, JobState

_ACTIVE = [state.value for state in ACTIVE]
LONGEST_RETRY_S = 300.0


class LeaseLost(BaseException):
    """The job is somebody else's by now, or over; this worker may not write for it.

    Not an Exception, so that no handler's `except Exception` takes it for a fault of a candidate.
    """


@dataclass(frozen=True)
class ClaimedJob:
    """What a handler is told of its job."""

    id: str
    kind: JobKind
    resource_id: str
    payload: dict[str, Any]
    attempt: int
    workspace_id: str
    traceparent: str | None = None


@dataclass(frozen=True)
class Claim:
    """The right to work on a job for `lease_s` seconds at a time."""

    job: ClaimedJob
    token: str
    worker: str
    lease_s: float


@dataclass(frozen=True)
class Beat:
    """What a worker hears back: is the job still its own, and should it stop?"""

    held: bool
    cancel: bool


def claim(session: Session, job_id: str, worker: str, *, lease_s: float) -> Claim | None:
    """Take a job that is queued and due, or whose worker fell silent; None where there is nothing to take."""
    job = jobs.lock(session, job_id)
    if job is None:
        return None
    now = database_now(session)
    if job.state in ACTIVE and job.lease_until is not None and job.lease_until < now:
        _lapse(session, job, now)
    if job.state != JobState.QUEUED or (job.not_before is not None and job.not_before > now):
        return None
    job.attempt += 1
    token = uuid.uuid4().hex
    job.token, job.worker, job.lease_until = token, worker, now + timedelta(seconds=lease_s)
    job.claimed_at = now
    job.started_at = job.started_at or now
    tree.move(session, job, JobState.RUNNING, now=now, error=job.error)
    view = ClaimedJob(
        job.id,
        JobKind(job.kind),
        job.resource_id,
        dict(job.payload),
        job.attempt,
        job.workspace_id,
        job.traceparent,
    )
    return Claim(view, token, worker, lease_s)


def beat(session: Session, claim: Claim) -> Beat:
    """Hold the lease for another `lease_s` and learn in the same query whether to stop."""
    until = database_now(session) + timedelta(seconds=claim.lease_s)
    row = session.execute(
        update(Job)
        .where(Job.id == claim.job.id, Job.token == claim.token, Job.state.in_(_ACTIVE))
        .values(lease_until=until)
        .returning(Job.cancel_requested_at),
        execution_options={"synchronize_session": False},
    ).one_or_none()
    return Beat(held=row is not None, cancel=row is not None and row.cancel_requested_at is not None)


def look(session: Session, claim: Claim) -> Beat:
    """As `beat`, but only reads: cheap enough for every second."""
    row = session.execute(
        select(Job.cancel_requested_at).where(
            Job.id == claim.job.id, Job.token == claim.token, Job.state.in_(_ACTIVE)
        )
    ).one_or_none()
    return Beat(held=row is not None, cancel=row is not None and row.cancel_requested_at is not None)


@dataclass(frozen=True)
class News:
    """What a worker reports between two beats: stage changes and log lines in order, and the latest progress."""

    events: tuple[tuple[str, dict[str, Any]], ...] = ()
    progress: dict[str, Any] | None = None  # arguments of events.advance


def report(session: Session, claim: Claim, told: News) -> Beat:
    """A beat that also writes a worker's news."""
    job = session.execute(
        select(Job).where(Job.id == claim.job.id).with_for_update(),
        execution_options={"populate_existing": True},
    ).scalar_one_or_none()
    if job is None or job.token != claim.token or job.state not in ACTIVE:
        return Beat(held=False, cancel=False)
    now = database_now(session)
    job.lease_until = now + timedelta(seconds=claim.lease_s)
    for kind, data in told.events:
        if kind == "stage":
            job.stage = data["stage"]
            events.append(session, job, "state", {"state": job.state, **data}, now=now)
        else:
            events.append(session, job, kind, data, now=now)
    if told.progress is not None:
        events.advance(session, job, **told.progress, now=now)
    return Beat(held=True, cancel=job.cancel_requested_at is not None)


def hold(session: Session, claim: Claim) -> Job:
    """Lock the job, and those above it, for writing on behalf of `claim`; raises LeaseLost where it is no longer its own."""
    job = jobs.lock(session, claim.job.id)
    if job is None or job.token != claim.token or job.state not in ACTIVE:
        raise LeaseLost(f"{claim.job.id} is no longer held by {claim.worker}")
    return job


def headway(session: Session, claim: Claim) -> None:
    """Count this attempt as the first: the job reached a point from which another would go on. Raises LeaseLost."""
    job = hold(session, claim)
    if job.attempt != 1:
        job.attempt = 1
        job.version += 1  # its page shows the attempt


def finish(session: Session, claim: Claim, write: Callable[[Session], None] | None = None) -> None:
    """Write the handler's result, and the children that it added, in this transaction. Raises LeaseLost."""
    job = hold(session, claim)
    if write is not None:
        write(session)
        session.flush()
    if job.progress_total:
        job.progress_done, job.progress_eta_s = job.progress_total, 0.0
    tree.finish(session, job, now=database_now(session))


def cancelled(session: Session, claim: Claim) -> None:
    """The job stopped because it was asked to. Raises LeaseLost."""
    tree.move(session, hold(session, claim), JobState.CANCELLED, now=database_now(session))


def fail(session: Session, claim: Claim, error: Problem, *, retry_s: float | None = None) -> JobState:
    """The attempt failed with the problem `error`; with `retry_s`, and attempts left, it is tried again after a while.

    Returns the state the job is in now. Raises LeaseLost.
    """
    job = hold(session, claim)
    now = database_now(session)
    if retry_s is None:
        tree.move(session, job, JobState.FAILED, now=now, error=error)
    else:
        _try_again(session, job, now, error, retry_s * 2.0 ** (job.attempt - 1))
    return JobState(job.state)


def release(session: Session, claim: Claim, *, error: Problem | None = None, delay_s: float = 0.0) -> None:
    """Hand an unfinished job back: its worker was told to stop, or has no room. The attempt does not count.

    It is tried again after `delay_s`; `error` says meanwhile what it waits for. Raises LeaseLost.
    """
    job = hold(session, claim)
    now = database_now(session)
    if job.state == JobState.CANCELLING:
        tree.move(session, job, JobState.CANCELLED, now=now)
        return
    job.attempt -= 1
    tree.move(session, job, JobState.QUEUED, now=now, error=error or job.error, delay_s=delay_s)


def lost(session: Session, job_id: str, worker: str) -> bool:
    """The process that worked on a job died: put the job back without waiting for the lease. True where it was so."""
    job = jobs.lock(session, job_id)
    if job is None or job.state not in ACTIVE or job.worker != worker:
        return False
    _lapse(session, job, database_now(session), f"the process that worked on it ({worker}) died")
    return True


def requeue_lapsed(database: Database, *, limit: int = 100) -> list[str]:
    """Put jobs whose worker fell silent back (or end them), each in its own transaction; returns their ids."""
    with database.reading() as session:
        now = database_now(session)
        silent = session.scalars(
            select(Job.id)
            .where(Job.state.in_(_ACTIVE), Job.lease_until < now)
            .order_by(Job.lease_until)
            .limit(limit)
        ).all()
    lapsed = []
    for job_id in silent:
        with database.unit_of_work() as session:
            job = jobs.lock(session, job_id, skip_locked=True)
            now = database_now(session)
            if job is None or job.state not in ACTIVE or job.lease_until is None or job.lease_until >= now:
                continue
            _lapse(session, job, now)
            lapsed.append(job_id)
    return lapsed


def _lapse(session: Session, job: Job, now: datetime, reason: str | None = None) -> None:
    reason = reason or f"the worker {job.worker} fell silent; it may have been killed, or run out of memory"
    _try_again(session, job, now, TransientFailure(reason).to_dict(), 0.0)


def _try_again(session: Session, job: Job, now: datetime, error: Problem, delay_s: float) -> None:
    if job.state == JobState.CANCELLING:
        tree.move(session, job, JobState.CANCELLED, now=now)
    elif job.attempt >= job.max_attempts:
        tree.move(session, job, JobState.FAILED, now=now, error=_exhausted(job, error))
    else:
        delay_s = min(delay_s, LONGEST_RETRY_S)
        tree.move(session, job, JobState.QUEUED, now=now, error=error, delay_s=delay_s)


def _exhausted(job: Job, error: Problem) -> Problem:
    return AttemptsExhausted(
        f"tried {job.attempt} of {job.max_attempts} times; the last time: "
        f"{error['detail'] or error['title']}",
        errors=[{"pointer": "", "message": f"{error['code']}: {error['detail']}"}],
    ).to_dict()
