"""How much the API carries, beside a bare FastAPI route with one indexed query: polling, rankings, lists, plans, uploads.

    PYTHONPATH=. python benchmarks/api.py [--jobs 100000] [--seconds 3] [--rounds 5] [--only speed,full,plans,memory] [--database-url URL]

Speeds are of one service process with SQLite in a temporary folder, or at `--database-url` (an empty Postgres database),
asked over 16 connections by a caller on the same cores. Rounds of the service and of the bare route alternate, so that
whatever else the machine does meets both; the figure is the median of the rounds' ratios. `CPU` compares the seconds that
the two processes computed for an answer, which other load hardly changes.
"""

import argparse
import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from load.callers import Heard, ask, cpu_seconds
from load.full import full_load
from load.memory import upload_memory
from load.plans import plans
from load.rows import Filled, fill

from app.db.engine import Database
from app.db.migrate import upgrade

GOALS = {
    "polling with ETag": 0.8,
    "whole ranking, 20 candidates": 0.5,
    "list of 100 rankings": 0.3,
}
P99_GOAL_MS = 100
PARTS = ("speed", "full", "plans", "memory")


@dataclass(frozen=True)
class Server:
    url: str
    pid: int


@contextlib.contextmanager
def serving(home: Path, database_url: str) -> Iterator[Server]:
    """The service without workers."""
    environment = {**os.environ, "DETRANK_DATA_DIR": str(home), "DETRANK_MIN_FREE_DISK_BYTES": "0"}
    if not database_url.startswith("sqlite"):
        environment["DETRANK_DATABASE_URL"] = database_url
        environment["DETRANK_BROKER_URL"] = f"detrank-files://{home / 'broker'}"
    command = [sys.executable, "-m", "app.cli", "serve", "--no-worker", "--port", str(port := free_port())]
    url = f"http://127.0.0.1:{port}"
    with (home / "serve.log").open("wb") as log, started(command, environment, log, f"{url}/healthz") as pid:
        yield Server(url, pid)


@contextlib.contextmanager
def bare(home: Path, database_url: str) -> Iterator[Server]:
    environment = {**os.environ, "BARE_DATABASE_URL": database_url}
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "--app-dir",
        "benchmarks",
        "load.bare:app",
        "--port",
        str(port),
        "--no-access-log",
    ]
    url = f"http://127.0.0.1:{port}"
    with (home / "bare.log").open("wb") as log, started(command, environment, log, f"{url}/docs") as pid:
        yield Server(url, pid)


@contextlib.contextmanager
def started(command: list[str], environment: dict[str, str], log: object, look: str) -> Iterator[int]:
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 60
        while True:
            assert process.poll() is None, f"{command} ended with {process.returncode}"
            assert time.monotonic() < until, f"{command} did not answer"
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(look).is_success:
                    break
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def timed(server: Server, path: str, seconds: float, **how: object) -> tuple[Heard, float]:
    """What callers heard, and the CPU milliseconds of the server for an answer."""
    before = cpu_seconds(server.pid)
    heard = asyncio.run(ask(server.url + path, seconds=seconds, **how))
    bad = {status: count for status, count in heard.statuses.items() if status not in (200, 304)}
    assert not bad, f"{path}: {bad}"
    return heard, 1e3 * (cpu_seconds(server.pid) - before) / len(heard.seconds)


def speed(ours: Server, plain: Server, filled: Filled, seconds: float, rounds: int) -> bool:
    """Prints a line for each path; whether all reach their goals."""
    ranking = f"/v1/rankings/{filled.ranking}"
    paths = {
        "polling with ETag": (ranking, {"follow_etag": True}),
        "whole ranking, 20 candidates": (ranking, {}),
        "list of 100 rankings": ("/v1/rankings?limit=100", {}),
    }
    reached = True
    print(
        f"{'':<30} {'bare/s':>8} {'ours/s':>8} {'ratio':>6} {'goal':>5} {'CPU':>6} {'ms':>6} {'p99 at half':>12}"
    )
    for name, (path, how) in paths.items():
        timed(ours, path, 0.3, **how), timed(plain, f"/rankings/{filled.ranking}", 0.3)
        rows = []
        for _ in range(rounds):
            least, least_cpu = timed(plain, f"/rankings/{filled.ranking}", seconds)
            heard, cpu = timed(ours, path, seconds, **how)
            rows.append((least.per_second, heard.per_second, least_cpu, cpu))
        ratio = statistics.median(row[1] / row[0] for row in rows)
        by_cpu = statistics.median(row[2] / row[3] for row in rows)
        full = statistics.median(row[1] for row in rows)
        half, _ = timed(ours, path, seconds * 2, connections=16, every_s=16 / (full / 2), **how)
        p99 = half.percentile_ms(99)
        print(
            f"{name:<30} {statistics.median(row[0] for row in rows):8.0f} {full:8.0f} {ratio:6.2f} {GOALS[name]:5.1f}"
            f" {by_cpu:6.2f} {statistics.median(row[3] for row in rows):6.2f} {p99:9.1f} ms"
        )
        reached = reached and ratio >= GOALS[name] and p99 < P99_GOAL_MS
    return reached


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--jobs", type=int, default=100_000)
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--full-seconds", type=float, default=30.0)
    options.add_argument("--only", default=",".join(PARTS))
    options.add_argument("--database-url", default="")
    asked = options.parse_args()
    parts = asked.only.split(",")
    reached = True
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if {"speed", "plans"} & set(parts):
            url = asked.database_url or f"sqlite:///{home / 'detrank.db'}"
            upgrade(url)
            database = Database(url)
            began = time.monotonic()
            filled = fill(database, asked.jobs)
            print(
                f"{database.engine.dialect.name}, {asked.jobs:,} jobs, filled in {time.monotonic() - began:.0f} s"
            )
            if "speed" in parts:
                with serving(home, url) as ours, bare(home, url) as plain:
                    reached &= speed(ours, plain, filled, asked.seconds, asked.rounds)
            if "plans" in parts:
                reached &= plans(database, filled)
            database.dispose()
        if "full" in parts:
            reached &= full_load(home / "full", asked.full_seconds)
        if "memory" in parts:
            (home / "memory").mkdir()
            with serving(home / "memory", f"sqlite:///{home / 'memory' / 'detrank.db'}") as server:
                reached &= upload_memory(server.url, server.pid)
    sys.exit(0 if reached else 1)


if __name__ == "__main__":
    main()
