"""What follows when a job changes state: its resource, its candidate and its ranking move in the same transaction."""

from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.tables import Candidate, Checkpoint, Dataset, Ranking
from app.errors import CandidateFailed
from app.queue import events
from app.queue.jobs import Locked, add_job
from app.queue.states import ENDED, JobKind, JobState, ResourceState


def follow(session: Session, locked: Locked, *, now: datetime) -> None:
    """Bring everything that depends on a job in line with the state it has just taken. Idempotent."""
    match JobKind(locked.job.kind):
        case JobKind.INGEST | JobKind.INSPECT:
            _settle(locked, now)
        case JobKind.SCORE:
            _mirror(session, locked, now)
        case JobKind.RANK:
            _conclude(session, locked, now)


def _settle(locked: Locked, now: datetime) -> None:
    """A dataset or checkpoint is ready once its job succeeded, invalid with the job's reason when it ended otherwise."""
    row, job = locked.resource, locked.job
    if not isinstance(row, Dataset | Checkpoint) or row.job_id not in (None, job.id):
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


def _mirror(session: Session, locked: Locked, now: datetime) -> None:
    """A candidate's state is its job's; the last one to end moves the ranking on."""
    ranking, job = locked.ranking, locked.job
    if ranking is None:
        return
    candidate = session.get(Candidate, (ranking.id, job.payload["checkpoint_id"]), populate_existing=True)
    if candidate is None or candidate.job_id != job.id:
        return
    if candidate.state == job.state:
        return
    candidate.state = job.state
    candidate.error = job.error if job.state == JobState.FAILED else None
    about = {
        "checkpoint_id": candidate.checkpoint_id,
        "job_id": job.id,
        "state": job.state,
        "attempt": job.attempt,
    }
    events.append(session, ranking, "state", {"candidate": about}, now=now)
    if job.state == JobState.RUNNING:
        start_ranking(session, ranking, "scoring", now=now)
    if job.state in ENDED:
        advance_ranking(session, ranking, max_attempts=job.max_attempts, now=now)


def _conclude(session: Session, locked: Locked, now: datetime) -> None:
    """The ranking ends as its `rank` job does."""
    ranking, job = locked.ranking, locked.job
    if ranking is None or ranking.rank_job_id != job.id or job.state not in ENDED:
        return
    end_ranking(session, ranking, JobState(job.state), error=job.error, now=now)


def start_ranking(session: Session, ranking: Ranking, stage: str, *, now: datetime) -> None:
    """A locked ranking is at work; one that is being cancelled stays so."""
    if ranking.state == JobState.CANCELLING or (ranking.state, ranking.stage) == (JobState.RUNNING, stage):
        return
    ranking.state, ranking.stage = JobState.RUNNING.value, stage
    ranking.started_at = ranking.started_at or now
    ranking.finished_at, ranking.error = None, None
    _tell(session, ranking, now)


def advance_ranking(session: Session, ranking: Ranking, *, max_attempts: int, now: datetime) -> None:
    """Once every candidate of a locked ranking has ended: order what succeeded, or end the ranking."""
    states = dict(
        session.execute(
            select(Candidate.state, func.count())
            .where(Candidate.ranking_id == ranking.id)
            .group_by(Candidate.state)
        ).all()
    )
    ended = sum(count for state, count in states.items() if state in ENDED)
    total = sum(states.values())
    progress = {
        "done": ended,
        "total": total,
        "unit": "candidates",
        "fraction": ended / total if total else None,
    }
    events.append(session, ranking, "progress", progress, now=now)
    if ended < total or ranking.state in ENDED:
        return
    if ranking.cancel_requested_at is not None:
        end_ranking(session, ranking, JobState.CANCELLED, now=now)
    elif states.get(JobState.SUCCEEDED):
        job = add_job(
            session,
            workspace_id=ranking.workspace_id,
            kind=JobKind.RANK,
            resource_id=ranking.id,
            max_attempts=max_attempts,
        )
        ranking.rank_job_id = job.id
        start_ranking(session, ranking, "ranking", now=now)
    elif states.get(JobState.FAILED):
        end_ranking(session, ranking, JobState.FAILED, error=_nothing_scored(session, ranking), now=now)
    else:
        end_ranking(session, ranking, JobState.CANCELLED, now=now)


def end_ranking(
    session: Session, ranking: Ranking, state: JobState, *, now: datetime, error: dict[str, Any] | None = None
) -> None:
    """A locked ranking is over."""
    ranking.state, ranking.stage, ranking.error = state.value, None, error
    ranking.finished_at = now
    _tell(session, ranking, now)


def _tell(session: Session, ranking: Ranking, now: datetime) -> None:
    data: dict[str, Any] = {"state": ranking.state, "stage": ranking.stage}
    if ranking.error is not None:
        data["error"] = ranking.error
    events.append(session, ranking, "state", data, now=now)


def _nothing_scored(session: Session, ranking: Ranking) -> dict[str, Any]:
    failed = session.scalars(
        select(Candidate)
        .where(Candidate.ranking_id == ranking.id, Candidate.state == JobState.FAILED.value)
        .order_by(Candidate.position)
    ).all()
    errors = [
        {"pointer": f"/checkpoint_ids/{one.position}", "message": (one.error or {}).get("detail", "")}
        for one in failed
    ]
    return CandidateFailed(
        "no candidate could be scored, so there is nothing to order; the first reason: "
        + errors[0]["message"],
        errors=errors,
    ).to_dict()


def _cancelled() -> dict[str, Any]:
    return {
        "type": "urn:detrank:problem:cancelled",
        "code": "cancelled",
        "title": "It was cancelled",
        "status": 409,
        "detail": "the job that prepares it was cancelled; retry the job, or send it again",
        "errors": [],
        "retryable": False,
    }
