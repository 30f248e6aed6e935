"""Finding a record of a workspace, and what all resources have in common."""

from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session

from app.db.engine import Database
from app.db.work import name_of, path_of
from app.errors import Conflict, Fault, NotFound
from app.queue import jobs
from app.queue.states import ENDED

Record = TypeVar("Record")


def owned(session: Session, model: type[Record], workspace_id: str, id: str, *, lock: bool = False) -> Record:
    """The record, if it is this workspace's. Raises NotFound where it is another's or does not exist.

    `lock` holds the row until the end of the transaction.
    """
    found: Any = session.get(model, id, with_for_update=lock) if _may_be_id(id) else None
    if found is None or found.workspace_id != workspace_id:
        raise NotFound(
            f"there is no {name_of(model)} {id!r} in this workspace; GET {path_of(model)} lists them"
        )
    return found


def versioned(database: Database, model: Any, workspace_id: str, id: str) -> int | None:
    """The version of the record, without reading it; None where it is another's or does not exist."""
    if not _may_be_id(id):
        return None
    found = database.glance(_version_of(model), {"id": id})
    return found.version if found is not None and found.workspace_id == workspace_id else None


@cache
def _version_of(model: Any) -> Select[tuple[str, int]]:
    return select(model.workspace_id, model.version).where(model.id == bindparam("id"))


def _may_be_id(id: str) -> bool:
    # a NUL would be an error of Postgres, and no id of ours has one
    return id.isascii() and id.isprintable()


def named(
    session: Session, model: type[Any], workspace_id: str, id: str | None, pointer: str, faults: list[Fault]
) -> Any:
    """The record that a field of a request names, kept from deletion until what refers to it is there.

    None where the field names none, or one that is not this workspace's: then `faults` has it.
    """
    if id is None:
        return None
    try:
        row = owned(session, model, workspace_id, id)
    except NotFound as missing:
        faults.append({"pointer": pointer, "message": missing.detail})
        return None
    session.refresh(row, with_for_update={"read": True, "key_share": True})
    return row


def owned_and_at_rest(session: Session, model: type[Record], workspace_id: str, id: str) -> Record:
    """A dataset or checkpoint, locked behind its job. Raises NotFound, and Conflict while the job works."""
    found: Any = owned(session, model, workspace_id, id)
    job = jobs.lock(session, found.job_id) if found.job_id else None
    if job is not None and job.state not in ENDED:
        raise Conflict(
            f"the job {job.id} still works on it: wait until it ends, or POST /v1/jobs/{job.id}:cancel first",
            errors=[{"pointer": "", "message": f"used by /v1/jobs/{job.id}"}],
        )
    return owned(session, model, workspace_id, id, lock=True)
