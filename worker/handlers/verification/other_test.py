"""A verification that is measured on another dataset, such as on true boxes where it learned from pseudo boxes."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from app.db import tables
from app.errors import VerificationFailed
from worker.attempt import Attempt
from worker.data.dataset import Dataset, open_dataset
from worker.data.restated import content_of, restated
from worker.evaluation.evaluate import Evaluation
from worker.handlers.datasets import dataset_folder
from worker.handlers.inputs import ready
from worker.training.pictures import Pictures
from worker.training.plan import Plan
from worker.training.trained import Trained
from worker.training.validate import evaluated


@contextmanager
def other_test(
    attempt: Attempt, row: tables.Verification, dataset: Dataset, learned_ids: Collection[int]
) -> Iterator[Dataset | None]:
    """The images that the request measures on, in the categories of what is learned; None where it names no dataset.

    They are the other dataset's test images, without any its validation images. Raises VerificationFailed where some of
    them are learned from, or none of their objects is of a category that is learned.
    """
    id = row.request.get("test_dataset_id")
    if id is None:
        yield None
        return
    record = ready(attempt, tables.Dataset, id, VerificationFailed)
    with dataset_folder(attempt, record, measured_ids) as root:
        other = open_dataset(root)
        ids = measured_ids(other)
        theirs, mine = content_of(other), content_of(dataset)
        learned = {mine[id] for id in learned_ids}
        if seen := sum(theirs[id] in learned for id in ids):
            raise VerificationFailed(
                f"{seen} of the {len(ids)} pictures of {record.name} ({record.id}) that are measured on are learned from: "
                "give pictures that are in no training split",
                code="test_seen",
            )
        found = restated(other, dataset.categories, ids)
        if not len(found.labels):
            raise VerificationFailed(
                f"no object in the {len(ids)} pictures that {record.name} ({record.id}) is measured on has a category of "
                f"{', '.join(dataset.categories[:10])}: categories go by name",
                code="other_categories",
            )
        yield found


def measured_ids(dataset: Dataset) -> list[int]:
    """Of the test split, where there is none of validation."""
    for split in ("test", "val"):
        if ids := [image.id for image in dataset.images if image.split == split]:
            return ids
    return []


def measured(trained: Trained, other: Dataset, plan: Plan, attempt: Attempt) -> Evaluation:
    """What the trained detector is worth there."""
    return evaluated(
        trained.detector,
        other,
        [image.id for image in other.images],
        Pictures(),
        plan.image_size,
        threads=attempt.settings.decode_threads,
        check=attempt.check,
    )
