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
from app.errors import AttemptsExhausted, TransientFailure
from app.queue import events, flow, jobs
from app.queue.states import JobKind, JobState

ACTIVE = (JobState.RUNNING.value, JobState.CANCELLING.value)
LONGEST_RETRY_S = 300.0


class LeaseLost(BaseException):
    """The job is somebody else's by now, or over; this worker may not write for it.

    Not an Exception, so that no handler's `except Exception` takes it for a fault of a candidate.
    """


@dataclass(frozen=True)
class JobView:
    """What a handler is told of its job."""

    id: str
    kind: JobKind
    resource_id: str
    payload: dict[str, Any]
    attempt: int
    workspace_id: str


@dataclass(frozen=True)
class Claim:
    """The right to work on a job for `lease_s` seconds at a time."""

    job: JobView
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
    locked = jobs.lock(session, job_id)
    if locked is None:
        return None
    job, now = locked.job, database_now(session)
    if job.state in ACTIVE and job.lease_until is not None and job.lease_until < now:
        _lapse(session, locked, now)
    if job.state != JobState.QUEUED or (job.not_before is not None and job.not_before > now):
        return None
    job.attempt += 1
    jobs.move(session, job, JobState.RUNNING, now=now, error=job.error)
    job.token = uuid.uuid4().hex
    job.worker = worker
    job.lease_until = now + timedelta(seconds=lease_s)
    job.started_at = job.started_at or now
    flow.follow(session, locked, now=now)
    view = JobView(
        job.id, JobKind(job.kind), job.resource_id, dict(job.payload), job.attempt, job.workspace_id
    )
    return Claim(view, job.token, worker, lease_s)


def beat(session: Session, claim: Claim) -> Beat:
    """Hold the lease for another `lease_s` and learn in the same query whether to stop."""
    until = database_now(session) + timedelta(seconds=claim.lease_s)
    row = session.execute(
        update(Job)
        .where(Job.id == claim.job.id, Job.token == claim.token, Job.state.in_(ACTIVE))
        .values(lease_until=until)
        .returning(Job.cancel_requested_at),
        execution_options={"synchronize_session": False},
    ).one_or_none()
    return Beat(held=row is not None, cancel=row is not None and row.cancel_requested_at is not None)


def look(session: Session, claim: Claim) -> Beat:
    """As `beat`, but only reads: cheap enough for every second."""
    row = session.execute(
        select(Job.cancel_requested_at).where(
            Job.id == claim.job.id, Job.token == claim.token, Job.state.in_(ACTIVE)
        )
    ).one_or_none()
    return Beat(held=row is not None, cancel=row is not None and row.cancel_requested_at is not None)


@dataclass(frozen=True)
class Report:
    """What a worker has to tell between two beats: stage changes and log lines in order, and the latest progress."""

    events: tuple[tuple[str, dict[str, Any]], ...] = ()
    progress: dict[str, Any] | None = None  # arguments of events.advance


def report(session: Session, claim: Claim, told: Report) -> Beat:
    """A beat that also writes what a worker has to tell."""
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


def hold(session: Session, claim: Claim) -> jobs.Locked:
    """Lock the job and its resource for writing on behalf of `claim`; raises LeaseLost where it is no longer its own."""
    locked = jobs.lock(session, claim.job.id)
    if locked is None or locked.job.token != claim.token or locked.job.state not in ACTIVE:
        raise LeaseLost(f"{claim.job.id} is no longer held by {claim.worker}")
    return locked


def headway(session: Session, claim: Claim) -> None:
    """The job got to where another attempt would go on from: those before no longer count. Raises LeaseLost."""
    hold(session, claim).job.attempt = 1


def finish(session: Session, claim: Claim, write: Callable[[Session], None] | None = None) -> None:
    """The job succeeded: write its result and what follows from it, in this transaction. Raises LeaseLost."""
    locked = hold(session, claim)
    if write is not None:
        write(session)
        session.flush()
    now = database_now(session)
    if locked.job.progress_total:
        locked.job.progress_done, locked.job.progress_eta_s = locked.job.progress_total, 0.0
    _move(session, locked, JobState.SUCCEEDED, now)


