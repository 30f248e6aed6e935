"""Long work as callers see it, of every kind: finding, stopping, trying again, removing, its events."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Event, Job
from app.db.work import Work, name_of, path_of
from app.errors import Conflict, NotFound
from app.queue import jobs, removal, tree
from app.queue.kinds import kind_of
from app.queue.mirror import parent_of, row_of
from app.queue.states import BROKEN, ENDED, JobKind
from app.services.records import owned

Stream = type[Job] | type[Work]

_EVENTS_AT_ONCE = 200


def find(session: Session, workspace_id: str, table: Stream, id: str) -> Any:
    """The row, if it is this workspace's. Raises NotFound."""
    return owned(session, table, workspace_id, id)


def locked(session: Session, workspace_id: str, table: Stream, id: str) -> tuple[Any, Job]:
    """The row and its job, locked with all jobs above it; a job is its own row. Raises NotFound."""
    row: Any = owned(session, table, workspace_id, id)
    job = jobs.lock(session, row.id if isinstance(row, Job) else row.job_id)
    if job is None:  # deleted since
        raise NotFound(
            f"there is no {name_of(table)} {id!r} in this workspace; GET {path_of(table)} lists them"
        )
    session.refresh(row)
    return row, job


def cancel(session: Session, workspace_id: str, table: Stream, id: str) -> Any:
    """Asks it and all its parts to stop; harmless where it has ended. Raises NotFound."""
    row, job = locked(session, workspace_id, table, id)
    tree.cancel(session, job)
    return row


def prioritise(session: Session, workspace_id: str, table: Stream, id: str, priority: int) -> Any:
    """Has its jobs go before those of a smaller priority in the workspace. Raises NotFound."""
    row, job = locked(session, workspace_id, table, id)
    tree.prioritise(session, job, priority)
    session.flush()
    return row


def retry(session: Session, workspace_id: str, table: Stream, id: str) -> Any:
    """Tries again what failed or was cancelled in it; what succeeded is kept.

    Raises NotFound, and Conflict where there is nothing to try again.
    """
    row, job = locked(session, workspace_id, table, id)
    name, kind = name_of(table), kind_of(job)
    if table is Job and job.state not in BROKEN:
        raise Conflict(
            f"the job {id} is {jobs.shown(job)}; only a failed or cancelled job can be tried again"
        )
    if job.state not in ENDED:
        raise Conflict(
            f"the {name} {id} is {row.state}; what failed in it can be tried again when it has ended"
        )
    if why := kind.refuses(session, job, JobKind(job.kind)) if kind.refuses is not None else None:
        raise Conflict(why)
    if not tree.has_broken(session, job):
        raise Conflict(
            f"nothing in the {name} {id} failed or was cancelled, so there is nothing to try again"
        )
    tree.retry(session, job)
    return row


def remove(session: Session, workspace_id: str, table: type[Work], id: str) -> None:
    """Deletes what has ended with its parts, jobs and events; fine-tuned checkpoints stay.

    Raises NotFound, and Conflict while it or a part of it is at work, or where it is a part of something.
    """
    row, job = locked(session, workspace_id, table, id)
    name = name_of(table)
    if job.state not in ENDED:
        raise Conflict(
            f"the {name} is {row.state}: POST {path_of(table)}/{id}:cancel first, or wait until it ends"
        )
    whole = parent_of(session, job)
    if whole is not None and whole.kind != JobKind.RANK:
        raise Conflict(
            f"the {name} is a part of {whole.resource_id}; delete that instead",
            errors=[{"pointer": "", "message": f"used by {whole.resource_id}"}],
        )
    if whole is not None and whole.state not in ENDED:
        raise Conflict(
            f"the {name} is a part of the ranking {whole.resource_id}, which is at work: wait until it ends",
            errors=[{"pointer": "", "message": f"used by /v1/rankings/{whole.resource_id}"}],
        )
    if whole is not None:
        row_of(session, whole).version += 1  # it shows its parts
    removal.remove(session, job)


def events_after(session: Session, stream_id: str, seq: int) -> list[Event]:
    """The next events of a stream, oldest first; at most 200 at a time."""
    query = select(Event).where(Event.stream_id == stream_id, Event.seq > seq)
    return list(session.scalars(query.order_by(Event.seq).limit(_EVENTS_AT_ONCE)))


def stream_state(session: Session, table: Stream, id: str) -> tuple[int, str] | None:
    """(number of the last event, state) of a stream; None where it has been deleted."""
    row = session.execute(select(table.event_seq, table.state).where(table.id == id)).one_or_none()
    return None if row is None else (row.event_seq, row.state)
