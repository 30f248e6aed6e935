"""What the jobs of a pretraining read."""

from sqlalchemy.orm import Session

from app.db import tables
from app.errors import NotFound
from worker.attempt import ClaimedJob

LESS_MEMORY = "a smaller image_size or fewer proposals would"


def row_of(session: Session, job: ClaimedJob) -> tables.Pretraining:
    """Raises NotFound."""
    row = session.get(tables.Pretraining, job.resource_id)
    if row is None:
        raise NotFound(f"the pretraining {job.resource_id} is gone")
    return row
