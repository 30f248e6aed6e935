"""What counting requests costs: polling by ETag without rates and with one of a key and one of its workspace.

    python benchmarks/limits.py [--seconds 5] [--rounds 3]

Two services with keys run side by side in temporary folders, on SQLite, and are asked in turn. Counted is the CPU time of the
service (Linux), which what else the machine does leaves alone. Prints requests per second of it in each round, and the quotient
of the medians.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import httpx

from app.db.engine import Database
from app.services import workspaces
from detrank.embedded import find

RATES = {"DETRANK_KEY_REQUESTS_PER_MINUTE": "1000000", "DETRANK_WORKSPACE_REQUESTS_PER_MINUTE": "1000000"}
POLLERS = 8


def served(stack: ExitStack, home: Path, settings: dict[str, str]) -> tuple[int, str, dict[str, str]]:
    """Process and URL of a service, and the headers of a key of it."""
    environment = os.environ | {"DETRANK_DATA_DIR": str(home), "DETRANK_AUTH": "keys"} | settings
    command = [sys.executable, "-m", "app.cli", "serve", "--no-worker", "--port", "0"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    while (url := find(home)) is None:
        time.sleep(0.1)
    database = Database(f"sqlite:///{home / 'detrank.db'}")
    with database.unit_of_work() as session:
        _, key = workspaces.create_key(session, workspaces.ensure(session, "x").id, "x")
    database.dispose()
    return process.pid, url, {"Authorization": f"Bearer {key}"}


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def polled(pid: int, url: str, headers: dict[str, str], seconds: float) -> float:
    """Requests per second of the service's CPU time."""
    count = 0
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as http:
        job = (await http.post("/v1/checkpoints", json={"source": "timm://x"})).json()["job_id"]
        tag = (await http.get(f"/v1/jobs/{job}")).headers["etag"]
        before, until = cpu_s(pid), time.perf_counter() + seconds

        async def poll() -> None:
            nonlocal count
            while time.perf_counter() < until:
                answer = await http.get(f"/v1/jobs/{job}", headers={"If-None-Match": tag})
                assert answer.status_code == 304
                count += 1

        await asyncio.gather(*(poll() for _ in range(POLLERS)))
    return count / (cpu_s(pid) - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with ExitStack() as stack:
        services = {}
        for name, settings in (("without", {}), ("with", RATES)):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            services[name] = served(stack, folder, settings)
        found: dict[str, list[float]] = {name: [] for name in services}
        for _ in range(asked.rounds):
            for name, service in services.items():
                found[name].append(asyncio.run(polled(*service, asked.seconds)))
    for name, each in found.items():
        print(f"{name:8} rates: {', '.join(f'{one:.0f}' for one in each)} requests per CPU second")
    print(
        f"quotient of the medians: {statistics.median(found['with']) / statistics.median(found['without']):.2f}"
    )


if __name__ == "__main__":
    main()
