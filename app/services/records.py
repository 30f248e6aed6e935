"""Finding a record of a workspace, and what all resources have in common."""

from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db.tables import Blob, Event, Job, Outbox
from app.errors import NotFound
from app.storage.blobs import Stored

Record = TypeVar("Record")


def owned(session: Session, model: type[Record], workspace_id: str, id: str, *, lock: bool = False) -> Record:
    """The record, if it is this workspace's. Raises NotFound for another's just as for none.

    `lock` holds the row until the end of the transaction.
    """
    # a NUL would be an error of Postgres, and no id of ours has one
    found: Any = session.get(model, id, with_for_update=lock) if id.isascii() and id.isprintable() else None
    if found is None or found.workspace_id != workspace_id:
        name = model.__name__.lower()
        raise NotFound(f"there is no {name} {id!r} in this workspace; GET /v1/{name}s lists them")
    return found


def remember_blob(session: Session, stored: Stored, media_type: str) -> str:
    """A row for a file in the store; the same content twice is one row, made young again. Answers its digest."""
    insert = (sqlite if session.get_bind().dialect.name == "sqlite" else postgresql).insert
    now = datetime.now(UTC)
    session.execute(
        insert(Blob)
        .values(sha256=stored.sha256, size_bytes=stored.size_bytes, media_type=media_type, created_at=now)
        .on_conflict_do_update(index_elements=[Blob.sha256], set_={"created_at": now})
    )
    return stored.sha256


def forget_jobs(session: Session, resource_id: str) -> None:
    """Deletes the jobs of a deleted resource, with their events and bells."""
    jobs = select(Job.id).where(Job.resource_id == resource_id)
    session.execute(delete(Event).where(Event.stream_id.in_(jobs)))
    session.execute(delete(Outbox).where(Outbox.job_id.in_(jobs)))
    session.execute(delete(Job).where(Job.resource_id == resource_id))
