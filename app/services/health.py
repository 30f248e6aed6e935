"""Whether each part that the service needs works now: database, schema, disk, storage, broker, workers."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select, text

from app.db.engine import Database, database_now
from app.db.migrate import is_current
from app.db.tables import Job, Outbox, WorkerRecord
from app.errors import DetrankError
from app.queue.broker import look_at_broker
from app.settings import Settings
from app.storage.blobs import BlobStore

FRESH_S = 5.0
PATIENCE_S = 4.0
OK = "ok"
# an embedded worker is started by the first ring for its queue, and takes seconds
UNHEARD_RINGS = 2
# without them requests cannot be answered; without the others work waits
NEEDED = ("database", "schema", "disk", "storage")


@dataclass(frozen=True)
class Looks:
    """`checks`: each part by its name, `ok` or what is wrong with it, in words."""

    checks: dict[str, str]

    @property
    def status(self) -> str:
        """`unavailable` where a part is broken that requests need, `degraded` where work waits, or `ok`."""
        wrong = [name for name, said in self.checks.items() if said != OK]
        if any(name in NEEDED for name in wrong):
            return "unavailable"
        return "degraded" if wrong else OK


class Health:
    """Looks at every part, at most every FRESH_S seconds however often it is asked; threads may share it.

    A part that takes longer than PATIENCE_S counts as silent; its look goes on in the background, and no second one begins.

    in_full: also with what its library says, which may name hosts and users: not for strangers.
    """

    def __init__(
        self, settings: Settings, database: Database, store: BlobStore, *, in_full: bool = False
    ) -> None:
        self._in_full = in_full
        self._looking: dict[str, Callable[[], str]] = {
            "database": lambda: _database(database),
            "schema": lambda: _schema(settings),
            "disk": lambda: _disk(settings),
            "storage": lambda: _storage(store),
            "broker": lambda: _broker(settings),
            "workers": lambda: _workers(database, settings),
        }
        self._pool = ThreadPoolExecutor(len(self._looking), thread_name_prefix="health")
        self._lock = threading.Lock()
        self._found: Looks | None = None
        self._at = 0.0

    def looks(self) -> Looks:
        with self._lock:
            if self._found is None or time.monotonic() - self._at > FRESH_S:
                self._found, self._at = self._look(), time.monotonic()
            return self._found

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _look(self) -> Looks:
        until = time.monotonic() + PATIENCE_S
        running = {name: self._pool.submit(look) for name, look in self._looking.items()}
        checks = {}
        for name, future in running.items():
            try:
                checks[name] = future.result(max(0.0, until - time.monotonic()))
            except TooSlow:
                future.cancel()
                checks[name] = f"does not answer within {PATIENCE_S:g} s"
            except DetrankError as failure:
                checks[name] = failure.detail
            except Exception as failure:  # each client library has errors of its own
                checks[name] = f"does not answer: {type(failure).__name__}" + (
                    _first_line(failure) if self._in_full else ""
                )
        return Looks(checks)


def _first_line(failure: Exception) -> str:
    """What the library said, without the statement that met it."""
    lines = str(getattr(failure, "orig", None) or failure).strip().splitlines()
    return f": {lines[0]}" if lines else ""


def _database(database: Database) -> str:
    with database.reading() as session:
        session.execute(text("SELECT 1"))
    return OK


def _schema(settings: Settings) -> str:
    return OK if is_current(settings.resolved_database_url) else "of another version: run `detrank migrate`"


def _disk(settings: Settings) -> str:
    free = shutil.disk_usage(settings.home).free
    if free < settings.min_free_disk_bytes:
        return f"{free:,} bytes free, fewer than the {settings.min_free_disk_bytes:,} that must be (DETRANK_MIN_FREE_DISK_BYTES)"
    return OK if _may_write(settings.home) else f"{settings.home.name} cannot be written to"


def _storage(store: BlobStore) -> str:
    store.look()
    return OK


def _broker(settings: Settings) -> str:
    look_at_broker(settings)
    return OK


def _workers(database: Database, settings: Settings) -> str:
    with database.reading() as session:
        since = database_now(session) - timedelta(seconds=settings.lease_s)
        alive = session.scalars(select(WorkerRecord.queues).where(WorkerRecord.seen_at >= since)).all()
        if not alive:
            return f"none was heard of for {settings.lease_s:g} s: start one with `detrank worker`"
        served = {queue for queues in alive for queue in queues}
        unheard = select(Job.queue).join(Outbox, Outbox.job_id == Job.id).where(Outbox.rings >= UNHEARD_RINGS)
        unserved = set(session.scalars(unheard.distinct())) - served
    if unserved:
        names = ",".join(sorted(unserved))
        return f"none serves {names} where jobs wait: start one with `detrank worker --queues {names}`"
    return OK


def _may_write(folder: Path) -> bool:
    return os.access(folder, os.W_OK)
