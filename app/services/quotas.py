"""What a workspace may store and have queued, and what it has."""

from dataclasses import dataclass

from sqlalchemy import func, select, union
from sqlalchemy.orm import Session

from app.db.access_tables import Workspace
from app.db.base import columns_that_name_blobs
from app.db.tables import Blob, Checkpoint, Dataset, Job, Upload
from app.errors import Fault, QuotaExceeded
from app.queue.states import JobState
from app.settings import Settings

NAMED = 3


@dataclass(frozen=True)
class Quotas:
    """None: any number."""

    max_bytes: int | None
    max_queued_jobs: int | None

    @property
    def any(self) -> bool:
        return self.max_bytes is not None or self.max_queued_jobs is not None


@dataclass(frozen=True)
class Usage:
    """None: not counted, because there is no quota of it."""

    bytes: int | None
    queued_jobs: int | None


def quotas_of(workspace: Workspace, settings: Settings) -> Quotas:
    """Its own, else those of the settings."""

    def chosen(own: int | None, of_all: int) -> int | None:
        return (of_all if own is None else own) or None

    return Quotas(
        chosen(workspace.max_bytes, settings.workspace_bytes),
        chosen(workspace.max_queued_jobs, settings.workspace_queued_jobs),
    )


def begin(session: Session, workspace_id: str, settings: Settings) -> tuple[Quotas, Usage]:
    """To be called before a request adds anything; with a quota, requests of one workspace wait for each other from here on."""
    quotas = quotas_of(session.get_one(Workspace, workspace_id), settings)
    if quotas.any:
        session.get_one(Workspace, workspace_id, with_for_update={"key_share": True})
    return quotas, usage(session, workspace_id, quotas)


def check(session: Session, workspace_id: str, quotas: Quotas, before: Usage) -> None:
    """Raises QuotaExceeded where what was added since `before` goes beyond a quota."""
    session.flush()
    after = usage(session, workspace_id, quotas)
    if _grew_beyond(before.queued_jobs, after.queued_jobs, quotas.max_queued_jobs):
        raise QuotaExceeded(
            f"{before.queued_jobs:,} jobs are queued, {quotas.max_queued_jobs:,} may be, and this adds "
            f"{(after.queued_jobs or 0) - (before.queued_jobs or 0):,}: wait until some have ended, or cancel what is not "
            "needed (GET /v1/jobs?state=queued)"
        )
    if _grew_beyond(before.bytes, after.bytes, quotas.max_bytes):
        _refuse_bytes(
            session, workspace_id, quotas, before.bytes or 0, (after.bytes or 0) - (before.bytes or 0)
        )


def require_room(session: Session, workspace_id: str, settings: Settings, more_bytes: int) -> None:
    """Raises QuotaExceeded where so many bytes more are too many: before they are sent."""
    quotas = quotas_of(session.get_one(Workspace, workspace_id), settings)
    if quotas.max_bytes is None:
        return
    stored = stored_bytes(session, workspace_id)
    if stored + more_bytes > quotas.max_bytes:
        _refuse_bytes(session, workspace_id, quotas, stored, more_bytes)


def usage(session: Session, workspace_id: str, quotas: Quotas) -> Usage:
    """What there is of that which has a quota."""
    return Usage(
        None if quotas.max_bytes is None else stored_bytes(session, workspace_id),
        None if quotas.max_queued_jobs is None else queued_jobs(session, workspace_id),
    )


def stored_bytes(session: Session, workspace_id: str) -> int:
    """Of all files that its records name, each once, and of uploads on their way. Previews and charts are not counted."""
    digests, _ = columns_that_name_blobs()
    named = union(
        *(
            select(column).where(column.table.c.workspace_id == workspace_id, column.is_not(None))
            for column in digests
            if "workspace_id" in column.table.c
        )
    ).subquery()
    stored = select(func.coalesce(func.sum(Blob.size_bytes), 0)).where(Blob.sha256.in_(select(named.c[0])))
    coming = select(func.coalesce(func.sum(Upload.length_bytes), 0)).where(
        Upload.workspace_id == workspace_id, Upload.sha256.is_(None)
    )
    return int(session.scalar(stored) or 0) + int(session.scalar(coming) or 0)


def queued_jobs(session: Session, workspace_id: str) -> int:
    query = select(func.count()).select_from(Job)
    found = session.scalar(query.where(Job.workspace_id == workspace_id, Job.state == JobState.QUEUED.value))
    return found or 0


def _grew_beyond(before: int | None, after: int | None, most: int | None) -> bool:
    return before is not None and after is not None and most is not None and after > most and after > before


def _refuse_bytes(session: Session, workspace_id: str, quotas: Quotas, stored: int, more: int) -> None:
    errors: list[Fault] = [
        {"pointer": "", "message": f"{path} has {size:,} bytes"}
        for size, path in _largest(session, workspace_id)
    ]
    raise QuotaExceeded(
        f"{stored:,} bytes are stored, {quotas.max_bytes:,} may be, and this needs {more:,}: delete datasets and checkpoints "
        "that are not needed, or have the quota raised (`detrank workspaces set`)",
        errors=errors,
    )


def _largest(session: Session, workspace_id: str) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for table, column, path in (
        (Dataset, Dataset.archive_sha256, "/v1/datasets"),
        (Checkpoint, Checkpoint.weights_sha256, "/v1/checkpoints"),
    ):
        query = (
            select(Blob.size_bytes, table.id)
            .join(Blob, Blob.sha256 == column)
            .where(table.workspace_id == workspace_id)
            .order_by(Blob.size_bytes.desc())
        )
        found += [(size, f"{path}/{id}") for size, id in session.execute(query.limit(NAMED))]
    return sorted(found, reverse=True)[:NAMED]
