"""What a training tells while it works: stage, progress and new points of its curves, on its row and in its stream."""

import logging
import time
from typing import Any, cast

from sqlalchemy.exc import DBAPIError

from app.db.tables import Job, Pretraining, PseudoLabelling, Verification
from app.queue import events
from worker.attempt import Attempt

TELL_S = 2.0

log = logging.getLogger(__name__)


class TrainingReport:
    """Gathers, and writes at most every TELL_S seconds. While the database is away the training goes on; it is told later."""

    def __init__(
        self,
        attempt: Attempt,
        row_id: str,
        table: type[Verification] | type[Pretraining] | type[PseudoLabelling] = Verification,
    ) -> None:
        self._step, self._id, self._table = attempt, row_id, table
        self._points: list[dict[str, Any]] = []
        self._stage: str | None = None
        self._told_at = 0.0
        self._news = False

    def stage(self, name: str) -> None:
        self._step.stage(name)
        self._stage, self._news = name, True
        self.tell()

    def progress(self, done: int, total: int | None, message: str) -> None:
        self._step.progress(done, total, "iterations", message)
        self._news = True
        if time.monotonic() - self._told_at >= TELL_S:
            self.tell()

    def point(self, point: dict[str, Any]) -> None:
        self._points.append(point)
        self._news = True

    def tell(self) -> None:
        """Writes what has not been told. Raises LeaseLost."""
        if not self._news:
            return
        self._told_at = time.monotonic()
        try:
            self._step.flush()
            with self._step.writing() as session:
                row = cast(
                    Verification | Pretraining | PseudoLabelling, session.get_one(self._table, self._id)
                )
                job = session.get_one(Job, self._step.job.id)
                if self._stage is not None and self._stage != row.stage:
                    row.stage = self._stage
                    events.append(session, row, "state", {"state": row.state, "stage": row.stage})
                for point in self._points:
                    events.append(session, row, "curve", point)
                row.progress = events.progress_of(job)
                events.append(session, row, "progress", row.progress)
        except DBAPIError as failure:
            log.warning("%s: cannot tell how far it is: %s", self._step.job.id, failure.orig)
            return
        self._points.clear()
        self._news = False
