"""The service on one machine: where a running one is found, and how one is started for a while.

A running service holds a lock on `service.lock` in its data folder for as long as it lives and says in
`service.json` where it listens, so that a file left behind by a crash is recognised as such.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0


class StartFailed(Exception):
    """The service did not come up; the message has its last words and where the rest is."""


class AlreadyRunning(Exception):
    """Another service works on this data folder."""


def find(home: Path) -> str | None:
    """The URL of the service that runs on this data folder, or None."""
    if not _is_locked(home):
        return None
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads((home / "service.json").read_text())["url"])
    return None


@contextlib.contextmanager
def announced(home: Path) -> Iterator[IO[str]]:
    """Holds the data folder for this process; `announce` then says where it listens. Raises AlreadyRunning."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "service.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as taken:
            where = find(home) or "its address is not known yet"
            raise AlreadyRunning(
                f"a detrank service already runs on {home} ({where}); use it, stop it, or choose another --data-dir"
            ) from taken
        try:
            yield lock
        finally:
            (home / "service.json").unlink(missing_ok=True)


def announce(home: Path, url: str) -> None:
    """Writes service.json, whole or not at all."""
    document = {"url": url, "pid": os.getpid(), "started_at": datetime.now(UTC).isoformat()}
    beside = home / "service.json.new"
    beside.write_text(json.dumps(document))
    beside.replace(home / "service.json")


@contextlib.contextmanager
def started(home: Path) -> Iterator[str]:
    """Starts a service with its worker on a free port of this machine, yields its URL, stops it afterwards.

    It also stops when this process dies without saying goodbye. Raises StartFailed.
    """
    home.mkdir(parents=True, exist_ok=True)
    log = home / "service.log"
    command = [sys.executable, "-m", "app.cli", "--data-dir", str(home), "serve", "--port", "0", "--while-stdin"]
    with log.open("ab") as out:
        begin = out.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield _listening(process, home, log, begin)
    finally:
        stop(process, STOP_TIMEOUT_S)


def stop(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Asks the process to end; past the time limit, and for whatever it leaves behind, does not ask."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout_s)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _listening(process: subprocess.Popen[bytes], home: Path, log: Path, begin: int) -> str:
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise StartFailed(f"the embedded service ended at once ({process.returncode}):\n{_tail(log, begin)}\n(all of it: {log})")
        if url := find(home):
            return url
        time.sleep(0.05)
    raise StartFailed(f"the embedded service did not listen within {START_TIMEOUT_S:g} s; see {log}")


def _tail(log: Path, begin: int) -> str:
    with log.open("rb") as stream:
        stream.seek(begin)
        return "\n".join(stream.read().decode(errors="replace").splitlines()[-8:])


def _is_locked(home: Path) -> bool:
    try:
        lock = (home / "service.lock").open("r")
    except OSError:
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
