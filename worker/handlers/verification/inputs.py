"""What a `verify` job works with."""

from dataclasses import dataclass

from app.db import tables
from app.errors import NotFound, VerificationFailed
from worker.attempt import Attempt, ClaimedJob


@dataclass(frozen=True)
class Records:
    """The records that the job reads, as they were when it began."""

    verification: tables.Verification
    checkpoint: tables.Checkpoint
    dataset: tables.Dataset


def records_of(attempt: Attempt, job: ClaimedJob) -> Records:
    with attempt.database.reading() as session:
        row = session.get(tables.Verification, job.resource_id)
        checkpoint = session.get(tables.Checkpoint, row.checkpoint_id) if row else None
        dataset = session.get(tables.Dataset, row.dataset_id) if row else None
    if row is None or checkpoint is None or dataset is None:
        raise NotFound(f"the verification {job.resource_id}, its dataset or its checkpoint is gone")
    for what, name, file in (
        (checkpoint, "checkpoint", checkpoint.weights_sha256),
        (dataset, "dataset", dataset.archive_sha256),
    ):
        if not file:
            raise VerificationFailed(f"the {name} {what.id} is {what.state}; verify when it is ready")
    return Records(row, checkpoint, dataset)
