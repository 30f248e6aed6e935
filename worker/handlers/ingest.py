"""Job `ingest`: from the archive that somebody sent to a dataset in canonical form, or to the reasons why not."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.db.tables import Dataset
from app.errors import NotFound, UnusableDataset
from app.queue.states import ResourceState
from app.storage.archives import ArchiveLimits, pack, unpack
from worker.data import ingest as reading
from worker.data.faults import Unusable
from worker.files import scratch
from worker.handlers.blobs import keep_file
from worker.step import JobView, Step


def run(step: Step, job: JobView) -> Callable[[Session], None]:
    """Unpacks, recognises, brings to canonical form and stores it; returns the write that makes the dataset ready.

    Raises UnusableArchive or UnusableDataset (the report is kept on the dataset) and NotFound.
    """
    with step.database.reading() as session:
        dataset = session.get(Dataset, job.resource_id)
    if dataset is None:
        raise NotFound(f"the dataset {job.resource_id} is gone")
    request = dataset.request
    with scratch(step.settings.scratch_dir) as folder:
        with _source(step, dataset, folder) as source:
            step.stage("validating")
            canonical = folder / "canonical"
            canonical.mkdir()
            try:
                found = reading.ingest(
                    source,
                    canonical,
                    format=request.get("format"),
                    seed=request.get("seed", 0),
                    val_fraction=request.get("val_fraction", 0.2),
                    test_fraction=request.get("test_fraction", 0.0),
                    progress=step.counted("images"),
                )
            except Unusable as refusal:
                _keep_report(step, job, refusal.report)
                raise UnusableDataset(refusal.reason) from refusal
        step.stage("storing")
        archive = folder / "canonical.zip"
        pack(canonical, archive)
        step.check()
        stored = keep_file(step, archive, "application/zip")
        previews = [
            {"sha256": keep_file(step, path, "image/jpeg"), "file_name": path.name} for path in found.previews
        ]

    def finish(session: Session) -> None:
        row = session.get(Dataset, job.resource_id)
        if row is None:
            return
        row.state = ResourceState.READY
        row.format, row.supervision, row.digest = found.format, found.supervision, found.digest
        row.summary, row.report, row.previews = found.summary, found.report, previews
        row.archive_sha256, row.error = stored, None

    return finish


@contextlib.contextmanager
def _source(step: Step, dataset: Dataset, folder: Path) -> Iterator[Path]:
    """The folder to read: what the archive held, or the folder on this disk that was named."""
    if dataset.source_path and Path(dataset.source_path).is_dir():
        yield Path(dataset.source_path)
        return
    step.stage("unpacking")
    archive = _archive(step, dataset)
    yield unpack(archive, folder / "source", ArchiveLimits.of(step.settings), step.check).root


def _archive(step: Step, dataset: Dataset) -> Path:
    if dataset.source_sha256:
        return step.store.local_path(dataset.source_sha256)
    if dataset.source_path and Path(dataset.source_path).is_file():
        return Path(dataset.source_path)
    raise UnusableDataset(
        f"there is nothing at {dataset.source_path}; give the path of a folder or an archive"
    )


def _keep_report(step: Step, job: JobView, report: dict[str, Any]) -> None:
    with step.writing() as session:
        row = session.get(Dataset, job.resource_id)
        if row is not None:
            row.report = report
