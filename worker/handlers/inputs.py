"""What handlers of several kinds begin with."""

from pathlib import Path
from typing import Any, cast

import models_store
from app.db import documents, tables
from app.db.tables import Checkpoint, Dataset
from app.errors import DetrankError, NotFound
from models_store.manifest import WEIGHTS_FILE
from worker.attempt import Attempt


def manifest_of(checkpoint: Checkpoint) -> models_store.Manifest:
    """Of a ready checkpoint."""
    if checkpoint.manifest is None:
        raise AssertionError(f"{checkpoint.id} is {checkpoint.state}, not ready")
    return models_store.Manifest.from_json(checkpoint.manifest)


def manifest_document(manifest: models_store.Manifest) -> documents.Manifest:
    """As it is kept. The store stands alone and knows nothing of the service's documents."""
    return cast(documents.Manifest, manifest.to_json())


def archive_of(dataset: Dataset) -> str:
    """The digest of a ready dataset's canonical form."""
    if dataset.archive_sha256 is None:
        raise AssertionError(f"{dataset.id} is {dataset.state}, not ready")
    return dataset.archive_sha256


def checkpoint_folder(attempt: Attempt, checkpoint: Checkpoint, folder: Path) -> Path:
    """A folder with the weights and the manifest of a ready checkpoint; the weights are not copied."""
    if checkpoint.weights_sha256 is None:
        raise AssertionError(f"{checkpoint.id} is {checkpoint.state}, not ready")
    folder.mkdir(exist_ok=True)
    (folder / WEIGHTS_FILE).symlink_to(attempt.store.local_path(checkpoint.weights_sha256))
    manifest_of(checkpoint).write(folder)
    return folder


def ready(attempt: Attempt, table: Any, id: str, failure: type[DetrankError]) -> Any:
    """The dataset or checkpoint, as it stood when the job began. Raises NotFound, and `failure` where it is not ready."""
    with attempt.database.reading() as session:
        row = session.get(table, id)
    if row is None:
        raise NotFound(f"{id}, which this job needs, is gone")
    file = row.archive_sha256 if table is tables.Dataset else row.weights_sha256
    if not file:
        raise failure(f"{id} is {row.state}; try again when it is ready")
    return row
