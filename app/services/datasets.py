"""Target datasets: making, finding, removing."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.db.tables import Dataset, Ranking, Search, Subset, Verification
from app.errors import Conflict, InvalidRequest
from app.ids import new_id
from app.queue.jobs import add_job
from app.queue.states import JobKind, ResourceState
from app.schemas.datasets import DatasetOptions, DatasetQuery
from app.services.catalogue import dataset_formats, unknown
from app.services.listing import contains, page
from app.services.records import forget_jobs, owned, refuse_in_use, refuse_while_working
from app.settings import Settings


def check_options(options: DatasetOptions) -> None:
    """Raises InvalidRequest for a format that nobody reads."""
    if options.format is not None and options.format not in dataset_formats():
        message = unknown("dataset format", options.format, dataset_formats())
        raise InvalidRequest(message, errors=[{"pointer": "/format", "message": message}])


def create(
    session: Session,
    workspace_id: str,
    options: DatasetOptions,
    *,
    source_sha256: str | None = None,
    source_path: str | None = None,
    from_upload: str | None = None,
    max_attempts: int = 3,
) -> Dataset:
    """A dataset in state `processing` with the job that reads it, for a stored archive or a path of the server."""
    now = datetime.now(UTC)
    request: dict[str, Any] = options.model_dump(include={"format", "seed", "val_fraction", "test_fraction"})
    if from_upload is not None:
        request["upload_id"] = from_upload
    if source_path is not None:
        request["source"] = source_path
    dataset = Dataset(
        id=new_id("ds"),
        workspace_id=workspace_id,
        name=options.name,
        state=ResourceState.PROCESSING,
        request=request,
        source_sha256=source_sha256,
        source_path=source_path,
        created_at=now,
        updated_at=now,
    )
    session.add(dataset)
    session.flush()
    job = add_job(
        session,
        workspace_id=workspace_id,
        kind=JobKind.INGEST,
        resource_id=dataset.id,
        max_attempts=max_attempts,
    )
    dataset.job_id = job.id
    return dataset


def local_source(settings: Settings, source: str) -> Path:
    """A path of the server's disk that a caller may name. Raises InvalidRequest where it may not or is not there."""
    if not settings.allow_local_paths:
        message = "paths on the server's disk are not accepted here (DETRANK_ALLOW_LOCAL_PATHS); send the file itself"
    elif not Path(source).is_absolute():
        message = f"{source!r} is not an absolute path"
    elif not Path(source).exists():
        message = f"there is nothing at {source} on the server"
    else:
        return Path(source)
    raise InvalidRequest(message, errors=[{"pointer": "/source", "message": message}])


def find(session: Session, workspace_id: str, id: str) -> Dataset:
    return owned(session, Dataset, workspace_id, id)


def listed(session: Session, workspace_id: str, asked: DatasetQuery) -> tuple[list[Dataset], str | None]:
    query = select(Dataset).where(Dataset.workspace_id == workspace_id)
    if asked.state is not None:
        query = query.where(Dataset.state == asked.state)
    if asked.supervision is not None:
        query = query.where(Dataset.supervision == asked.supervision)
    if asked.name is not None:
        query = query.where(contains(Dataset.name, asked.name))
    return page(session, query, Dataset, asked)


def ready(dataset: Dataset) -> Dataset:
    """The dataset itself. Raises Conflict, saying what to do, where it cannot be used yet or never."""
    if dataset.state == ResourceState.PROCESSING:
        raise Conflict(
            f"the dataset {dataset.id} is still being read: wait until its state is ready "
            f"(GET /v1/datasets/{dataset.id}, or follow /v1/jobs/{dataset.job_id}/events)"
        )
    if dataset.state == ResourceState.INVALID:
        why = (dataset.error or {}).get("detail", "see its report")
        raise Conflict(
            f"the dataset {dataset.id} cannot be used: {why} Repair the archive and send it as a new dataset."
        )
    return dataset


def with_boxes(dataset: Dataset, because: str) -> None:
    """Raises Conflict for a dataset that has none; `because` says what they are needed for."""
    if dataset.supervision not in ("boxes", "masks"):
        raise Conflict(
            f"the dataset {dataset.id} has no boxes (its supervision is {dataset.supervision}), and {because}: "
            "send a dataset with boxes or masks",
            errors=[{"pointer": "/dataset_id", "message": "no boxes"}],
        )


def remove(session: Session, workspace_id: str, id: str) -> Dataset:
    """Deletes the record; its files go when nobody else has the same. Raises Conflict that names who uses it."""
    dataset = owned(session, Dataset, workspace_id, id, lock=True)
    for users, by in ((Ranking, "rankings"), (Verification, "verifications"), (Search, "searches")):
        found = select(users.id).where(users.dataset_id == id).order_by(users.id)
        refuse_in_use(session, found, "the dataset is used by", by)
    refuse_while_working(session, dataset.job_id)
    forget_jobs(session, id)
    session.execute(delete(Subset).where(Subset.dataset_id == id))
    session.delete(dataset)
    return dataset
