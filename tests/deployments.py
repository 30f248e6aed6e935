"""The real service as processes of its own: an API and a worker, each of which a test may kill and start again."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import delete

from app.db.engine import Database
from app.db.tables import FeatureFile
from detrank import Client

START_S = 60.0
LISTENS = re.compile(r"detrank listens on (http://\S+)")


class Deployment:
    """One data folder with its processes. `settings` are DETRANK_ variables without the prefix."""

    def __init__(self, home: Path, **settings: object) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        ours = {
            "DATA_DIR": home,
            "LEASE_S": 3,
            "SWEEP_S": 0.5,
            "RELAY_S": 0.1,
            "MIN_FREE_DISK_BYTES": 0,
            "QUEUE_PREFIX": f"test-{uuid.uuid4().hex[:8]}-",
            **settings,
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DETRANK_")}
        self.environment = (
            inherited
            | {f"DETRANK_{name}": str(value) for name, value in ours.items()}
            | {"OMP_NUM_THREADS": "1"}
        )
        self.processes: list[subprocess.Popen[bytes]] = []
        self.worker: subprocess.Popen[bytes] | None = None  # the one started last
        self.client: Client | None = None

    def start_api(self) -> Client:
        process = self._start("api", "serve", "--port", "0", "--no-worker")
        until = time.monotonic() + START_S
        while not (found := LISTENS.search(self.log("api"))):
            assert process.poll() is None, f"the API ended with {process.returncode}:\n{self.log('api')}"
            assert time.monotonic() < until, f"the API did not listen:\n{self.log('api')}"
            time.sleep(0.05)
        self.client = Client(found.group(1))
        return self.client

    def start_worker(self, *options: str, **settings: object) -> subprocess.Popen[bytes]:
        """A worker; `settings` are its own. Any number may run."""
        self.worker = self._start("worker", "worker", *options, **settings)
        return self.worker

    def run(self, *command: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *command], env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def _start(self, name: str, *command: str, **settings: object) -> subprocess.Popen[bytes]:
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", *command],
                env=self.environment | {f"DETRANK_{key}": str(value) for key, value in settings.items()},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def log(self, name: str) -> str:
        path = self.home / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def kill_worker(self) -> None:
        """SIGKILL for the worker and everything it started: nobody gets to say goodbye."""
        assert self.worker is not None
        os.killpg(self.worker.pid, signal.SIGKILL)
        self.worker.wait()

    def kill_worker_child(self, holding: str) -> int:
        """SIGKILL for the one process that computes; `holding` is part of its files' or maps' names. Its pid."""
        assert self.worker is not None
        for pid in children(self.worker.pid):
            if holding in Path(f"/proc/{pid}/maps").read_text():
                os.kill(pid, signal.SIGKILL)
                return pid
        raise AssertionError(f"no child of the worker has {holding} open")

    def stop(self) -> None:
        if self.client is not None:
            self.client.close()
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        until = time.monotonic() + 10
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, until - time.monotonic()))
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def deployment(home: Path, *, workers: int = 1, **settings: object) -> Iterator[Deployment]:
    """An API and a worker (or as many as `workers`) that run; stopped afterwards, whatever happens."""
    running = Deployment(home, **settings)
    try:
        if "DATABASE_URL" in settings:
            running.run("migrate")
        running.start_api()
        for _ in range(workers):
            running.start_worker()
        yield running
    except BaseException:
        sys.stderr.write(
            f"--- api\n{running.log('api')[-5000:]}\n--- worker\n{running.log('worker')[-10000:]}\n"
        )
        raise
    finally:
        running.stop()


def children(pid: int) -> list[int]:
    """All descendants of a process, by /proc."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        for child in parents.get(waiting.pop(), []):
            found.append(child)
            waiting.append(child)
    return found


def zipped(folder: Path, file: Path) -> Path:
    """The folder as a zip, without the note about its source."""
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != "SOURCE.txt":
                archive.write(path, path.relative_to(folder.parent))
    return file


def comparable(ranking: dict[str, Any]) -> dict[str, Any]:
    """What two runs of the same request must have in common: all but ids of jobs, times and measured costs."""
    return {
        "order_by": ranking["order_by"],
        "ranked_by": ranking["ranked_by"],
        "left_out": ranking["left_out"],
        "summary": ranking["summary"],
        "groups": ranking["groups"],
        "ties": ranking["ties"],
        "warnings": ranking["warnings"],
        "candidates": {
            candidate["checkpoint_id"]: {
                "rank": candidate["rank"],
                "state": candidate["state"],
                "value": candidate["value"],
                "score_chance_of_highest": candidate["score_chance_of_highest"],
                "scores": {
                    (score["metric"], score["layer"], score["level"]): (
                        score["value"],
                        score["undefined"],
                        score["null"],
                        score["z"],
                        score["interval"],
                        score["zero_point"],
                        score["gain"],
                    )
                    for score in candidate["scores"]
                },
            }
            for candidate in ranking["candidates"]
        },
    }


def forget_features(running: Deployment) -> None:
    """Removes what was cached here and in storage, so that the next ranking computes everything again."""
    shutil.rmtree(running.home / "cache" / "features", ignore_errors=True)
    if url := running.environment.get("DETRANK_DATABASE_URL"):
        database = Database(url)
        with database.unit_of_work() as session:
            session.execute(delete(FeatureFile))
        database.dispose()
