"""A training's state in storage: copied there while training goes on, so that another attempt, on any host, goes on from it."""

import json
import logging
import os
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import cast

from sqlalchemy.exc import IntegrityError

from app.db.engine import Database
from app.db.tables import Blob, Pretraining, PseudoLabelling, Verification
from app.errors import DetrankError, NotFound
from app.queue import leases
from app.storage.archives import pack, unpack
from app.storage.blobs import BlobStore
from app.storage.remember import remember_blob
from worker.attempt import Attempt
from worker.files import OUR_OWN
from worker.training.state import STATE_FILE

WHOSE = "verification.txt"

log = logging.getLogger(__name__)


class StateKeeper:
    """Copies the state in `folder` at most every `every_s` seconds, beside the training. A context manager.

    The training writes its files by rename, so links to them are a copy of one moment that costs nothing.
    """

    def __init__(
        self,
        attempt: Attempt,
        row_id: str,
        folder: Path,
        beside: Path,
        table: type[Verification] | type[Pretraining] | type[PseudoLabelling] = Verification,
    ) -> None:
        self._step, self._id, self._folder, self._beside = attempt, row_id, folder, beside
        self._table = table
        self._every_s = attempt.settings.training_state_s
        self._copied_at = time.monotonic()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._running: Future[None] | None = None

    def __enter__(self) -> "StateKeeper":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True)

    def saved(self, iteration: int) -> None:
        """A state was written: copy it, unless the last copy is young or still on its way."""
        busy = self._running is not None and not self._running.done()
        if busy or time.monotonic() - self._copied_at < self._every_s:
            return
        snapshot = self._beside / f"state-{iteration}"
        try:
            iteration = self._link(snapshot)
        except FileNotFoundError:  # other processes write it, and were quicker: the next one then
            shutil.rmtree(snapshot, ignore_errors=True)
            return
        self._copied_at = time.monotonic()
        self._running = self._pool.submit(self._copy_if_possible, snapshot, iteration)

    def keep_last(self, iteration: int) -> None:
        """Copies what is in the folder now and waits for it. Raises what stands in the way."""
        if self._running is not None:
            self._running.result()
        snapshot = self._beside / f"state-{iteration}-last"
        self._copy(snapshot, self._link(snapshot))

    def _link(self, into: Path) -> int:
        """The state of one moment, by links: its first file names the others. Returns its iteration."""
        into.mkdir()
        os.link(self._folder / STATE_FILE, into / STATE_FILE)
        content = json.loads((into / STATE_FILE).read_text(encoding="utf-8"))
        for name in content["files"].values():
            os.link(self._folder / name, into / name)
        # no two trainings share a blob, so an old state can go at once
        (into / WHOSE).write_text(self._id, encoding="utf-8")
        return content["position"]["iteration"]

    def _copy_if_possible(self, snapshot: Path, iteration: int) -> None:
        try:
            self._copy(snapshot, iteration)
        except leases.LeaseLost:
            return  # the training hears of it by itself
        except Exception as failure:  # the next copy may succeed; until then more would have to be done again
            self._step.log(f"the state at iteration {iteration} could not be kept: {failure}", "warning")

    def _copy(self, snapshot: Path, iteration: int) -> None:
        archive = snapshot.with_suffix(".zip")
        try:
            pack(snapshot, archive)
            stored = self._step.store.put_file(archive)
        finally:
            shutil.rmtree(snapshot, ignore_errors=True)
            archive.unlink(missing_ok=True)
        with self._step.writing() as session:
            row = cast(Verification | Pretraining | PseudoLabelling, session.get_one(self._table, self._id))
            before = row.state_sha256
            row.state_sha256 = remember_blob(session, stored, "application/zip")
            row.state_iteration = iteration
            leases.headway(session, self._step.claim)
        if before is not None and before != stored.sha256:
            let_go(self._step.database, self._step.store, before)


def restore(attempt: Attempt, row: Verification | Pretraining | PseudoLabelling, folder: Path) -> bool:
    """Puts the state that is kept into `folder`; False where there is none (any more)."""
    if row.state_sha256 is None:
        return False
    try:
        unpack(attempt.store.local_path(row.state_sha256), folder, OUR_OWN, attempt.check)
    except (NotFound, DetrankError) as failure:
        if failure.retryable:
            raise
        attempt.log(f"the kept state cannot be read, training begins anew: {failure}", "warning")
        shutil.rmtree(folder, ignore_errors=True)
        return False
    return True


def let_go(database: Database, store: BlobStore, sha256: str) -> None:
    """Removes a state that no training refers to any more."""
    try:
        with database.unit_of_work() as session:
            row = session.get(Blob, sha256, with_for_update=True)
            if row is not None:
                session.delete(row)
                session.flush()
            store.delete(sha256)
    except IntegrityError:  # somebody does
        return
    except Exception as failure:  # it becomes an orphan, which is tidied later
        log.warning("an old training state could not be removed: %s", failure)
