"""The thread beside every worker that puts right what others left: lapsed leases, expired rows, orphaned files.

Any number may sweep at once; each deed is one short transaction that asks again before it acts.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.db.engine import Database
from app.db.tables import Job, Outbox, WorkerRecord
from app.queue import leases
from app.queue.states import ACTIVE
from app.settings import Settings
from app.storage.blobs import BlobStore
from worker.belief_renewal import Renewal
from worker.declaration import Declaration, seen
from worker.tidy import tidy

TIDY_S = 900.0
UNHEARD_BELLS = 3
SHORTEST_SILENCE_S = 60.0

log = logging.getLogger(__name__)


class Sweeper:
    """`start()`, `stop()`; `wake` is called when jobs were queued again."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        store: BlobStore,
        declaration: Declaration,
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._settings = settings
        self._store = store
        self._declaration = declaration
        self._name, self._queues = declaration.name, declaration.queues
        self._wake = wake
        self._renewal = Renewal(database)
        self._dead: list[str] = []
        self._nudged = threading.Event()
        self._stopped = False
        self._trusting_from = float("-inf")
        self._heard = self._idle_since = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        self._declaration.start()
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        self._stopped = True
        self._nudged.set()
        self._thread.join(timeout_s)
        self._renewal.stop()
        with suppress(Exception), self._database.unit_of_work() as session:
            session.execute(delete(WorkerRecord).where(WorkerRecord.name == self._name))

    def child_died(self, job_id: str) -> None:
        """The process that worked on this job is dead; from any thread."""
        self._dead.append(job_id)
        self._nudged.set()

    def bell_heard(self) -> None:
        """A message arrived; from any thread."""
        self._heard = time.monotonic()

    def _run(self) -> None:
        tidied = float("-inf")
        while not self._stopped:
            try:
                self._sweep()
                if time.monotonic() - tidied > TIDY_S:
                    tidied = time.monotonic()
                    tidy(self._database, self._settings, self._store)
            except Exception as failure:  # whatever is wrong now, the next round may find it right
                log.warning("sweeping failed: %s: %s", type(failure).__name__, failure)
                # While the database was away nobody could beat: let everybody do so before calling them silent.
                self._trusting_from = time.monotonic() + self._settings.lease_s
            self._nudged.wait(self._settings.sweep_s)
            self._nudged.clear()

    def _sweep(self) -> None:
        put_back = []
        while self._dead:
            with self._database.unit_of_work() as session:
                if leases.lost(session, self._dead[0], self._name):
                    put_back.append(self._dead[0])
            self._dead.pop(0)
        if time.monotonic() >= self._trusting_from:
            put_back += leases.requeue_lapsed(self._database)
        if put_back:
            log.warning("put back because their workers fell silent: %s", ", ".join(put_back))
            self._wake()
        self._renewal.look()
        with self._database.unit_of_work() as session:
            seen(session, self._declaration)
        self._watch_consumer()

    def _watch_consumer(self) -> None:
        """End this worker when it is idle and hears none of the bells that the broker takes.

        Consumers have fallen silent after a reconnection before (celery#8030, #8091, #10205); who keeps workers alive
        starts a new one.
        """
        with self._database.reading() as session:
            deaf = unheard(session, self._name, self._queues)
        now = time.monotonic()
        if not deaf:
            self._idle_since = now
        silence_s = now - max(self._heard, self._idle_since)
        if silence_s > max(SHORTEST_SILENCE_S, self._settings.bell_s * 2.0**UNHEARD_BELLS):
            log.critical(
                "no message for %.0f s though jobs are announced: this worker ends to start anew", silence_s
            )
            self._idle_since = now
            os.kill(os.getpid(), signal.SIGTERM)


def unheard(session: Session, name: str, queues: list[str]) -> bool:
    """Whether a job waits on these queues, announced UNHEARD_BELLS times in vain, while the worker has none in hand."""
    busy = select(Job.id).where(Job.worker == name, Job.state.in_([state.value for state in ACTIVE]))
    waiting = (
        select(Outbox.id)
        .join(Job, Job.id == Outbox.job_id)
        .where(Outbox.rings >= UNHEARD_BELLS, Job.queue.in_(queues))
    )
    return session.scalar(busy.limit(1)) is None and session.scalar(waiting.limit(1)) is not None
