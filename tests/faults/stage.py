"""A whole deployment that a kill schedule plays on: servers of its own, an API, two workers, a small disk."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kombu import Connection
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from app.db.engine import Database
from app.db.tables import Job
from app.queue.broker import queue_names
from app.queue.states import ACTIVE, ENDED
from app.settings import Settings
from tests.deployments import children
from tests.faults.network import Wire, wired
from tests.faults.servers import Kept, Postgres, Redis, free_port, small_disk, until_listening

BROKERS = ("embedded", "redis", "rabbitmq")
WORKERS = 2
DISK_BYTES = 256 << 20
LEASE_S = 4.0
CLOCK = Path(__file__).with_name("clock.c")
# a minute apart
CLOCKS_S = (30, -30)


class Stage:
    """`home`: on a small disk where one can be mounted (`disk`). Postgres, Redis: None where the broker does without."""

    def __init__(self, home: Path, logs: Path, *, disk: bool) -> None:
        self.home, self.logs, self.disk = home, logs, disk
        self.postgres: Postgres | None = None
        self.redis: Redis | None = None
        self.wire: Wire | None = None
        self.clocks = False
        self.environment: dict[str, str] = {}
        self.api: Kept
        self.workers: list[Kept] = []

    def start(self, database_url: str, broker_url: str) -> None:
        temporary = self.home / "tmp"
        temporary.mkdir()
        values: dict[str, Any] = {
            "data_dir": self.home,
            "database_url": database_url,
            "broker_url": broker_url,
            "queue_prefix": f"schedule-{uuid.uuid4().hex[:8]}-",
            "lease_s": LEASE_S,
            "sweep_s": 0.5,
            "relay_s": 0.2,
            "bell_s": 2.0,
            "retry_s": 0.2,
            "room_s": 1.0,
            "stop_grace_s": 5.0,
            "min_free_disk_bytes": 0,
            # nothing that was read once is found again: every ranking has all its work to do
            "feature_cache_bytes": 0,
            "shared_file_bytes": 0,
            # how often a job may be struck is not what is looked at here: whoever is killed for good is no poison
            "max_attempts": 1000,
        }
        self.settings = Settings(**values)
        ours = {f"DETRANK_{name.upper()}": str(value) for name, value in values.items()}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DETRANK_")}
        self.environment = inherited | ours | {"OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)}
        self.run("migrate")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.api = self._kept("api", {}, "serve", "--port", str(port), "--no-worker")
        # SQLite has the clock of whoever asks it, and lies on one machine
        clock = _clock(self.logs) if database_url else None
        self.clocks = clock is not None
        for number in range(WORKERS):
            extra = {"LD_PRELOAD": str(clock), "CLOCK_SHIFT_S": str(CLOCKS_S[number])} if clock else {}
            self.workers.append(self._kept(f"worker{number}", extra, "worker", "--name", f"w{number}"))
        self.database = Database(self.settings.resolved_database_url)
        until_listening(port)

    def _kept(self, name: str, extra: dict[str, str], *command: str) -> Kept:
        return Kept(
            [sys.executable, "-m", "app.cli", *command], self.environment | extra, self.logs / f"{name}.log"
        )

    def run(self, *command: str) -> str:
        """A command of detrank on this deployment; what it prints."""
        return _run([sys.executable, "-m", "app.cli", *command], self.environment)

    def keep(self) -> None:
        for process in (self.api, *self.workers):
            process.keep()

    def look(self, query: Any) -> list[Any]:
        """Rows of a query, asked again while the database is away."""
        give_up = time.monotonic() + 60
        while True:
            try:
                with self.database.reading() as session:
                    return list(session.execute(query))
            except DBAPIError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.2)

    def open_jobs(self) -> int:
        ended = [state.value for state in ENDED]
        return int(self.look(select(func.count()).select_from(Job).where(Job.state.not_in(ended)))[0][0])

    def open_kinds(self) -> set[str]:
        """Of jobs that are nobody's part and have not ended."""
        ended = [state.value for state in ENDED]
        query = select(Job.kind).where(Job.state.not_in(ended), Job.parent_id.is_(None))
        return {kind for (kind,) in self.look(query)}

    def in_hand(self) -> list[tuple[Kept, str]]:
        """Workers that run and have a job in hand, and of which kind."""
        active = [state.value for state in ACTIVE]
        rows = self.look(select(Job.worker, Job.kind).where(Job.state.in_(active), Job.worker.is_not(None)))
        alive = {each.process.pid: each for each in self.workers if each.process.poll() is None}
        found = ((alive.get(int(worker.rpartition(":")[2])), kind) for worker, kind in rows)
        return [(worker, kind) for worker, kind in found if worker is not None]

    def stop(self) -> None:
        for process in (*self.workers, self.api):
            process.stop()
        self.database.dispose()

    def left_running(self) -> list[int]:
        """Processes that belong to this deployment and still run."""
        mark, found = str(self.home).encode(), []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
        return found

    def pids_below(self, worker: Kept) -> list[int]:
        return sorted(children(worker.process.pid))

    def flush(self) -> int:
        """Every message is gone; how many there were."""
        if self.redis is not None:
            with Connection(self.redis.url) as connection:
                client = connection.default_channel.client
                count = int(client.dbsize())
                client.flushall()
                return count
        if self.wire is None:
            found = list((self.home / "broker").glob("*/*.msg"))
            for path in found:
                path.unlink(missing_ok=True)
            return len(found)
        with Connection(self.settings.broker_url) as connection:
            channel, count = connection.default_channel, 0
            for name in queue_names(self.settings):
                with contextlib.suppress(Exception):  # a queue that nobody has declared yet
                    count += channel.queue_purge(name) or 0
            return count

    def freeze(self, worker: Kept, seconds: float) -> None:
        worker.signal_group(signal.SIGSTOP)
        time.sleep(seconds)
        worker.signal_group(signal.SIGCONT)

    def fill_disk(self, seconds: float) -> None:
        """No byte is free for so long."""
        ballast = self.home / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            for piece in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"\0" * piece)
        time.sleep(seconds)
        ballast.unlink()


def _clock(folder: Path) -> Path | None:
    """The library of clock.c, None where there is no compiler."""
    if shutil.which("cc") is None:
        return None
    made = folder / "clock.so"
    _run(["cc", "-O2", "-shared", "-fPIC", "-o", str(made), str(CLOCK), "-ldl"], dict(os.environ))
    return made


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr[-3000:]}"
    return done.stdout


@contextlib.contextmanager
def stage(
    broker: str, logs: Path | None = None, amqp_url: str = "amqp://guest:guest@127.0.0.1:5672//"
) -> Iterator[Stage]:
    """A deployment on one broker, stopped and removed afterwards, but for its `logs`. Raises NoServer."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="detrank-schedule-")))
        disk = stack.enter_context(small_disk(folder / "home", DISK_BYTES))
        if logs is not None:
            logs.mkdir(parents=True)
        made = Stage(folder / "home", logs or folder, disk=disk)
        urls = ("", "")
        if broker != "embedded":
            made.postgres = Postgres()
            stack.callback(made.postgres.stop)
            if broker == "redis":
                made.redis = Redis()
                stack.callback(made.redis.stop)
                urls = (made.postgres.url, made.redis.url)
            else:
                made.wire, through = stack.enter_context(wired(amqp_url, 5672))
                urls = (made.postgres.url, through)
        try:
            made.start(*urls)
            yield made
        finally:
            for process in (*made.workers, *([made.api] if hasattr(made, "api") else [])):
                process.stop()
