"""Job `ingest`: from the archive that somebody sent to a dataset in canonical form, or to the reasons why not."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from sqlalchemy.orm import Session

from app.db import documents
from app.db.tables import Dataset
from app.errors import NotFound, UnusableDataset
from app.queue.states import ResourceState
from app.storage.archives import ArchiveLimits, pack, unpack
from worker.attempt import Attempt, ClaimedJob
from worker.data import ingest as reading
from worker.data.encodings import encoding_of_names
from worker.data.faults import Unusable
from worker.data.sources.base import Bounds
from worker.data.sources.pinning import Means, pin_dataset
from worker.files import scratch
from worker.handlers.datasets import kept_pictures, source_errors, source_of
from worker.handlers.intake.reviewed import reviewed
from worker.handlers.results import keep_file
from worker.memory_limit import memory_limit


def run(attempt: Attempt, job: ClaimedJob) -> Callable[[Session], None]:
    """Unpacks, recognises, brings to canonical form and stores it; returns the write that makes the dataset ready.

    Raises UnusableArchive or UnusableDataset (the report is kept on the dataset) and NotFound.
    """
    with attempt.database.reading() as session:
        dataset = session.get(Dataset, job.resource_id)
    if dataset is None:
        raise NotFound(f"the dataset {job.resource_id} is gone")
    request = dataset.request
    options = {
        "format": request.get("format"),
        "seed": request.get("seed", 0),
        "val_fraction": request.get("val_fraction", 0.2),
        "test_fraction": request.get("test_fraction", 0.0),
        "unlabelled": request.get("unlabelled", "leave_out"),
    }
    with scratch(attempt.settings.scratch_dir) as folder:
        canonical = folder / "canonical"
        canonical.mkdir()
        try:
            with memory_limit(attempt.settings.ingest_memory_bytes):
                if "reviewed" in request:
                    found = reviewed(attempt, dataset, canonical)
                else:
                    found = _read(attempt, dataset, folder, canonical, options)
        except Unusable as refusal:
            _keep_report(attempt, job, refusal.report)
            raise UnusableDataset(refusal.reason) from refusal
        except MemoryError as failure:
            raise UnusableDataset(
                "reading it takes more memory than DETRANK_INGEST_MEMORY_BYTES allows: split its largest file of labels, or "
                "ask whoever runs the service to allow more"
            ) from failure
        attempt.stage("storing")
        archive = folder / "canonical.zip"
        pack(canonical, archive)
        attempt.check()
        stored = keep_file(attempt, archive, "application/zip")
        previews: list[documents.Preview] = [
            {"sha256": keep_file(attempt, path, "image/jpeg"), "file_name": path.name}
            for path in found.previews
        ]

    # the readers write plain JSON, and know nothing of the service's documents
    summary = cast(documents.DatasetSummary, found.summary)

    def finish(session: Session) -> None:
        row = session.get(Dataset, job.resource_id)
        if row is None:
            return
        row.state = ResourceState.READY
        row.format, row.supervision, row.digest = found.format, found.supervision, found.digest
        row.summary, row.report, row.previews = summary, found.report, previews
        row.archive_sha256, row.error = stored, None

    return finish


def _read(
    attempt: Attempt, dataset: Dataset, folder: Path, out: Path, options: dict[str, Any]
) -> reading.Ingested:
    """Into `out`: the canonical form, or what was pinned of pictures that stay where they are."""
    if dataset.stays_at is None:
        with _source(attempt, dataset, folder) as source:
            attempt.stage("validating")
            return reading.ingest(source, out, progress=attempt.counted("images"), **options)
    attempt.stage("fetching")
    settings = attempt.settings
    means = Means(
        kept=kept_pictures(settings),
        bounds=Bounds(settings.max_source_files, settings.max_archive_bytes, settings.max_archive_file_bytes),
        progress=attempt.counted("files"),
        check=attempt.check,
    )
    with source_errors(offline=UnusableDataset):
        found = pin_dataset(source_of(settings, dataset.stays_at), out, folder, means, **options)
    means.kept.make_room()
    return found


@contextlib.contextmanager
def _source(attempt: Attempt, dataset: Dataset, folder: Path) -> Iterator[Path]:
    """The folder to read: what the archive held, or the folder on this disk that was named."""
    if dataset.source_path and Path(dataset.source_path).is_dir():
        yield Path(dataset.source_path)
        return
    attempt.stage("unpacking")
    archive = _archive(attempt, dataset)
    yield unpack(
        archive, folder / "source", ArchiveLimits.of(attempt.settings), attempt.check, encoding_of_names
    ).root


def _archive(attempt: Attempt, dataset: Dataset) -> Path:
    if dataset.source_sha256:
        return attempt.store.local_path(dataset.source_sha256)
    if dataset.source_path and Path(dataset.source_path).is_file():
        return Path(dataset.source_path)
    raise UnusableDataset(
        f"there is nothing at {dataset.source_path}; give the path of a folder or an archive"
    )


def _keep_report(attempt: Attempt, job: ClaimedJob, report: dict[str, Any]) -> None:
    with attempt.writing() as session:
        row = session.get(Dataset, job.resource_id)
        if row is not None:
            row.report = report
