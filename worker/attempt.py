"""What a running job may do: say where it is, hear whether to stop, write while the job is still its own.

A thread holds the lease and does all the talking with the database, so that the handler's thread never waits for it.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import Session

from app.db.engine import Database
from app.errors import TimeLimitExceeded
from app.queue import leases
from app.queue.kinds import KINDS
from app.queue.leases import Claim, ClaimedJob, LeaseLost
from app.queue.states import JobKind
from app.settings import Settings
from app.storage.blobs import BlobStore

__all__ = ["Attempt", "Cancelled", "ClaimedJob", "LeaseLost"]

TICK_S = 0.25
LOOK_S = 1.0
REPORT_S = 0.5
LONGEST_LOG = 2000
MOST_LOGS = 1000
EXIT_ABANDONED = 75  # sysexits.h EX_TEMPFAIL

# whose work is what somebody sent, or named to be fetched
INTAKE = (JobKind.INGEST, JobKind.INSPECT)

log = logging.getLogger(__name__)


class Cancelled(BaseException):
    """Somebody asked for the job to stop. Not an Exception: see LeaseLost."""


class Attempt:
    """One attempt at a job. A context manager: the lease is held inside it."""

    def __init__(
        self,
        claim: Claim,
        database: Database,
        settings: Settings,
        store: BlobStore,
        *,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self.job = claim.job
        self.database = database
        self.settings = settings
        self.store = store
        self.claim = claim
        self._limit_s: float = getattr(settings, KINDS[claim.job.kind].time_limit)
        self._leave = leave
        self._lock = threading.Lock()
        self._reporting = threading.Lock()
        self._done = threading.Event()
        self._lost = self._cancel = self._late = False
        self._stop_since: float | None = None
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._logs = 0
        self._progress: dict[str, Any] | None = None
        self._eta_from: tuple[tuple[int | None, str | None], float, int] | None = None
        self._started = self._beaten = self._reported = self._looked = time.monotonic()
        self._thread = threading.Thread(target=self._hold_lease, name=f"lease-{self.job.id}", daemon=True)

    def __enter__(self) -> "Attempt":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def stage(self, name: str) -> None:
        """Say which part of the work begins; raises like `check`."""
        self.check()
        with self._lock:
            self._events.append(("stage", {"stage": name}))
            self._eta_from = None

    def progress(
        self, done: int, total: int | None = None, unit: str | None = None, message: str | None = None
    ) -> None:
        """Say how much is done of how much; written at most twice a second, and never backwards. Raises like `check`."""
        self.check()
        with self._lock:
            self._progress = {
                "done": int(done),
                "total": None if total is None else int(total),
                "unit": unit,
                "message": message,
                "eta_s": self._eta(done, total, unit),
            }

    def counted(self, unit: str) -> Callable[[int, int | None, str | None], None]:
        """A `progress(done, total, message)` for libraries, counting in `unit`."""

        def progress(done: int, total: int | None, message: str | None = None) -> None:
            self.progress(done, total, unit, message)

        return progress

    def log(self, message: str, level: str = "info") -> None:
        """A line for whoever watches the job; the first MOST_LOGS of an attempt are kept."""
        log.log(
            logging.getLevelNamesMapping().get(level.upper(), logging.INFO), "%s: %s", self.job.id, message
        )
        with self._lock:
            self._logs += 1
            if self._logs <= MOST_LOGS:
                self._events.append(("log", {"level": level, "message": message[:LONGEST_LOG]}))

    def check(self) -> None:
        """Call between batches. Raises LeaseLost, Cancelled or TimeLimitExceeded when the work should stop; never waits."""
        if self._lost:
            raise LeaseLost(f"{self.job.id} is no longer ours")
        if self._cancel:
            raise Cancelled(self.job.id)
        if self._late:
            raise self._too_late()

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction in the middle of the job, with the job and its resource locked. Raises LeaseLost."""
        with self.database.unit_of_work() as session:
            leases.hold(session, self.claim)
            yield session

    def flush(self) -> None:
        """Write now what has not been written of stage, progress and log."""
        self._report()

    def release(self) -> None:
        """From another thread: hand the job back at once, because this process was told to stop."""
        self._lost = True
        try:
            with self.database.unit_of_work() as session:
                leases.release(session, self.claim)
        except LeaseLost:
            pass

    def _eta(self, done: int, total: int | None, unit: str | None) -> float | None:
        """Seconds left at the pace since this count began."""
        now = time.monotonic()
        if self._eta_from is None or self._eta_from[0] != (total, unit) or done < self._eta_from[2]:
            self._eta_from = ((total, unit), now, done)
        _, since, first = self._eta_from
        if total is None or done <= first:
            return None
        return round((total - done) * (now - since) / (done - first), 1)

    def _hold_lease(self) -> None:
        away = False
        # a short lease, as tests have, needs quicker ticks
        tick = min(TICK_S, self.claim.lease_s / 8)
        while not self._done.wait(tick):
            try:
                self._talk()
                away = False
            except (
                Exception
            ) as failure:  # the database may be away; the lease decides what that means, not this thread
                if not away:
                    log.warning("%s: cannot reach the database: %s", self.job.id, failure)
                away = True
            self._insist()

    def _talk(self) -> None:
        now = time.monotonic()
        if (self._events or self._progress) and now - self._reported >= REPORT_S:
            self._report()
        elif now - self._beaten >= self.claim.lease_s / 3:
            with self.database.unit_of_work() as session:
                beat = leases.beat(session, self.claim)
            self._beaten = now
            self._heed(beat)
        elif now - self._looked >= min(LOOK_S, self.claim.lease_s / 3):
            with self.database.reading() as session:
                look = leases.look(session, self.claim)
            self._looked = now
            self._heed(look)

    def _report(self) -> None:
        with self._reporting:
            with self._lock:
                told = leases.News(tuple(self._events), self._progress)
            if not told.events and told.progress is None:
                return
            now = time.monotonic()
            with self.database.unit_of_work() as session:
                beat = leases.report(session, self.claim, told)
            self._reported = self._beaten = now
            with self._lock:
                del self._events[: len(told.events)]
                if self._progress is told.progress:
                    self._progress = None
        self._heed(beat)

    def _heed(self, beat: leases.Beat) -> None:
        self._lost = self._lost or not beat.held
        self._cancel = self._cancel or beat.cancel

    def _insist(self) -> None:
        """A handler that does not stop when told to is ended with its process, and what it held with it."""
        now = time.monotonic()
        self._late = self._late or now - self._started > self._limit_s
        if not (self._lost or self._cancel or self._late):
            return
        self._stop_since = self._stop_since or now
        if now - self._stop_since < self.settings.stop_grace_s or self._done.is_set():
            return
        log.error("%s: did not stop within %g s; its process ends", self.job.id, self.settings.stop_grace_s)
        try:
            if not self._lost:
                self._end_without_handler()
        except (LeaseLost, Exception):
            log.exception("%s: could not be ended; its lease will lapse", self.job.id)
        self._leave(EXIT_ABANDONED)

    def _end_without_handler(self) -> None:
        with self.database.unit_of_work() as session:
            if self._cancel:
                leases.cancelled(session, self.claim)
            else:
                leases.fail(session, self.claim, self._too_late().to_dict())

    def _too_late(self) -> TimeLimitExceeded:
        setting = f"DETRANK_{KINDS[self.job.kind].time_limit.upper()}"
        less = "send less at once" if self.job.kind in INTAKE else "ask for less at once"
        return TimeLimitExceeded(f"it ran for more than {self._limit_s:g} s; {less}, or raise {setting}")
