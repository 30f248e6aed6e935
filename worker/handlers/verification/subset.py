"""The subset of training images that a verification sees: drawn by the first job that needs it, read by all others."""

from datetime import UTC, datetime

from sqlalchemy import update

from app.db import tables
from worker.attempt import Attempt
from worker.data.dataset import Dataset
from worker.data.subsets import Subset, draw


def drawn(attempt: Attempt, subset_id: str, dataset: Dataset) -> Subset:
    """The stored subset, restricted to the images that exist. Raises Undrawable where the dataset allows no such subset."""
    row = _read(attempt, subset_id)
    if row.image_ids is None:
        found = draw(
            dataset,
            fraction=row.value if row.kind == "fraction" else None,
            shots=int(row.value) if row.kind == "shots" and row.value is not None else None,
            seed=row.seed,
            split=row.split,
        )
        with attempt.writing() as session:
            # the first to write decides, also where another version draws otherwise
            session.execute(
                update(tables.Subset)
                .where(tables.Subset.id == subset_id, tables.Subset.drawn_at.is_(None))
                .values(
                    images=len(found.image_ids),
                    image_ids=list(found.image_ids),
                    annotation_ids=None if found.annotation_ids is None else list(found.annotation_ids),
                    coverage=found.coverage,
                    drawn_at=datetime.now(UTC),
                )
            )
        row = _read(attempt, subset_id)
    kept = None if row.annotation_ids is None else tuple(row.annotation_ids)
    there = {image.id for image in dataset.images}
    ids = tuple(image_id for image_id in row.image_ids or () if image_id in there)
    return Subset(row.kind, row.value, row.seed, ids, kept, row.coverage or {})


def _read(attempt: Attempt, subset_id: str) -> tables.Subset:
    with attempt.database.reading() as session:
        return session.get_one(tables.Subset, subset_id)
