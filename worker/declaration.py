"""What a worker declares of itself on its record: the parent its machine and queues, the pool's children what they hold."""

import logging
import os
import socket
import sys
import threading
from contextlib import suppress
from typing import Any

from sqlalchemy.orm import Session

from app.db.engine import Database, database_now
from app.db.tables import WorkerRecord
from worker import machine

log = logging.getLogger(__name__)


class Declaration:
    """In the parent: what `seen` writes. A GPU is asked about in the background; the rest is known at once."""

    def __init__(self, name: str, queues: list[str], *, device: str, concurrency: int | None) -> None:
        self.name = name
        self.queues = queues
        self._device = device
        self._details: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": int(name.rpartition(":")[2]),
            "concurrency": concurrency,
        }

    def start(self) -> None:
        """Find out about the machine; never waits."""
        threading.Thread(target=self._look, name="declaration", daemon=True).start()

    @property
    def details(self) -> dict[str, Any]:
        """What is known by now; main memory as it is now."""
        details = self._details
        return details | machine.memory() if details.get("device") == "cpu" else details

    def _look(self) -> None:
        try:
            self._details = self._details | machine.facts(self._device)
        except Exception:  # a worker that cannot describe itself can still work
            log.exception("could not find out about this machine")


def seen(session: Session, declaration: Declaration) -> None:
    """Note that a worker is alive, and what it is."""
    now = database_now(session)
    row = session.get(WorkerRecord, declaration.name, with_for_update=True, populate_existing=True)
    if row is None:
        row = WorkerRecord(
            name=declaration.name, queues=declaration.queues, details={}, started_at=now, seen_at=now
        )
        session.add(row)
    told = declaration.details
    if "models" in row.details and told.get("device") != "cpu":
        # what a child said of a GPU's memory is younger than what was found at the start
        told = {name: value for name, value in told.items() if name != "memory_free_bytes"}
    row.details = row.details | told
    row.seen_at = now


def tell_models(database: Database, worker: str) -> None:
    """In a pool's child after a job: which detectors it keeps, and how much memory its device has left. Never raises."""
    module = sys.modules.get("worker.models")
    if module is None:  # nothing was ever loaded here
        return
    try:
        own = [{"pid": os.getpid(), **model} for model in module.models().held()]
        free = _free_bytes()
        with database.unit_of_work() as session:
            row = session.get(WorkerRecord, worker, with_for_update=True)
            if row is None:
                return
            others = [
                model
                for model in row.details.get("models") or []
                if model["pid"] != os.getpid() and _is_alive(model["pid"])
            ]
            memory = {} if free is None else {"memory_free_bytes": free}
            row.details = row.details | {"models": own + others} | memory
    except Exception as failure:
        log.warning("could not tell which detectors are kept: %s: %s", type(failure).__name__, failure)


def _free_bytes() -> int | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return torch.cuda.mem_get_info()[0]


def _is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, 0)
        return True
    return False
