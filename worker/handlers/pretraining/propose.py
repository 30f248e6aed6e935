"""Job `propose`: search the regions of one part of a dataset's pictures, once."""

from contextlib import ExitStack

from app.db import tables
from app.errors import PretrainingFailed
from worker.attempt import Attempt, ClaimedJob
from worker.data.dataset import open_dataset
from worker.files import scratch
from worker.handlers.datasets import dataset_folder, every_image
from worker.handlers.inputs import ready
from worker.handlers.pretraining.inputs import LESS_MEMORY, row_of
from worker.handlers.pretraining.regions import searched
from worker.handlers.refusals import refusals


def run(attempt: Attempt, job: ClaimedJob) -> None:
    """Raises PretrainingFailed, NotFound."""
    with attempt.database.reading() as session:
        asked = row_of(session, job).request
    dataset_row = ready(attempt, tables.Dataset, asked["dataset_id"], PretrainingFailed)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch(attempt.settings.scratch_dir))
        root = stack.enter_context(dataset_folder(attempt, dataset_row, every_image))
        stack.enter_context(refusals(PretrainingFailed, LESS_MEMORY))
        attempt.stage("proposing")
        searched(
            attempt,
            open_dataset(root),
            asked["proposals"],
            job.payload["part"],
            asked["parts"],
            folder,
            lambda done, total: attempt.progress(done, total, "pictures"),
        )
