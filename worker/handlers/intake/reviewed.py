"""A dataset made of pseudo boxes and what a person decided on them."""

from pathlib import Path
from typing import Any, cast

from app.db.tables import Dataset
from app.errors import UnusableDataset
from worker.attempt import Attempt
from worker.data.dataset import open_dataset
from worker.data.ingest import Ingested
from worker.handlers.datasets import dataset_folder, every_image
from worker.handlers.inputs import ready
from worker.pseudo_boxes.derived import SUPERVISION
from worker.pseudo_boxes.pseudo_boxes import Unteachable
from worker.pseudo_boxes.revised import revised

FORMAT = "pseudo_labelling"


def reviewed(attempt: Attempt, dataset: Dataset, out: Path) -> Ingested:
    """Into `out`: the pictures of the dataset that was reviewed, with its boxes as they were decided on.

    Raises UnusableDataset where that dataset is gone or no box is left.
    """
    asked = dataset.request["reviewed"]
    record = ready(attempt, Dataset, asked["dataset_id"], UnusableDataset)
    attempt.stage("revising")
    with dataset_folder(attempt, record, every_image) as folder:
        try:
            found = revised(
                open_dataset(folder),
                {int(id): change for id, change in asked["changes"].items()},
                out,
                description=f"pseudo boxes of {record.name}, reviewed",
                lineage=cast(dict[str, Any] | None, record.lineage),
                progress=lambda done, total: attempt.progress(done, total, "pictures"),
            )
        except Unteachable as refusal:
            raise UnusableDataset(refusal.detail) from refusal
    return Ingested(found.digest, FORMAT, SUPERVISION, found.summary, found.report, found.previews)
