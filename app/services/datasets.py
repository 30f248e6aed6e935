"""Target datasets: making, finding, removing."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.db.tables import Dataset
from app.errors import Conflict, InvalidRequest, detail_of
from app.ids import new_id
from app.queue import in_use, tree
from app.queue.jobs import MAX_ATTEMPTS
from app.queue.kinds import LONG
from app.queue.states import JobKind, ResourceState
from app.schemas.datasets import DatasetOptions
from app.services.catalogue import dataset_formats, unknown
from app.services.listing import Listing, contains
from app.services.records import owned, owned_and_at_rest
from app.settings import Settings

# what a dataset's supervision is where its annotations are boxes of objects
WITH_BOXES = ("boxes", "masks", "pseudo_boxes")
LISTING = Listing(Dataset, "ds", {"name": lambda part: contains(Dataset.name, part)})


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
    stays_at: str | None = None,
    from_upload: str | None = None,
    max_attempts: int = MAX_ATTEMPTS,
) -> Dataset:
    """A dataset in state `processing`, with the job that reads a stored archive, a path of the server or a source."""
    now = datetime.now(UTC)
    request: dict[str, Any] = options.model_dump(
        include={"format", "seed", "val_fraction", "test_fraction", "unlabelled"}
    )
    if from_upload is not None:
        request["upload_id"] = from_upload
    if source_path is not None or stays_at is not None:
        request["source"] = source_path or stays_at
    dataset = Dataset(
        id=new_id("ds"),
        workspace_id=workspace_id,
        name=options.name,
        state=ResourceState.PROCESSING,
        request=request,
        source_sha256=source_sha256,
        source_path=source_path,
        stays_at=stays_at,
        created_at=now,
        updated_at=now,
    )
    session.add(dataset)
    session.flush()
    job = tree.add(
        session,
        JobKind.INGEST,
        dataset.id,
        workspace_id=workspace_id,
        max_attempts=max_attempts,
        queue=LONG if stays_at is not None else None,
    )
    if options.priority:
        tree.prioritise(session, job, options.priority)
    dataset.job_id = job.id
    return dataset


def local_source(settings: Settings, source: str) -> Path:
    """A path of the server's disk that a caller may name. Raises InvalidRequest for any other."""
    if not settings.allow_local_paths:
        message = (
            "paths on the server's disk are not accepted here (DETRANK_ALLOW_LOCAL_PATHS); "
            "send the file itself"
        )
    elif not Path(source).is_absolute():
        message = f"{source!r} is not an absolute path"
    elif not Path(source).exists():
        message = f"there is nothing at {source} on the server"
    else:
        return Path(source)
    raise InvalidRequest(message, errors=[{"pointer": "/source", "message": message}])


def find(session: Session, workspace_id: str, id: str) -> Dataset:
    return owned(session, Dataset, workspace_id, id)


def ready(dataset: Dataset) -> Dataset:
    """The dataset itself. Raises Conflict, saying what to do, where it cannot be used yet or never."""
    if dataset.state == ResourceState.PROCESSING:
        raise Conflict(
            f"the dataset {dataset.id} is still being read: wait until its state is ready "
            f"(GET /v1/datasets/{dataset.id}, or follow /v1/jobs/{dataset.job_id}/events)"
        )
    if dataset.state == ResourceState.INVALID:
        why = detail_of(dataset.error, "see its report")
        raise Conflict(
            f"the dataset {dataset.id} cannot be used: {why} Repair the archive and send it as a new dataset."
        )
    return dataset


def with_boxes(dataset: Dataset, because: str, pointer: str = "/dataset_id") -> None:
    """Raises Conflict for a dataset that has none; `because` says what they are needed for."""
    if dataset.supervision not in WITH_BOXES:
        raise Conflict(
            f"the dataset {dataset.id} has no boxes (its supervision is {dataset.supervision}), "
            f"and {because}: send a dataset with boxes or masks, or have a teacher say where objects are "
            "(POST /v1/pseudo-labellings)",
            errors=[{"pointer": pointer, "message": "no boxes"}],
        )


def remove(session: Session, workspace_id: str, id: str) -> Dataset:
    """Deletes the record; its files go when nobody else has the same. Raises Conflict, naming who uses it."""
    dataset = owned_and_at_rest(session, Dataset, workspace_id, id)
    in_use.remove_dataset(session, dataset)
    return dataset
