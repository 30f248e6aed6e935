"""What one process of a worker has: its settings, database and store, the job it works on, and how it is told to stop."""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache

from app import tracing
from app.db.engine import Database
from app.settings import Settings, get_settings
from app.storage.blobs import BlobStore, open_store
from worker.attempt import EXIT_ABANDONED, Attempt

# SIGUSR2: hand your job back. SIGTERM: hand it back and end. Celery uses neither for that in a pool's child.
HAND_BACK = signal.SIGUSR2
LEAVE_AFTER_S = 6.0

log = logging.getLogger(__name__)


@dataclass
class Process:
    """Made in the pool's child, once; a database connection must not be shared with the parent."""

    settings: Settings
    database: Database
    store: BlobStore
    name: str
    attempt: Attempt | None = None
    told_to_stop: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def working_on(self, attempt: Attempt) -> Iterator[None]:
        self.attempt = attempt
        try:
            if self.told_to_stop.is_set():
                attempt.release()
            yield
        finally:
            self.attempt = None

    def hand_back(self) -> None:
        """Put the job in hand back in the queue; from any thread, at any moment."""
        self.told_to_stop.set()
        attempt = self.attempt
        if attempt is not None:
            log.warning("%s goes back to the queue: this worker was told to stop", attempt.job.id)
            attempt.release()


@cache
def current() -> Process:
    """This process's own. Named after its parent, the worker, which can then tell which jobs died with a child."""
    settings = get_settings()
    tracing.configure(settings, "detrank-worker")
    return Process(
        settings, Database(settings.resolved_database_url), open_store(settings), worker_name(os.getppid())
    )


def worker_name(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}"


def ignore_hand_back() -> None:
    """In a pool's child that has not worked yet: there is nothing to hand back, and the signal's default is to kill."""
    signal.signal(HAND_BACK, signal.SIG_IGN)


@cache
def heed_signals() -> None:
    """In the pool's child: a thread acts on SIGUSR2 and SIGTERM at once, even while the main thread computes.

    To be called from the main thread with the first job: the pool resets the handlers of a child that it prepares.
    """
    ours, kernels = socket.socketpair()
    kernels.setblocking(False)
    for number in (HAND_BACK, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    # written by the interpreter's C handler, before any Python code could run
    signal.set_wakeup_fd(kernels.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_heed, args=(ours, kernels), name="signals", daemon=True).start()


def _heed(ours: socket.socket, kernels: socket.socket) -> None:
    with ours, kernels:
        while number := ours.recv(1):
            if number[0] == HAND_BACK:
                _hand_back()
                _later(_leave_if_still_working)
            elif number[0] == signal.SIGTERM:
                _hand_back()
                _leave()


def _later(action: Callable[[], None]) -> None:
    timer = threading.Timer(LEAVE_AFTER_S, action)
    timer.daemon = True  # or a process that is done would wait for it
    timer.start()


def _hand_back() -> None:
    try:
        current().hand_back()
    except Exception:
        log.exception("could not hand the job back; its lease will lapse")


def _leave_if_still_working() -> None:
    if current().attempt is not None:
        _leave()


def _leave() -> None:
    tracing.flush()
    os._exit(EXIT_ABANDONED)
