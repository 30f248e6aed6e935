"""Job `pretrain`: asked when its parts have ended; it adds the training, or the rounds of a self-training, then the comparison, and
concludes."""

from collections.abc import Callable

from sqlalchemy.orm import Session

from app.db import tables
from app.queue import tree
from app.queue.states import JobKind
from worker.attempt import Attempt, ClaimedJob
from worker.handlers.parts import parts_of, worked_s
from worker.handlers.pretraining import self_training
from worker.handlers.pretraining.comparison import (
    add_fine_tunings,
    add_students,
    compared,
    fine_tunings,
    is_self_training,
)
from worker.handlers.pretraining.inputs import row_of


def run(attempt: Attempt, job: ClaimedJob) -> Callable[[Session], None]:
    """Returns the write of the next parts, or of the result. Raises NotFound, PretrainingFailed."""
    attempt.check()
    with attempt.database.reading() as session:
        if is_self_training(row := row_of(session, job)):
            self_training.refuse_broken(session, row, job.id)

    def finish(session: Session) -> None:
        row = row_of(session, job)
        own = session.get_one(tables.Job, job.id)
        if _trains_on(session, row, own):
            return
        if row.request["compare"] is not None:
            if not fine_tunings(session, job.id):
                add_fine_tunings(session, row, own)
                return
            if add_students(session, row, own):
                return
        _conclude(session, row, job.id)

    return finish


def _trains_on(session: Session, row: tables.Pretraining, job: tables.Job) -> bool:
    """Adds what is still to be trained; False where that is done, and its result is on the row."""
    if is_self_training(row):
        if self_training.add_round(session, row, job):
            return True
        if not self_training.is_taken_over(row):
            self_training.take_over(session, row, job.id)
        return False
    if parts_of(session, job.id, JobKind.LEARN):
        return False
    tree.add(session, JobKind.LEARN, row.id, workspace_id=row.workspace_id, parent=job)
    return True


def _conclude(session: Session, row: tables.Pretraining, job_id: str) -> None:
    verifying = worked_s(session, job_id, JobKind.VERIFY)
    students = self_training.seconds_of_rounds(session, job_id)
    row.result = (row.result or {}) | {
        "cost": {
            "proposing_s": worked_s(session, job_id, JobKind.PROPOSE),
            "training_s": round(worked_s(session, job_id, JobKind.LEARN) + students, 1),
            "comparing_s": round(verifying - students, 1),
        },
        "comparison": None if row.request["compare"] is None else compared(session, row, job_id),
    }
