"""Finding a record of a workspace, and what all resources have in common."""

from typing import Any, TypeVar

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from app.db.tables import Event, Job, Outbox
from app.errors import Conflict, NotFound
from app.queue.states import ENDED

Record = TypeVar("Record")
LISTED_USERS = 20
_PLURALS = {"search": "searches", "study": "studies"}


def owned(session: Session, model: type[Record], workspace_id: str, id: str, *, lock: bool = False) -> Record:
    """The record, if it is this workspace's. Raises NotFound for another's just as for none.

    `lock` holds the row until the end of the transaction.
    """
    # a NUL would be an error of Postgres, and no id of ours has one
    found: Any = session.get(model, id, with_for_update=lock) if id.isascii() and id.isprintable() else None
    if found is None or found.workspace_id != workspace_id:
        name = model.__name__.lower()
        plural = _PLURALS.get(name, f"{name}s")
        raise NotFound(f"there is no {name} {id!r} in this workspace; GET /v1/{plural} lists them")
    return found


def forget_jobs(session: Session, resource_id: str) -> None:
    """Deletes the jobs of a deleted resource, with their events and bells."""
    jobs = select(Job.id).where(Job.resource_id == resource_id)
    session.execute(delete(Event).where(Event.stream_id.in_(jobs)))
    session.execute(delete(Outbox).where(Outbox.job_id.in_(jobs)))
    session.execute(delete(Job).where(Job.resource_id == resource_id))


def refuse_in_use(session: Session, users: Select[tuple[str]], is_used: str, by: str = "rankings") -> None:
    """Raises Conflict that names the first of those `users` selects; `is_used` begins the sentence about them."""
    found = session.scalars(users.limit(LISTED_USERS)).all()
    if found:
        raise Conflict(
            f"{is_used} {len(found)} {by}; delete them first: {', '.join(found)}",
            errors=[{"pointer": "", "message": f"used by /v1/{by}/{user}"} for user in found],
        )


def refuse_while_working(session: Session, job_id: str | None) -> None:
    """Raises Conflict where the job of a resource is not over."""
    job = session.get(Job, job_id) if job_id else None
    if job is not None and job.state not in ENDED:
        raise Conflict(
            f"the job {job.id} still works on it: wait until it ends, or POST /v1/jobs/{job.id}:cancel first",
            errors=[{"pointer": "", "message": f"used by /v1/jobs/{job.id}"}],
        )