def cancelled(session: Session, claim: Claim) -> None:
    """The job stopped because it was asked to. Raises LeaseLost."""
    _move(session, hold(session, claim), JobState.CANCELLED, database_now(session))


def fail(session: Session, claim: Claim, error: dict[str, Any], *, retry_s: float | None = None) -> JobState:
    """The attempt failed with the problem `error`; with `retry_s`, and attempts left, it is tried again after a while.

    Returns the state the job is in now. Raises LeaseLost.
    """
    locked = hold(session, claim)
    now = database_now(session)
    if retry_s is None:
        _move(session, locked, JobState.FAILED, now, error)
    else:
        _try_again(session, locked, now, error, retry_s * 2.0 ** (locked.job.attempt - 1))
    return JobState(locked.job.state)


def release(session: Session, claim: Claim) -> None:
    """Hand an unfinished job back at once: its worker was told to stop. The attempt does not count. Raises LeaseLost."""
    locked = hold(session, claim)
    now = database_now(session)
    if locked.job.state == JobState.CANCELLING:
        _move(session, locked, JobState.CANCELLED, now)
        return
    locked.job.attempt -= 1
    _move(session, locked, JobState.QUEUED, now, locked.job.error)


def lost(session: Session, job_id: str, worker: str) -> bool:
    """The process that worked on a job died: put the job back without waiting for the lease. True where it was so."""
    locked = jobs.lock(session, job_id)
    if locked is None or locked.job.state not in ACTIVE or locked.job.worker != worker:
        return False
    _lapse(session, locked, database_now(session), f"the process that worked on it ({worker}) died")
    return True


def requeue_lapsed(database: Database, *, limit: int = 100) -> list[str]:
    """Put jobs whose worker fell silent back (or end them), each in its own transaction; returns their ids."""
    with database.reading() as session:
        now = database_now(session)
        silent = session.scalars(
            select(Job.id)
            .where(Job.state.in_(ACTIVE), Job.lease_until < now)
            .order_by(Job.lease_until)
            .limit(limit)
        ).all()
    lapsed = []
    for job_id in silent:
        with database.unit_of_work() as session:
            locked = jobs.lock(session, job_id, skip_locked=True)
            now = database_now(session)
            if locked is None or locked.job.state not in ACTIVE or locked.job.lease_until >= now:
                continue
            _lapse(session, locked, now)
            lapsed.append(job_id)
    return lapsed


def _lapse(session: Session, locked: jobs.Locked, now: datetime, reason: str | None = None) -> None:
    reason = (
        reason or f"the worker {locked.job.worker} fell silent; it may have been killed, or run out of memory"
    )
    _try_again(session, locked, now, TransientFailure(reason).to_dict(), 0.0)


def _try_again(
    session: Session, locked: jobs.Locked, now: datetime, error: dict[str, Any], delay_s: float
) -> None:
    job = locked.job
    if job.state == JobState.CANCELLING:
        _move(session, locked, JobState.CANCELLED, now)
    elif job.attempt >= job.max_attempts:
        _move(session, locked, JobState.FAILED, now, _exhausted(job, error))
    else:
        _move(session, locked, JobState.QUEUED, now, error, min(delay_s, LONGEST_RETRY_S))


def _exhausted(job: Job, error: dict[str, Any]) -> dict[str, Any]:
    return AttemptsExhausted(
        f"tried {job.attempt} of {job.max_attempts} times; the last time: {error.get('detail') or error.get('title')}",
        errors=[{"pointer": "", "message": f"{error.get('code')}: {error.get('detail')}"}],
    ).to_dict()


def _move(
    session: Session,
    locked: jobs.Locked,
    state: JobState,
    now: datetime,
    error: dict[str, Any] | None = None,
    delay_s: float = 0.0,
) -> None:
    jobs.move(session, locked.job, state, now=now, error=error, delay_s=delay_s)
    flow.follow(session, locked, now=now)
