"""Has beliefs made anew, from a process that loads no science: it looks whether any stands on what has changed, and
starts one that computes (`python -m worker.beliefs`), which ends when nothing is left."""

import functools
import hashlib
import subprocess
import sys
from pathlib import Path

from app.db.engine import Database
from app.queue.beliefs import stale

LEARNED = Path(__file__).parent / "ranking" / "belief" / "learned.json"
STOPS_S = 5.0


@functools.cache
def shipped_mark() -> str:
    """Of what the service ships: a new version of it makes all beliefs anew."""
    return hashlib.sha256(LEARNED.read_bytes()).hexdigest()[:8]


class Renewal:
    """`look()` from time to time, `stop()` at the end. One process at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._process: subprocess.Popen[bytes] | None = None

    def look(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        with self._database.reading() as session:
            wanted = stale(session, shipped_mark(), 1)
        # it has the environment of this one, and so the same settings
        self._process = subprocess.Popen([sys.executable, "-m", "worker.beliefs"]) if wanted else None

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(STOPS_S)
