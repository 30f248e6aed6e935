"""Deleting, where the settings ask for it, what ended long ago and nothing needs: work first, then what it worked with."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db.engine import Database, database_now
from app.db.tables import (
    AuditEntry,
    Checkpoint,
    Dataset,
    Job,
    Pretraining,
    PseudoLabelling,
    Ranking,
    Search,
    Study,
    Verification,
)
from app.db.work import Work, name_of, path_of, plural_of
from app.errors import Conflict
from app.ids import new_id
from app.queue import in_use, jobs, removal
from app.queue.states import ENDED
from app.settings import Settings

# of one kind in one round: the same thread looks at leases
MOST_AT_ONCE = 500

# the setting that says how long a row is kept; in this order, for those in front use those behind
KEPT: dict[type[Any], str] = {
    Study: "work_kept_s",
    Search: "work_kept_s",
    Pretraining: "work_kept_s",
    PseudoLabelling: "work_kept_s",
    Verification: "work_kept_s",
    Ranking: "rankings_kept_s",
    Dataset: "datasets_kept_s",
    Checkpoint: "checkpoints_kept_s",
}


def retire(database: Database, settings: Settings) -> dict[str, int]:
    """One round, each deletion in a transaction of its own; how many rows of each kind went, by its plural."""
    gone: dict[str, int] = {}
    for table in _limited(settings):
        with database.reading() as session:
            ids = due(session, settings, table)
        gone[plural_of(table)] = 0
        for id in ids:
            if gone[plural_of(table)] == MOST_AT_ONCE:
                break
            try:
                with database.unit_of_work() as session:
                    gone[plural_of(table)] += remove(session, settings, table, id)
            except (Conflict, IntegrityError):  # somebody needs it
                continue
    return gone


def retired(session: Session, settings: Settings) -> dict[str, int]:
    """The same in one transaction, which the caller rolls back to have only asked."""
    gone: dict[str, int] = {}
    for table in _limited(settings):
        gone[plural_of(table)] = 0
        for id in due(session, settings, table):
            if gone[plural_of(table)] == MOST_AT_ONCE:
                break
            try:
                with session.begin_nested():
                    gone[plural_of(table)] += remove(session, settings, table, id)
            except (Conflict, IntegrityError):
                continue
    return gone


def due(session: Session, settings: Settings, table: type[Any]) -> Sequence[str]:
    """Ids of rows that ended longer ago than they are kept and that no row uses, the oldest first.

    Parts of something are not among them: they go with the whole.
    """
    when = _ended_at(table)
    query = select(table.id).outerjoin(Job, Job.id == table.job_id)
    query = query.where(when < _limit(session, settings, table), Job.parent_id.is_(None))
    query = query.where(*in_use.unused(table))
    if issubclass(table, Work):
        query = query.where(table.state.in_(ENDED))
    return session.scalars(query.order_by(when, table.id)).all()


def remove(session: Session, settings: Settings, table: type[Any], id: str) -> bool:
    """Deletes one row with an entry in the audit log; False where it is not due any more, or work that goes on names it.

    Raises Conflict where something of its workspace uses it.
    """
    row = session.get(table, id)
    job = jobs.lock(session, row.job_id) if row is not None and row.job_id else None
    row = session.get(table, id, with_for_update=True, populate_existing=True)
    ended = _ended_at(table)
    if row is None or (job is not None and job.state not in ENDED):
        return False
    if not getattr(row, ended.key) or getattr(row, ended.key) >= _limit(session, settings, table):
        return False
    if in_use.named_by_work(session, id) is not None:
        return False
    workspace_id = row.workspace_id
    if table is Dataset:
        in_use.remove_dataset(session, row)
    elif table is Checkpoint:
        in_use.remove_checkpoint(session, row)
    elif job is not None:
        removal.remove(session, job)
    session.flush()
    entry = AuditEntry(
        id=new_id("audit"),
        workspace_id=workspace_id,
        action=f"expire_{name_of(table)}",
        resource=f"{path_of(table)}/{id}",
        created_at=database_now(session),
    )
    session.add(entry)
    session.flush()
    return True


def _limited(settings: Settings) -> Iterator[type[Any]]:
    return (table for table, name in KEPT.items() if getattr(settings, name) > 0)


def _limit(session: Session, settings: Settings, table: type[Any]) -> datetime:
    return database_now(session) - timedelta(seconds=getattr(settings, KEPT[table]))


def _ended_at(table: type[Any]) -> Any:
    """When a row came to its end; a dataset or checkpoint when it was last changed."""
    return table.finished_at if issubclass(table, Work) else table.updated_at
