"""Job `pseudo_label`: asked when its parts have ended; it adds the job that makes the dataset, and says what all of it cost."""

from collections.abc import Callable

from sqlalchemy.orm import Session

from app.db import tables
from app.queue import tree
from app.queue.states import JobKind
from worker.attempt import Attempt, ClaimedJob
from worker.handlers.parts import parts_of, worked_s
from worker.handlers.pseudo_labelling.inputs import row_of


def run(attempt: Attempt, job: ClaimedJob) -> Callable[[Session], None]:
    """Returns the write of the next part, or of the result. Raises NotFound."""
    attempt.check()

    def finish(session: Session) -> None:
        row = row_of(session, job)
        own = session.get_one(tables.Job, job.id)
        if not parts_of(session, job.id, JobKind.TEACH):
            tree.add(session, JobKind.TEACH, row.id, workspace_id=row.workspace_id, parent=own)
            return
        cost = {
            "looking_s": worked_s(session, job.id, JobKind.LOOK),
            "teaching_s": worked_s(session, job.id, JobKind.TEACH),
        }
        row.result = {**(row.result or {}), "cost": cost}

    return finish
