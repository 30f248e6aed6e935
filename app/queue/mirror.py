"""A row follows its job: when a job changes its state, its row and the rows above it change in the same transaction."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from app.db.tables import Candidate, Checkpoint, Dataset, Job, Ranking, Verification
from app.db.work import Work, name_of
from app.errors import Cancelled, Problem
from app.queue import events
from app.queue.jobs import shown
from app.queue.kinds import Kind, kind_of
from app.queue.states import ENDED, JobKind, JobState, ResourceState


def mirror(session: Session, job: Job, *, now: datetime) -> None:
    """Bring the row of a locked job in line with the job. Idempotent."""
    if job.kind == JobKind.SHARD:
        _tell_of_shard(session, job, now)
    elif job.kind == JobKind.SCORE:
        _candidate(session, job, now)
    else:
        row = row_of(session, job)
        if isinstance(row, Dataset | Checkpoint):
            _settle(row, job, now)
        elif row is not None and row.job_id == job.id:
            _follow(session, row, job, now)


def row_of(session: Session, job: Job) -> Any:
    """The row that a job works for, as it is now; None where it was deleted."""
    session.flush()
    return session.get(kind_of(job).table, job.resource_id, populate_existing=True)


def parent_of(session: Session, job: Job) -> Job | None:
    """The job above a locked one, which is locked too."""
    return session.get_one(Job, job.parent_id) if job.parent_id is not None else None


def has_children(session: Session, job: Job) -> bool:
    if not kind_of(job).children:
        return False
    return session.scalar(select(Job.id).where(Job.parent_id == job.id).limit(1)) is not None


def counted(session: Session, job: Job, kinds: Iterable[JobKind]) -> tuple[int, int]:
    """(how many of a job's children of these kinds have ended, how many there are)"""
    ended = case((Job.state.in_([state.value for state in ENDED]), 1))
    query = select(func.count(ended), func.count()).where(
        Job.parent_id == job.id, Job.kind.in_([kind.value for kind in kinds])
    )
    done, total = session.execute(query).one()
    return done, total


def awaited(session: Session, job: Job) -> list[JobKind]:
    """The kinds of children that a job waits for."""
    kind = kind_of(job)
    goes_on = kind.goes_on_without
    return [each for each in kind.children if goes_on is None or not goes_on(session, job, each)]


def tell_progress(session: Session, parent: Job, child: JobKind, *, now: datetime) -> None:
    """How many children of the unit that this kind counts in have ended, on the stream of the parent's row."""
    children = kind_of(parent).children
    unit = children[child].unit
    row = row_of(session, parent) if unit is not None else None
    if row is None:
        return
    done, total = counted(session, parent, [kind for kind, each in children.items() if each.unit == unit])
    progress = {"done": done, "total": total, "unit": unit, "fraction": done / total if total else None}
    events.append(session, row, "progress", progress, now=now)


def _follow(session: Session, row: Work, job: Job, now: datetime) -> None:
    kind = kind_of(job)
    state = _state(session, job, kind)
    stage = _stage(session, job, kind, row.stage, state) if kind.children else job.stage
    error = job.error if state is JobState.FAILED else None
    if (row.state, row.stage, row.error) == (state, stage, error):
        return
    row.state, row.stage, row.error = state.value, stage, error
    row.started_at = row.started_at or job.started_at
    row.finished_at, row.cancel_requested_at = job.finished_at, job.cancel_requested_at
    data: dict[str, Any] = {"state": row.state}
    data |= {"stage": stage} if kind.children else {"attempt": job.attempt}
    if error is not None:
        data["error"] = error
    events.append(session, row, "state", data, now=now)
    _tell_above(session, job, _about(row), now)


def _about(row: Work) -> dict[str, Any]:
    """What the parent's event stream says about a child."""
    if isinstance(row, Verification):
        about = {"id": row.id, "checkpoint_id": row.checkpoint_id, "seed": row.request.get("seed")}
        return {"verification": about | {"state": row.state}}
    if isinstance(row, Ranking):
        about = {"id": row.id, "dataset_id": row.dataset_id}
        return {"ranking": about | {"state": row.state, "stage": row.stage}}
    return {name_of(type(row)): {"id": row.id, "state": row.state, "stage": row.stage}}


def _tell_above(session: Session, job: Job, about: dict[str, Any], now: datetime) -> None:
    parent = parent_of(session, job)
    whole = row_of(session, parent) if parent is not None else None
    if whole is not None:
        events.append(session, whole, "state", about, now=now)


def _state(session: Session, job: Job, kind: Kind) -> JobState:
    """The state that a row shows: it stays `running` while a job whose children were at work is queued again."""
    state = shown(job)
    if state is JobState.QUEUED and kind.children and job.started_at is not None:
        return JobState.RUNNING if has_children(session, job) else state
    return state


def _stage(session: Session, job: Job, kind: Kind, before: str | None, state: JobState) -> str | None:
    """The stage of a parent: which children it waits for, or what it does after them."""
    if state in ENDED or state is JobState.QUEUED:
        return None
    if job.state == JobState.WAITING:
        for child in awaited(session, job):
            done, total = counted(session, job, [child])
            if done < total:
                return kind.children[child].waiting
        return before
    asked = {words.waiting: words.asked for words in kind.children.values()}
    return asked.get(before or "", before or kind.asked)


def _candidate(session: Session, job: Job, now: datetime) -> None:
    session.flush()
    key = (job.resource_id, job.payload["checkpoint_id"])
    candidate = session.get(Candidate, key, populate_existing=True)
    if candidate is None or candidate.job_id != job.id:
        return
    state = _state(session, job, kind_of(job))
    if candidate.state == state:
        return
    candidate.state = state.value
    candidate.error = job.error if state in ENDED else None
    _tell_of_candidate(session, job, candidate, now)


def _tell_of_candidate(session: Session, job: Job, candidate: Candidate, now: datetime) -> None:
    about: dict[str, Any] = {
        "checkpoint_id": candidate.checkpoint_id,
        "job_id": job.id,
        "state": candidate.state,
        "attempt": job.attempt,
    }
    if job.payload.get("shards", 1) > 1:
        states = session.scalars(select(Job.state).where(Job.parent_id == job.id)).all()
        about["shards"] = {"done": states.count(JobState.SUCCEEDED), "total": len(states)}
    _tell_above(session, job, {"candidate": about}, now)


def _tell_of_shard(session: Session, job: Job, now: datetime) -> None:
    score = parent_of(session, job)
    if score is None or job.state != JobState.SUCCEEDED:
        return
    candidate = session.get(Candidate, (score.resource_id, score.payload["checkpoint_id"]))
    if candidate is not None:
        _tell_of_candidate(session, score, candidate, now)


def _settle(row: Dataset | Checkpoint, job: Job, now: datetime) -> None:
    """A dataset or checkpoint is ready once its job succeeded, invalid with the job's reason when it ended otherwise."""
    if row.job_id not in (None, job.id):
        return
    match JobState(job.state):
        case JobState.SUCCEEDED:
            state, error = ResourceState.READY, None
        case JobState.FAILED:
            state, error = ResourceState.INVALID, job.error
        case JobState.CANCELLED:
            state, error = ResourceState.INVALID, _cancelled()
        case _:
            state, error = ResourceState.PROCESSING, None
    if row.state == state == ResourceState.PROCESSING:
        return
    row.state, row.error = state.value, error
    row.updated_at = now
    row.version += 1


def _cancelled() -> Problem:
    return Cancelled("the job that prepares it was cancelled; retry the job, or send it again").to_dict()
