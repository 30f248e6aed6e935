"""How a service on one machine says where it listens; `detrank/embedded.py` finds it by that."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from detrank.embedded import find


class AlreadyRunning(Exception):
    """Another service works on this data folder."""


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
