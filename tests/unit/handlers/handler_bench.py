"""Records, storage and one attempt at a job, as a worker makes it, without processes and brokers."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from sqlalchemy.orm import Session

from app.db.engine import Database
from app.db.tables import Base, Checkpoint, Dataset, Job, Workspace
from app.queue import leases, tree
from app.queue.states import JobKind
from app.settings import Settings
from app.storage.blobs import BlobStore, open_store
from app.storage.remember import remember_blob
from worker.attempt import Attempt
from worker.tasks import work_on


class Bench:
    """One workspace with everything a handler needs."""

    def __init__(self, folder: Path, database_url: str, **settings: Any) -> None:
        defaults = {
            "data_dir": folder / "home",
            "database_url": database_url,
            "min_free_disk_bytes": 0,
            "device": "cpu",
        }
        self.settings = Settings(**(defaults | settings))
        self.database = Database(database_url)
        Base.metadata.create_all(self.database.engine)
        self.store: BlobStore = open_store(self.settings)
        self.now = datetime.now(UTC)
        with self.database.unit_of_work() as session:
            session.merge(Workspace(id="ws_1", name="test", created_at=self.now))

    def add(self, make: Callable[[Session], Any]) -> Any:
        with self.database.unit_of_work() as session:
            return make(session)

    def dataset(
        self,
        content: bytes | None = None,
        *,
        path: Path | None = None,
        stays_at: str | None = None,
        **request: Any,
    ) -> str:
        """A dataset in state processing with its job; the job's id."""

        def make(session: Session) -> str:
            row = Dataset(
                id=f"ds_{self.count(session, Dataset)}",
                workspace_id="ws_1",
                name="set",
                state="processing",
                request=request,
                source_path=str(path) if path else None,
                stays_at=stays_at,
                created_at=self.now,
                updated_at=self.now,
            )
            if content is not None:
                row.source_sha256 = self.blob(session, content)
            return self._with_job(session, row, JobKind.INGEST)

        return self.add(make)

    def checkpoint(self, content: bytes | None = None, **request: Any) -> str:
        """A checkpoint in state processing with its job; the job's id."""

        def make(session: Session) -> str:
            row = Checkpoint(
                id=f"ckpt_{self.count(session, Checkpoint)}",
                workspace_id="ws_1",
                name="weights",
                state="processing",
                request=request,
                created_at=self.now,
                updated_at=self.now,
            )
            if content is not None:
                row.source_sha256 = self.blob(session, content)
            return self._with_job(session, row, JobKind.INSPECT)

        return self.add(make)

    def blob(self, session: Session, content: bytes) -> str:
        with self.store.writer() as writer:
            writer.write(content)
            return remember_blob(session, writer.commit(), "application/octet-stream")

    def count(self, session: Session, table: type) -> int:
        return session.query(table).count() + 1

    def _with_job(self, session: Session, row: Any, kind: JobKind) -> str:
        session.add(row)
        session.flush()
        job = tree.add(session, kind, row.id, workspace_id="ws_1")
        row.job_id = job.id
        return job.id

    def work(self, job_id: str) -> Job:
        """One attempt; the job afterwards."""
        with self.database.unit_of_work() as session:
            claim = leases.claim(session, job_id, "test", lease_s=60)
        assert claim is not None
        with Attempt(claim, self.database, self.settings, self.store) as attempt:
            work_on(attempt, claim)
        return self.get(Job, job_id)

    def get(self, table: type, key: Any) -> Any:
        with self.database.reading() as session:
            return session.get(table, key)

    def left_behind(self) -> list[Path]:
        """Files that no job should leave."""
        return [path for path in self.settings.scratch_dir.rglob("*") if path.is_file()]


def picture(folder: Path, name: str, size: tuple[int, int] = (64, 48), seed: int = 0) -> Path:
    """Noise: every seed is another picture."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path)
    return path
