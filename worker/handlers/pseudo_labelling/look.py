"""Job `look`: the teacher looks at one part of the pictures, once."""

from contextlib import ExitStack

from app.db import tables
from app.errors import PseudoLabellingFailed
from worker.attempt import Attempt, ClaimedJob
from worker.data.dataset import open_dataset
from worker.files import scratch
from worker.handlers.datasets import dataset_folder, every_image
from worker.handlers.inputs import ready
from worker.handlers.pseudo_labelling.inputs import looked_at, row_of, teacher_of
from worker.handlers.pseudo_labelling.looks import look
from worker.handlers.refusals import refusals


def run(attempt: Attempt, job: ClaimedJob) -> None:
    """Raises PseudoLabellingFailed, NotFound."""
    with attempt.database.reading() as session:
        asked = row_of(session, job).request
    source = ready(attempt, tables.Dataset, asked["dataset_id"], PseudoLabellingFailed)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch(attempt.settings.scratch_dir))
        stack.enter_context(refusals(PseudoLabellingFailed))
        root = stack.enter_context(dataset_folder(attempt, source, every_image))
        attempt.stage("loading")
        teacher = teacher_of(attempt, asked, folder)
        dataset = open_dataset(root)
        attempt.stage("looking")
        part = (job.payload["part"], asked["parts"])
        look(attempt, dataset, looked_at(dataset, asked), teacher, part, folder)
