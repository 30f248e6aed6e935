"""Job rows: adding, locking and moving them. Every change of state passes through `move`.

Order of locks, everywhere: who owns the resource (the ranking of a verification, ...) outermost first, the resource, then
the job. Who keeps to it cannot deadlock.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.engine import database_now
from app.db.tables import Checkpoint, Dataset, Job, Ranking, Search, Study, Verification
from app.ids import new_id
from app.queue import events, outbox
from app.queue.states import ENDED, FOLLOWS, QUEUES, JobKind, JobState

Owner = Ranking | Search | Study
Resource = Dataset | Checkpoint | Ranking | Verification | Search | Study

RESOURCES: dict[JobKind, type[Resource]] = {
    JobKind.INGEST: Dataset,
    JobKind.INSPECT: Checkpoint,
    JobKind.SHARD: Ranking,
    JobKind.SCORE: Ranking,
    JobKind.RANK: Ranking,
    JobKind.VERIFY: Verification,
    JobKind.SEARCH: Search,
    JobKind.STUDY: Study,
}

# Whose part a row may be, by the column that says so; it is never changed.
OWNERS: dict[type[Resource], dict[str, type[Owner]]] = {
    Ranking: {"search_id": Search, "study_id": Study},
    Verification: {"ranking_id": Ranking, "search_id": Search, "study_id": Study},
}


class IllegalTransition(RuntimeError):
    """A bug of ours: a job was about to enter a state that may not follow its own."""


@dataclass(frozen=True)
class Locked:
    """A job, its resource and whose part that is, all locked until the transaction ends.

    `resource` is None where it was deleted; `owners` are outermost first, and there are none for most.
    """

    job: Job
    resource: Resource | None
    owners: tuple[Owner, ...] = ()

    @property
    def owner(self) -> Owner | None:
        return self.owners[-1] if self.owners else None

    @property
    def ranking(self) -> Ranking | None:
        return self.resource if isinstance(self.resource, Ranking) else None


def add_job(
    session: Session,
    *,
    workspace_id: str,
    kind: JobKind,
    resource_id: str,
    payload: Mapping[str, Any] | None = None,
    max_attempts: int = 3,
) -> Job:
    """A queued job with its first event and its bell, all in the caller's transaction.

    `payload` holds ids and small numbers; a `score` job names its candidate: `{"checkpoint_id": ...}`, a `shard` job also
    which part it reads: `{"checkpoint_id": ..., "shard": 0, "shards": 3}`.
    """
    now = database_now(session)
    job = Job(
        id=new_id("job"),
        workspace_id=workspace_id,
        kind=kind.value,
        queue=QUEUES[kind],
        resource_id=resource_id,
        payload=dict(payload or {}),
        state=JobState.QUEUED.value,
        attempt=0,
        max_attempts=max_attempts,
        progress_done=0,
        created_at=now,
        event_seq=0,
        version=1,
    )
    session.add(job)
    session.flush()
    events.append(session, job, "state", {"state": job.state}, now=now)
    outbox.add(session, job.id, now=now)
    return job


def lock(session: Session, job_id: str, *, skip_locked: bool = False) -> Locked | None:
    """Lock a job's resource (its owners first) and then the job; None where there is no such job.

    With `skip_locked`, None also where somebody else holds one of them (Postgres; SQLite has one writer at a time).
    """
    found = session.execute(select(Job.kind, Job.resource_id).where(Job.id == job_id)).one_or_none()
    if found is None:
        return None
    table = RESOURCES[JobKind(found.kind)]
    owners = []
    for owner, id in _owners(session, table, found.resource_id):
        owners.append(_lock_row(session, owner, id, skip_locked))
        if owners[-1] is None:
            return None
    resource = _lock_row(session, table, found.resource_id, skip_locked)
    if resource is None and skip_locked and session.get(table, found.resource_id) is not None:
        return None
    job = _lock_row(session, Job, job_id, skip_locked)
    return None if job is None else Locked(job, resource, tuple(owners))


def lock_resource(session: Session, table: type[Any], row_id: str) -> Any:
    """Lock a resource alone, its owners first; None where there is none."""
    for owner, id in _owners(session, table, row_id):
        _lock_row(session, owner, id, skip_locked=False)
    return _lock_row(session, table, row_id, skip_locked=False)


def _owners(session: Session, table: type[Any], row_id: str) -> list[tuple[type[Owner], str]]:
    """Tables and ids of whose part a row is, outermost first; a foreign key holds them there."""
    columns = OWNERS.get(table)
    if columns is None:
        return []
    ids = session.execute(select(*(getattr(table, name) for name in columns)).where(table.id == row_id))
    for owner, id in zip(columns.values(), ids.one_or_none() or (), strict=False):
        if id is not None:
            return [*_owners(session, owner, id), (owner, id)]
    return []


def _lock_row(session: Session, table: type[Any], row_id: str, skip_locked: bool) -> Any:
    query = select(table).where(table.id == row_id).with_for_update(skip_locked=skip_locked)
    return session.execute(query, execution_options={"populate_existing": True}).scalar_one_or_none()


def move(
    session: Session,
    job: Job,
    state: JobState,
    *,
    now: datetime,
    error: dict[str, Any] | None = None,
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
    job.state = state.value
    job.error = error
    if state is not JobState.RUNNING and state is not JobState.CANCELLING:
        job.token = None
        job.lease_until = None
        job.stage = None
    job.finished_at = now if state in ENDED else None
    job.not_before = None
    if state is JobState.QUEUED:
        job.not_before = now + timedelta(seconds=delay_s) if delay_s > 0 else None
        outbox.add(session, job.id, now=now, delay_s=delay_s)
    data: dict[str, Any] = {"state": state.value, "attempt": job.attempt}
    if error is not None and state is not JobState.RUNNING:
        data["error"] = error
    events.append(session, job, "state", data, now=now)


def stop(session: Session, job: Job, *, now: datetime) -> None:
    """Ask a locked job to stop: a queued one is over at once, a running one when its worker hears of it."""
    job.cancel_requested_at = now
    move(session, job, JobState.CANCELLED if job.state == JobState.QUEUED else JobState.CANCELLING, now=now)


def queue_again(session: Session, job: Job, *, now: datetime) -> None:
    """Put a locked job that failed or was cancelled back in the queue, with all its attempts and no progress."""
    job.attempt, job.cancel_requested_at, job.started_at = 0, None, None
    job.progress_done, job.progress_total, job.progress_unit = 0, None, None
    job.progress_message, job.progress_eta_s = None, None
    move(session, job, JobState.QUEUED, now=now)
