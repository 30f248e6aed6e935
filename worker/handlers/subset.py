"""The subset of training images that a verification sees: drawn by the first job that needs it, read by all others."""

from datetime import UTC, datetime

from sqlalchemy import update

from app.db import tables
from worker.data.dataset import Dataset
from worker.data.subsets import Subset, draw
from worker.step import Step


def drawn(step: Step, subset_id: str, dataset: Dataset) -> Subset:
    """The subset as it is kept. Raises Undrawable where the dataset has none like it."""
    row = _read(step, subset_id)
    if row.image_ids is None:
        found = draw(
            dataset,
            fraction=row.value if row.kind == "fraction" else None,
            shots=int(row.value) if row.kind == "shots" else None,
            seed=row.seed,
            split=row.split,
        )
        with step.writing() as session:
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
        row = _read(step, subset_id)
    kept = None if row.annotation_ids is None else tuple(row.annotation_ids)
    return Subset(row.kind, row.value, row.seed, tuple(row.image_ids), kept, row.coverage)


def _read(step: Step, subset_id: str) -> tables.Subset:
    with step.database.reading() as session:
        return session.get(tables.Subset, subset_id)
