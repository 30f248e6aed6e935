"""Keeps a worker process alive beside the API, and ends it with the API."""

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable

LOOK_S = 0.1
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
HEALTHY_AFTER_S = 60.0
STOP_TIMEOUT_S = 20.0

log = logging.getLogger("detrank.supervisor")


class Supervisor:
    """Runs a command in a process group of its own, and again whenever it ends, waiting longer each time.

    It is started when `wanted` first says so, and then kept; asked every LOOK_S, from a thread.
    The child's standard input is a pipe that nobody writes to: when this process dies in whatever way, the
    child reads its end and stops too.
    """

    def __init__(self, command: list[str], wanted: Callable[[], bool] = lambda: True) -> None:
        self._command = command
        self._wanted = wanted
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self.starts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """SIGTERM, so that the worker can hand back its job; after the time limit SIGKILL for the whole group."""
        self._stopping.set()
        with self._lock:
            process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                log.warning(
                    "the worker did not stop within %g s and is killed; its job goes back to the queue",
                    timeout_s,
                )
            _kill_group(process)
        self._thread.join()

    def _run(self) -> None:
        while not self._is_wanted():
            if self._stopping.wait(LOOK_S):
                return
        pause = FIRST_PAUSE_S
        while True:
            with self._lock:
                if self._stopping.is_set():
                    return
                self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, start_new_session=True)
                self.starts += 1
            began = time.monotonic()
            code = self._process.wait()
            # pool children of a killed worker would go on computing for nobody
            _kill_group(self._process)
            if self._stopping.is_set():
                return
            if time.monotonic() - began > HEALTHY_AFTER_S:
                pause = FIRST_PAUSE_S
            log.error("the worker ended with %s; starting it again in %g s", code, pause)
            self._stopping.wait(pause)
            pause = min(LONGEST_PAUSE_S, pause * 2)

    def _is_wanted(self) -> bool:
        try:
            return self._wanted()
        except Exception:
            log.exception("cannot tell whether a worker is wanted; it is started")
            return True


def stop_when_stdin_closes() -> None:
    """Ends this process, by SIGTERM, when whoever started it is gone."""
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
