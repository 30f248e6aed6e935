"""Real databases, brokers and worker processes, and what tests do to them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import select

from app.db import migrate
from app.db.engine import Database
from app.db.tables import Candidate, Dataset, Event, Job, Ranking
from app.queue.broker import queue_names
from app.queue.states import ENDED, JobState
from app.settings import Settings
from tests.queue_records import add_ingest, add_ranking, add_workspace

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_S = 60.0


class Deployment:
    """One database, one broker, and any number of workers on them."""

    def __init__(self, folder: Path, database_url: str, broker_url: str, **settings: object) -> None:
        self.folder = folder
        values = {
            "data_dir": folder / "data",
            "database_url": database_url,
            "broker_url": broker_url,
            "queue_prefix": f"test-{uuid.uuid4().hex[:8]}-",
            "lease_s": 1.5,
            "sweep_s": 0.3,
            "relay_s": 0.1,
            "bell_s": 1.0,
            "retry_s": 0.2,
            "stop_grace_s": 2.0,
            "min_free_disk_bytes": 0,
        } | settings
        self.environment = {f"DETRANK_{name.upper()}": str(value) for name, value in values.items()}
        self.settings = Settings(**values)
        migrate.upgrade(self.settings.resolved_database_url)
        self.database = Database(self.settings.resolved_database_url)
        self.diary = folder / "diary"
        self.diary.touch()
        self.workers: list[Worker] = []
        with self.database.unit_of_work() as session:
            self.workspace_id = add_workspace(session)

    def worker(self) -> "Worker":
        """Start a worker; it may not be ready yet."""
        worker = Worker(self, self.folder / f"worker{len(self.workers)}.log")
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        self.database.dispose()

    def add(self, *, max_attempts: int = 3, **payload: object) -> str:
        """An ingest job of a new dataset, as a request would add it; returns the job's id."""
        asked = {"diary": str(self.diary), **payload}
        with self.database.unit_of_work() as session:
            return add_ingest(session, self.workspace_id, max_attempts=max_attempts, payload=asked).id

    def add_ranking(self, *payloads: dict[str, object]) -> str:
        """A ranking with one candidate, doing as told, for each payload; returns its id."""
        asked = [{"diary": str(self.diary), **payload} for payload in payloads]
        with self.database.unit_of_work() as session:
            return add_ranking(session, self.workspace_id, asked).id

    def job(self, job_id: str) -> Job:
        with self.database.reading() as session:
            return session.get(Job, job_id)

    def ranking(self, ranking_id: str) -> tuple[Ranking, list[Candidate]]:
        with self.database.reading() as session:
            candidates = session.scalars(
                select(Candidate).where(Candidate.ranking_id == ranking_id).order_by(Candidate.position)
            )
            return session.get(Ranking, ranking_id), list(candidates)

    def resource(self, job_id: str) -> Dataset:
        with self.database.reading() as session:
            return session.get(Dataset, session.get(Job, job_id).resource_id)

    def events(self, stream_id: str) -> list[Event]:
        with self.database.reading() as session:
            return list(
                session.scalars(select(Event).where(Event.stream_id == stream_id).order_by(Event.seq))
            )

    def notes(self, job_id: str, word: str = "") -> list[str]:
        """What the handler wrote of a job into the diary."""
        lines = [line.partition(" ") for line in self.diary.read_text().splitlines()]
        return [rest for id, _, rest in lines if id == job_id and rest.startswith(word)]

    def until(self, true: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> object:
        """Wait until something is so; fails with the workers' logs otherwise."""
        give_up = time.monotonic() + patience_s
        while not (found := true()):
            if time.monotonic() > give_up:
                logs = "\n".join(worker.log.read_text(errors="replace")[-4000:] for worker in self.workers)
                raise AssertionError(f"not so within {patience_s:g} s: {what}\n{logs}")
            time.sleep(0.05)
        return found

    def until_noted(self, job_id: str, word: str) -> str:
        return self.until(lambda: self.notes(job_id, word), f"{job_id} notes {word!r}")[-1]

    def until_ended(self, job_id: str, patience_s: float = PATIENCE_S) -> Job:
        self.until(lambda: self.job(job_id).state in ENDED, f"{job_id} ends", patience_s)
        return self.job(job_id)

    def until_succeeded(self, job_id: str, patience_s: float = PATIENCE_S) -> Job:
        job = self.until_ended(job_id, patience_s)
        assert job.state == JobState.SUCCEEDED, job.error
        assert self.resource(job_id).state == "ready"
        return job

    def until_state(self, job_id: str, state: JobState, patience_s: float = PATIENCE_S) -> Job:
        self.until(lambda: self.job(job_id).state == state, f"{job_id} is {state}", patience_s)
        return self.job(job_id)


class Worker:
    """A worker process with its pool, in a process group of its own."""

    def __init__(self, deployment: Deployment, log: Path) -> None:
        self.log = log
        queues = ",".join(queue_names(deployment.settings))
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "tests.faults.celery_app",
            "worker",
            "-Q",
            queues,
            "-n",
            f"{log.stem}-{uuid.uuid4().hex[:6]}@%h",
            "-P",
            "prefork",
            "-c",
            "1",
            "--pool-start-method",
            "spawn",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            "-l",
            "INFO",
        ]
        environment = os.environ | deployment.environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def send(self, number: signal.Signals) -> None:
        """To the worker's main process alone."""
        self.process.send_signal(number)

    def send_all(self, number: signal.Signals) -> None:
        """To the worker and its pool."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.send_all(signal.SIGCONT)
        self.send_all(signal.SIGKILL)
        self.process.wait(30)


@contextlib.contextmanager
def deployed(*arguments: object, **settings: object) -> Iterator[Deployment]:
    deployment = Deployment(*arguments, **settings)
    try:
        yield deployment
    finally:
        deployment.close()
