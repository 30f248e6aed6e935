"""What follows for a ranking when a job of it changes state: candidates, the ranking and its next job, in one transaction."""

from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.tables import Candidate, Job, Ranking, Search, Study
from app.errors import CandidateFailed
from app.queue import events, ranking_verifications, search_flow, study_flow, wholes
from app.queue.jobs import Locked, add_job
from app.queue.states import ENDED, JobKind, JobState


def mirror(session: Session, locked: Locked, now: datetime) -> None:
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


def conclude(session: Session, locked: Locked, now: datetime) -> None:
    """The ranking ends as its `rank` job does, unless there is something to verify first."""
    ranking, job = locked.ranking, locked.job
    if ranking is None or ranking.rank_job_id != job.id or job.state not in ENDED:
        return
    goes_on = job.state == JobState.SUCCEEDED and ranking.cancel_requested_at is None
    if goes_on:
        ranking_verifications.add_wanted(session, ranking, max_attempts=job.max_attempts)
    if ranking_verifications.unfinished(session, ranking.id):
        start_ranking(session, ranking, "verifying", now=now)
        return
    if goes_on and not ranking_verifications.are_concluded(session, ranking):
        _add_rank_job(session, ranking, "concluding", max_attempts=job.max_attempts, now=now)
        return
    state = JobState(job.state)
    if state is JobState.SUCCEEDED and not ranking_verifications.is_complete(session, ranking):
        state = JobState.CANCELLED  # it was asked to stop when its order was about to be written
    end_ranking(session, ranking, state, error=job.error, now=now)


def verified(session: Session, ranking: Ranking, *, max_attempts: int, now: datetime) -> None:
    """A verification of a locked ranking ended: with the last one, mAP is compared with the scores."""
    done, total = ranking_verifications.counted(session, ranking.id)
    progress = {"done": done, "total": total, "unit": "verifications", "fraction": done / total}
    events.append(session, ranking, "progress", progress, now=now)
    if done < total or ranking.state in ENDED or _still_ordering(session, ranking):
        return
    if ranking.cancel_requested_at is not None:
        end_ranking(session, ranking, JobState.CANCELLED, now=now)
    else:
        _add_rank_job(session, ranking, "concluding", max_attempts=max_attempts, now=now)


def _still_ordering(session: Session, ranking: Ranking) -> bool:
    """Whether candidates are being scored or put in order: what has been verified is looked at after that."""
    scoring = select(Candidate.checkpoint_id).where(
        Candidate.ranking_id == ranking.id, Candidate.state.not_in([state.value for state in ENDED])
    )
    job = session.get(Job, ranking.rank_job_id, populate_existing=True) if ranking.rank_job_id else None
    return job is None or job.state not in ENDED or session.scalar(scoring.limit(1)) is not None


def start_ranking(session: Session, ranking: Ranking, stage: str, *, now: datetime) -> None:
    """A locked ranking is at work; one that is being cancelled stays so."""
    if ranking.state == JobState.CANCELLING or (ranking.state, ranking.stage) == (JobState.RUNNING, stage):
        return
    ranking.state, ranking.stage = JobState.RUNNING.value, stage
    ranking.started_at = ranking.started_at or now
    ranking.finished_at, ranking.error = None, None
    wholes.tell(session, ranking, now)
    _tell_owner(session, ranking, now)


def advance_ranking(session: Session, ranking: Ranking, *, max_attempts: int, now: datetime) -> None:
    """Once every candidate of a locked ranking has ended: order what succeeded, or end the ranking."""
    if ranking.search_id is not None:
        search_flow.limit_scoring(session, ranking, now=now)
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
        _add_rank_job(session, ranking, "ranking", max_attempts=max_attempts, now=now)
    elif states.get(JobState.FAILED):
        end_ranking(session, ranking, JobState.FAILED, error=_nothing_scored(session, ranking), now=now)
    else:
        end_ranking(session, ranking, JobState.CANCELLED, now=now)


def _add_rank_job(
    session: Session, ranking: Ranking, stage: str, *, max_attempts: int, now: datetime
) -> None:
    job = add_job(
        session,
        workspace_id=ranking.workspace_id,
        kind=JobKind.RANK,
        resource_id=ranking.id,
        max_attempts=max_attempts,
    )
    ranking.rank_job_id = job.id
    start_ranking(session, ranking, stage, now=now)


def end_ranking(
    session: Session, ranking: Ranking, state: JobState, *, now: datetime, error: dict[str, Any] | None = None
) -> None:
    """A locked ranking is over."""
    wholes.end(session, ranking, state, now=now, error=error)
    _tell_owner(session, ranking, now)


def _tell_owner(session: Session, ranking: Ranking, now: datetime) -> None:
    """The search or study whose part it is, and which is locked with it, hears of it and may go on."""
    if ranking.search_id is None and ranking.study_id is None:
        return
    jobs = select(Job.max_attempts).where(Job.resource_id == ranking.id)
    max_attempts = session.scalars(jobs.limit(1)).one()
    if ranking.search_id is not None:
        search = session.get_one(Search, ranking.search_id)
        search_flow.ranked(session, search, ranking, max_attempts=max_attempts, now=now)
    else:
        study = session.get_one(Study, ranking.study_id)
        study_flow.ranked(session, study, ranking, max_attempts=max_attempts, now=now)


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
