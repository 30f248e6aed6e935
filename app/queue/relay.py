"""The thread that rings the outbox's bells, in the API and in every worker's parent process. Any number may run."""

import logging
import threading

from app.db.engine import Database
from app.errors import Unavailable
from app.queue.outbox import Ringer, relay_once, ring_anew

LIMIT = 100
LONGEST_WAIT_S = 10.0

log = logging.getLogger(__name__)


class Relay:
    """`start()`, `wake()` after a commit that added jobs, `stop()`. The only one who ever waits for the broker."""

    def __init__(
        self, database: Database, broker: Ringer, *, relay_s: float = 0.5, bell_s: float = 30.0
    ) -> None:
        self._database = database
        self._broker = broker
        self._relay_s = relay_s
        self._bell_s = bell_s
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self.last_error: str | None = None

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There may be bells to ring now. Never blocks."""
        self._woken.set()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ask the thread to end and wait a moment; what it has not rung, another relay will."""
        self._stopped.set()
        self._woken.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            if not self._relay():
                failures += 1
            elif failures:
                failures = 0 if self._ring_anew() else failures
            pause = min(LONGEST_WAIT_S, self._relay_s * 2.0**failures)
            # A dead broker is left alone for the whole pause, however many jobs are added meanwhile.
            (self._stopped if failures else self._woken).wait(pause)
            self._woken.clear()

    def _relay(self) -> bool:
        try:
            while relay_once(self._database, self._broker, limit=LIMIT, bell_s=self._bell_s) == LIMIT:
                if self._stopped.is_set():
                    break
        except Unavailable as failure:
            self._note(failure.detail)
            return False
        except Exception as failure:  # the database may be away, too; this thread must outlive it
            self._note(f"{type(failure).__name__}: {failure}")
            return False
        self.last_error = None
        return True

    def _ring_anew(self) -> bool:
        """The broker answers again, and may have forgotten what it was told before."""
        try:
            ring_anew(self._database)
        except Exception as failure:
            self._note(f"{type(failure).__name__}: {failure}")
            return False
        self._woken.set()
        return True

    def _note(self, error: str) -> None:
        if error != self.last_error:
            log.warning("bells wait in the outbox: %s", error)
        self.last_error = error
