"""Deleting what has ended: a row, its parts and all their jobs, events and bells."""

from collections.abc import Iterator, Sequence
from typing import cast

from sqlalchemy import Table, delete, inspect, select
from sqlalchemy.orm import Session

from app.db.tables import Base, Event, Job, Outbox, Verification
from app.db.work import Work, name_of
from app.errors import Conflict
from app.queue import beliefs
from app.queue.kinds import KINDS, kind_of
from app.queue.states import ENDED, JobKind
from app.queue.tree import below

_AT_ONCE = 500  # SQLite takes a limited number of parameters


def remove(session: Session, job: Job) -> None:
    """Delete the row of a locked job that has ended, its parts, and all their jobs. Raises Conflict where a part is at work."""
    every = [job, *below(session, job)]
    name = name_of(kind_of(job).table)
    for each in every:
        if each.state not in ENDED:
            raise Conflict(
                f"{each.resource_id}, a part of the {name}, is at work: wait until it ends",
                errors=[{"pointer": "", "message": f"used by {each.resource_id}"}],
            )
    rows = {table: _rows_of(session, table, [each.id for each in every]) for table in _work_tables()}
    for table in reversed(Base.metadata.sorted_tables):  # those that refer to others before them
        for some in _portions(rows.get(table, [])):
            for belonging, column in _belongings(table):
                session.execute(delete(belonging).where(belonging.c[column].in_(some)))
            session.execute(delete(Event).where(Event.stream_id.in_(some)))
            session.execute(delete(table).where(table.c.id.in_(some)))
            forget_jobs(session, some)
    if rows.get(cast(Table, inspect(Verification).local_table)):
        beliefs.forget(session, job.workspace_id)
    session.expire_all()


def forget_jobs(session: Session, row_ids: Sequence[str]) -> None:
    """Delete all jobs that worked for these rows, the deepest first, with their events and bells."""
    found = list(session.execute(select(Job.id, Job.kind).where(Job.resource_id.in_(row_ids))))
    ids = [id for kind in _deepest_first() for id, its in found if its == kind]
    for some in _portions(ids):
        session.execute(delete(Event).where(Event.stream_id.in_(some)))
        session.execute(delete(Outbox).where(Outbox.job_id.in_(some)))
        session.execute(delete(Job).where(Job.id.in_(some)))


def _deepest_first() -> list[JobKind]:
    """Kinds, each before those that may have it for a child."""
    order: list[JobKind] = []

    def visit(kind: JobKind) -> None:
        for child in KINDS[kind].children:
            visit(child)
        if kind not in order:
            order.append(kind)

    for kind in KINDS:
        visit(kind)
    return order


def _work_tables() -> set[Table]:
    return {
        cast(Table, inspect(kind.table).local_table)
        for kind in KINDS.values()
        if issubclass(kind.table, Work)
    }


def _rows_of(session: Session, table: Table, job_ids: Sequence[str]) -> list[str]:
    """Ids of the rows whose own job is one of these; a `score` job is one of many of its ranking."""
    return [
        id
        for some in _portions(job_ids)
        for id in session.scalars(select(table.c.id).where(table.c.job_id.in_(some)))
    ]


def _belongings(table: Table) -> Iterator[tuple[Table, str]]:
    """Tables whose rows belong to a row of this table, whose id is in their key, and the column that holds the id."""
    for other in Base.metadata.sorted_tables[::-1]:
        for column in other.primary_key.columns:
            if any(key.column.table is table for key in column.foreign_keys):
                yield other, column.name


def _portions(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _AT_ONCE):
        yield ids[start : start + _AT_ONCE]
