"""Searches and studies: rows whose parts are rankings and verifications. What both have in common."""

from datetime import datetime
from typing import Any

from sqlalchemy import case, func, inspect, select
from sqlalchemy.orm import Session, load_only

from app.db.tables import Job, Ranking, Search, Study, Verification
from app.queue import events
from app.queue.jobs import add_job
from app.queue.states import ENDED, JobKind, JobState

Whole = Search | Study
KINDS: dict[type[Whole], JobKind] = {Search: JobKind.SEARCH, Study: JobKind.STUDY}
_LIGHT = frozenset({"id", "workspace_id", "dataset_id", "state", "stage", "job_id", "rank_job_id", "cancel_requested_at"})
_COLUMNS: dict[type[Whole], str] = {Search: "search_id", Study: "study_id"}


def begin(session: Session, row: Whole, stage: str, *, now: datetime) -> None:
    """A locked row is at work; one that is being cancelled stays so."""
    if row.state == JobState.CANCELLING or (row.state, row.stage) == (JobState.RUNNING, stage):
        return
    row.state, row.stage = JobState.RUNNING.value, stage
    row.started_at = row.started_at or now
    row.finished_at, row.error = None, None
    tell(session, row, now)


def end(
    session: Session,
    row: Whole | Ranking,
    state: JobState,
    *,
    now: datetime,
    error: dict[str, Any] | None = None,
) -> None:
    """A locked row is over."""
    row.state, row.stage, row.error = state.value, None, error
    row.finished_at = now
    tell(session, row, now)


def tell(session: Session, row: Whole | Ranking, now: datetime) -> None:
    data: dict[str, Any] = {"state": row.state, "stage": row.stage}
    if row.error is not None:
        data["error"] = row.error
    events.append(session, row, "state", data, now=now)


def add_own_job(session: Session, row: Whole, stage: str, *, max_attempts: int, now: datetime) -> None:
    """The job that decides what comes next, or concludes."""
    job = add_job(
        session,
        workspace_id=row.workspace_id,
        kind=KINDS[type(row)],
        resource_id=row.id,
        max_attempts=max_attempts,
    )
    row.job_id = job.id
    begin(session, row, stage, now=now)


def is_deciding(session: Session, row: Whole) -> bool:
    """Whether its own job is queued or at work."""
    job = session.get(Job, row.job_id, populate_existing=True) if row.job_id else None
    return job is not None and job.state not in ENDED


def counted(session: Session, row: Whole, table: type[Ranking] | type[Verification]) -> tuple[int, int]:
    """(how many of its rankings or verifications have ended, how many there are)"""
    ended = case((table.state.in_([state.value for state in ENDED]), 1))
    query = select(func.count(ended), func.count()).where(getattr(table, _COLUMNS[type(row)]) == row.id)
    done, total = session.execute(query).one()
    return done, total


def parts(session: Session, row: Whole, table: type[Ranking] | type[Verification]) -> list[Any]:
    """Its rankings or verifications, in the order in which they were made; without what they hold, which may be large."""
    query = select(table).where(getattr(table, _COLUMNS[type(row)]) == row.id).order_by(table.id)
    light = [column.key for column in inspect(table).column_attrs if column.key in _LIGHT]
    query = query.options(load_only(*(getattr(table, name) for name in light)))
    return list(session.scalars(query, execution_options={"populate_existing": True}))


def tell_of_ranking(session: Session, row: Whole, ranking: Ranking, now: datetime) -> None:
    about = {
        "id": ranking.id,
        "dataset_id": ranking.dataset_id,
        "state": ranking.state,
        "stage": ranking.stage,
    }
    events.append(session, row, "state", {"ranking": about}, now=now)
