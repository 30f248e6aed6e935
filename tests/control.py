"""What callers ask of work, by the services that the API asks, whatever workspace it is of."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Job, Ranking
from app.services import works


def cancel(session: Session, job_id: str) -> Job:
    return works.cancel(session, _workspace(session, Job, job_id), Job, job_id)


def retry(session: Session, job_id: str) -> Job:
    return works.retry(session, _workspace(session, Job, job_id), Job, job_id)


def cancel_ranking(session: Session, ranking_id: str) -> Ranking:
    return cancel_whole(session, Ranking, ranking_id)


def cancel_whole(session: Session, table: Any, id: str) -> Any:
    return works.cancel(session, _workspace(session, table, id), table, id)


def _workspace(session: Session, table: Any, id: str) -> str:
    return session.scalar(select(table.workspace_id).where(table.id == id)) or "ws_none"
