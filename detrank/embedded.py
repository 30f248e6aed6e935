"""A service of one's own on this machine: found where it runs on a data folder, started where none does.

A running service holds a lock on `service.lock` in its data folder for as long as it lives and says in
`service.json` where it listens, so that a file left behind by a crash is recognised as such.
"""

import atexit
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from detrank.errors import StartFailed, Unreachable

try:
    import fcntl
except ImportError:  # on Windows, where a service elsewhere can be used and none of one's own
    fcntl = None  # type: ignore[assignment]

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0


class Address:
    """Where the service is: as told, as DETRANK_URL says, or on this machine, started when it is first needed."""

    def __init__(self, url: str | None = None) -> None:
        self._url = url.rstrip("/") if url else None
        self._lock = threading.Lock()
        self._started = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """Raises Unreachable where nothing says which service, StartFailed where none of one's own can be had."""
        with self._lock:
            if self._url is None:
                self._url = (os.environ.get("DETRANK_URL") or self._own()).rstrip("/")
            return self._url

    def release(self) -> None:
        """Stops the service, where it was started for this."""
        with self._lock:
            self._started.close()
        atexit.unregister(self.release)

    def _own(self) -> str:
        for name in ("DETRANK_DATABASE_URL", "DETRANK_BROKER_URL"):
            if os.environ.get(name):
                raise Unreachable(
                    f"{name} names a server; say in DETRANK_URL where the service listens that uses it"
                )
        home = Path(os.environ.get("DETRANK_DATA_DIR") or "~/.detrank").expanduser().absolute()
        if url := find(home):
            return url
        atexit.register(self.release)
        return self._started.enter_context(started(home))


def find(home: Path) -> str | None:
    """The URL of the service that runs on this data folder, or None."""
    if not _is_locked(home):
        return None
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads((home / "service.json").read_text())["url"])
    return None


@contextlib.contextmanager
def started(home: Path, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Starts a service with its worker on a free port of this machine, yields its URL, stops it afterwards.

    settings: variables that it has beside this process's own. It also stops when this process dies without saying goodbye.
    Raises StartFailed.
    """
    if fcntl is None or importlib.util.find_spec("sqlalchemy") is None:
        raise StartFailed(
            "only the client is installed here, not the service: set DETRANK_URL to one that runs elsewhere, or "
            "install all of detrank"
        )
    home.mkdir(parents=True, exist_ok=True)
    log = home / "service.log"
    # -P: not the folder that this process stands in, whose own app/ would hide ours
    command = [
        sys.executable,
        "-P",
        "-m",
        "app.cli",
        "--data-dir",
        str(home),
        "serve",
        "--port",
        "0",
        "--while-stdin",
    ]
    with log.open("ab") as out:
        begin = out.tell()
        process = subprocess.Popen(
            command,
            env={**os.environ, **(settings or {})},
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield _listening(process, home, log, begin)
    finally:
        stop(process, STOP_TIMEOUT_S)


def stop(process: "subprocess.Popen[bytes]", timeout_s: float) -> None:
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


def _listening(process: "subprocess.Popen[bytes]", home: Path, log: Path, begin: int) -> str:
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise StartFailed(
                f"the embedded service ended at once ({process.returncode}):\n{_tail(log, begin)}\n(all of it: {log})"
            )
        if url := find(home):
            return url
        time.sleep(0.05)
    raise StartFailed(f"the embedded service did not listen within {START_TIMEOUT_S:g} s; see {log}")


def _tail(log: Path, begin: int) -> str:
    with log.open("rb") as stream:
        stream.seek(begin)
        return "\n".join(stream.read().decode(errors="replace").splitlines()[-8:])


def _is_locked(home: Path) -> bool:
    if fcntl is None:
        return False
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
