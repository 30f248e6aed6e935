"""The service behind a real socket, and what tests need to move its jobs without a worker."""

import contextlib
import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from sqlalchemy.orm import Session

from app.db.engine import Database
from app.db.tables import Candidate, Checkpoint, Dataset, Job, Ranking, Score
from app.main import create_app
from app.queue import events, leases, ranking_verifications
from app.services import workspaces
from app.settings import Settings
from app.storage.blobs import BlobStore
from app.storage.remember import remember_blob

Record = dict[str, Any]


@dataclass(frozen=True)
class Running:
    """A service that listens at `url`."""

    url: str
    settings: Settings
    database: Database
    store: BlobStore


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[Running]:
    """Serves until the block ends."""
    app = create_app(settings)
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1, lifespan="on")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 120  # of a machine that does other things too
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        assert time.monotonic() < until, "the service did not start in time"
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    parts = app.state.parts
    try:
        yield Running(f"http://127.0.0.1:{port}", settings, parts.database, parts.store)
    finally:
        server.should_exit = True
        thread.join(10)


@dataclass(frozen=True)
class Workspace:
    """A workspace of its own in a running service, with a client that has its key."""

    service: Running
    id: str
    key: str
    http: httpx.Client

    def dataset(self, *, ready: bool = True, **fields: Any) -> str:
        """A dataset with boxes; the id."""
        made = self.http.post("/v1/datasets", content=small_zip(), params=fields).raise_for_status().json()
        if ready:
            self.finish(made["job_id"], lambda session: self._fill_dataset(session, made["id"]))
        return made["id"]

    def checkpoint(self, *, ready: bool = True, parameters: int = 1000, **fields: Any) -> str:
        """A checkpoint; the id."""
        made = self.http.post("/v1/checkpoints", content=b"weights", params=fields).raise_for_status().json()

        def fill(session: Session) -> None:
            row = session.get(Checkpoint, made["id"])
            row.kind, row.architecture, row.format = (
                "detector",
                "torchvision/fasterrcnn_resnet50_fpn",
                "torchvision",
            )
            row.parameters, row.manifest = parameters, {"layers": []}
            row.weights_sha256 = self.keep(session, b"safe " + made["id"].encode())

        if ready:
            self.finish(made["job_id"], fill)
        return made["id"]

    def ranking(self, checkpoints: int = 2, **fields: Any) -> Record:
        """A new ranking of ready things, as POST answers it."""
        ids = [self.checkpoint(name=f"candidate {n}", parameters=1000 * (n + 1)) for n in range(checkpoints)]
        body = {"dataset_id": self.dataset(), "checkpoint_ids": ids} | fields
        return self.http.post("/v1/rankings", json=body).raise_for_status().json()

    def score(self, ranking: Record, checkpoint_id: str, value: float | None, **cost: Any) -> None:
        """Ends the candidate's job as a worker would, with one score."""

        def write(session: Session) -> None:
            key = {"ranking_id": ranking["id"], "checkpoint_id": checkpoint_id}
            undefined = None if value is not None else "only one category"
            sure = (
                {
                    "null": {"mean": 0.5, "std": 0.1, "permutations": 20},
                    "z": 15.0,
                    "interval": [value - 0.2, value + 0.2],
                }
                if value
                else {}
            )
            zero = (
                {"zero_point": value - 0.25, "gain": 0.25, "gain_interval": [0.125, 0.375]} if value else {}
            )
            details = {"notes": [], "objects": 12} | sure | zero
            session.add(
                Score(
                    **key,
                    metric="logme",
                    layer="backbone.c4",
                    level="local",
                    value=value,
                    undefined=undefined,
                    seconds=0.5,
                    details=details,
                    replicates=b"01234567" * 20 if sure else None,
                )
            )
            candidate = session.get(Candidate, (ranking["id"], checkpoint_id))
            candidate.cost = {
                "parameters": 1000,
                "ms_per_image": 5.0,
                "peak_memory_bytes": 10_000,
                "device": "cpu",
            } | cost
            candidate.timings, candidate.warnings = {"total": 1.5}, ["read at another layer"]
            events.append(
                session,
                session.get(Ranking, ranking["id"]),
                "score",
                {"checkpoint_id": checkpoint_id, "value": value},
            )

        self.finish(self.job_of(ranking, checkpoint_id), write)

    def rank(self, ranking: Record, order: list[tuple[str, float]], left_out: list[str] = ()) -> None:
        """Ends the ranking as its rank job would, in this order."""

        def write(session: Session) -> None:
            row = session.get(Ranking, ranking["id"])
            row.result = {
                "ranked_by": {
                    "metric": "logme",
                    "layer": "backbone.c4",
                    "level": "local",
                    "quantity": "value",
                    "chosen_by": "default rule",
                },
                "order": [
                    {
                        "checkpoint_id": id,
                        "rank": n,
                        "value": value,
                        "near": [],
                        "static_ranks": {"parameters": n},
                        "z": 15.0,
                        "interval": [value - 0.2, value + 0.2],
                        "chance_of_best": 1.0 / n,
                        "group": n,
                        "zero_point": value - 0.25,
                        "gain": 0.25,
                        "gain_interval": [0.125, 0.375],
                    }
                    for n, (id, value) in enumerate(order, 1)
                ],
                "summary": "each candidate can be told apart from the next",
                "groups": [[id] for id, _ in order],
                "ties": [],
                "left_out": [
                    {"checkpoint_id": id, "name": "x", "code": "undefined", "reason": "no value"}
                    for id in left_out
                ],
                "warnings": [{"code": "few_objects", "detail": "12 objects"}],
                "baselines": {"parameters": {id: 1000 for id, _ in order}},
            }
            row.plot_sha256 = self.keep(session, b"\x89PNG plot")
            for n, (id, _) in enumerate(order, 1):
                session.get(Candidate, (ranking["id"], id)).rank = n
            ranking_verifications.add_wanted(session, row, session.get(Job, row.job_id))

        with self.service.database.reading() as session:
            job_id = session.get(Ranking, ranking["id"]).job_id
        self.finish(job_id, write)

    def finish(self, job_id: str, write: Callable[[Session], None] | None = None) -> None:
        """What a worker does: claims the job, writes, ends it."""
        claim = self.claim(job_id)
        with self.service.database.unit_of_work() as session:
            leases.finish(session, claim, write)

    def fail(self, job_id: str, detail: str = "it broke") -> None:
        claim = self.claim(job_id)
        with self.service.database.unit_of_work() as session:
            leases.fail(
                session,
                claim,
                {"code": "candidate_failed", "title": "broken", "status": 422, "detail": detail},
            )

    def claim(self, job_id: str) -> leases.Claim:
        with self.service.database.unit_of_work() as session:
            claim = leases.claim(session, job_id, "tester", lease_s=60)
        assert claim is not None, "there was nothing to claim"
        return claim

    def keep(self, session: Session, content: bytes) -> str:
        stored = self.service.store.put(io.BytesIO(content))
        return remember_blob(session, stored, "application/octet-stream")

    @staticmethod
    def job_of(ranking: Record, checkpoint_id: str) -> str:
        return next(one["job_id"] for one in ranking["candidates"] if one["checkpoint_id"] == checkpoint_id)

    def _fill_dataset(self, session: Session, id: str) -> None:
        row = session.get(Dataset, id)
        row.format, row.supervision, row.digest = "coco", "boxes", "d" * 64
        row.summary, row.report = {"images": 1}, {"counts": {"degenerate_box": 1}}
        row.archive_sha256 = self.keep(session, small_zip({"annotations.json": json.dumps({"images": []})}))
        row.previews = [{"sha256": self.keep(session, b"\xff\xd8\xff jpg"), "file_name": "a.jpg"}]


@contextlib.contextmanager
def workspace(service: Running, name: str) -> Iterator[Workspace]:
    """A new workspace and its client."""
    with service.database.unit_of_work() as session:
        id = workspaces.ensure(session, name).id
        _, key = workspaces.create_key(session, id, "test")
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=service.url, headers=headers, timeout=30) as http:
        yield Workspace(service, id, key, http)


def small_zip(files: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in (files or {"a.txt": "hello"}).items():
            archive.writestr(name, text)
    return out.getvalue()


def stored_files(service: Running) -> list[str]:
    """Everything in the store, halves too."""
    root = Path(service.store.root)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
