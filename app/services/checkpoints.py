"""Checkpoints: making, finding, removing."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.db.tables import Candidate, Checkpoint, Verification
from app.errors import InvalidRequest
from app.ids import new_id
from app.queue.jobs import add_job
from app.queue.states import JobKind, ResourceState
from app.schemas.checkpoints import CheckpointOptions, CheckpointQuery
from app.services.datasets import local_source
from app.services.listing import contains, page
from app.services.records import forget_jobs, owned, refuse_in_use, refuse_while_working
from app.settings import Settings

SCHEMES = ("torchvision", "timm", "hf", "pypi")


def check_source(settings: Settings, source: str) -> None:
    """Raises InvalidRequest for a source that no worker could fetch."""
    scheme, separator, rest = source.partition("://")
    if not separator:
        local_source(settings, source)
    elif scheme not in SCHEMES or not rest:
        message = f"{source!r} is not a source; write {', '.join(f'{known}://...' for known in SCHEMES)} or an absolute path"
        raise InvalidRequest(message, errors=[{"pointer": "/source", "message": message}])


def create(
    session: Session,
    workspace_id: str,
    options: CheckpointOptions,
    *,
    source: str | None = None,
    source_sha256: str | None = None,
    from_upload: str | None = None,
    max_attempts: int = 3,
    provenance: dict[str, Any] | None = None,
    default_name: str = "checkpoint",
) -> Checkpoint:
    """A checkpoint in state `processing` with the job that reads it, for a stored file or a source to fetch."""
    now = datetime.now(UTC)
    request: dict[str, Any] = options.model_dump(
        exclude={"name", "upload_id", "source", "provenance"}, exclude_none=True
    )
    if from_upload is not None:
        request["upload_id"] = from_upload
    if source is not None:
        request["source"] = source
    checkpoint = Checkpoint(
        id=new_id("ckpt"),
        workspace_id=workspace_id,
        name=options.name or default_name[:200],
        state=ResourceState.PROCESSING,
        request=request,
        source_sha256=source_sha256,
        architecture=options.architecture,
        licence=options.licence,
        provenance=provenance,
        created_at=now,
        updated_at=now,
    )
    session.add(checkpoint)
    session.flush()
    job = add_job(
        session,
        workspace_id=workspace_id,
        kind=JobKind.INSPECT,
        resource_id=checkpoint.id,
        max_attempts=max_attempts,
    )
    checkpoint.job_id = job.id
    return checkpoint


def find(session: Session, workspace_id: str, id: str) -> Checkpoint:
    return owned(session, Checkpoint, workspace_id, id)


def listed(
    session: Session, workspace_id: str, asked: CheckpointQuery
) -> tuple[list[Checkpoint], str | None]:
    query = select(Checkpoint).where(Checkpoint.workspace_id == workspace_id)
    for column, value in (
        (Checkpoint.state, asked.state),
        (Checkpoint.kind, asked.kind),
        (Checkpoint.architecture, asked.architecture),
    ):
        if value is not None:
            query = query.where(column == value)
    if asked.licence is not None:
        query = query.where(func.lower(Checkpoint.licence) == asked.licence.lower())
    if asked.name is not None:
        query = query.where(contains(Checkpoint.name, asked.name))
    if asked.max_parameters is not None:
        query = query.where(Checkpoint.parameters <= asked.max_parameters)
    return page(session, query, Checkpoint, asked)


def unusable(checkpoint: Checkpoint) -> str | None:
    """Why it cannot be used, and what to do; None for one that is ready."""
    if checkpoint.state == ResourceState.PROCESSING:
        return f"the checkpoint {checkpoint.id} is still being read: wait until it is ready (job {checkpoint.job_id})"
    if checkpoint.state == ResourceState.INVALID:
        why = (checkpoint.error or {}).get("detail", "see its error")
        return f"the checkpoint {checkpoint.id} cannot be used: {why}"
    return None


def remove(session: Session, workspace_id: str, id: str) -> Checkpoint:
    """Deletes the record; its files go when nobody else has the same. Raises Conflict that names who uses it."""
    checkpoint = owned(session, Checkpoint, workspace_id, id, lock=True)
    users = select(Candidate.ranking_id).where(Candidate.checkpoint_id == id).order_by(Candidate.ranking_id)
    refuse_in_use(session, users, "the checkpoint is a candidate of")
    fine_tuned = select(Verification.id).where(Verification.checkpoint_id == id).order_by(Verification.id)
    refuse_in_use(session, fine_tuned, "the checkpoint is fine-tuned by", "verifications")
    refuse_while_working(session, checkpoint.job_id)
    # what it was worth stays known
    made_by = update(Verification).where(Verification.trained_checkpoint_id == id)
    session.execute(made_by.values(trained_checkpoint_id=None, version=Verification.version + 1))
    forget_jobs(session, id)
    session.delete(checkpoint)
    return checkpoint
