"""All hostile files through a real API and a real worker: `invalid` with a reason, or what is sound in them, and both go on.

Each is also tried without them, in the fast half (test_hostile_files.py).
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.deployments import Deployment, children, deployment
from tests.security.hostile import cases
from tests.security.hostile.case import zip_of
from tests.security.hostile.checkpoints import MARKER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

PATIENCE_S = 1200
GIB = 1 << 30
MEMORY_BYTES = GIB
# of one file, on a machine that does other things too
JOB_S = 240
AT_ONCE = 30
PARTS = 4


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    limits = {"INGEST_MEMORY_BYTES": MEMORY_BYTES, "INSPECT_MEMORY_BYTES": 3 * GIB, "LEASE_S": 60}
    with deployment(tmp_path_factory.mktemp("hostile"), MAX_ATTEMPTS=2, **limits) as started:
        yield started


def sent(running: Deployment, route: str, content: bytes) -> dict[str, Any] | None:
    """What became of it; None where it was refused at once."""
    answer = httpx.post(
        f"{running.client.url}/v1/{route}", params={"name": "hostile"}, content=content, timeout=120
    )
    if 400 <= answer.status_code < 500:
        assert answer.json()["detail"]
        return None
    assert answer.status_code == 202, answer.text
    return answer.json()


def wrong(case: Any, record: dict[str, Any], job: dict[str, Any]) -> list[str]:
    found = []
    if record["state"] not in (("ready", "invalid") if case.spared else ("invalid",)):
        found.append(f"it is {record['state']}")
    if record["state"] == "invalid" and not (record["error"]["detail"] and record["error"]["status"] == 422):
        found.append(f"a bad reason: {record['error']}")
    if record["state"] == "invalid" and record["error"]["code"] in ("loader_failed", "attempts_exhausted"):
        found.append(f"nobody foresaw it: {record['error']['detail'][:300]}")
    if job["attempt"] != 1:
        found.append(f"{job['attempt']} attempts: trying again cannot make it better")
    return found


def seconds(job: dict[str, Any]) -> float:
    moments = [time.strptime(job[name][:19], "%Y-%m-%dT%H:%M:%S") for name in ("started_at", "finished_at")]
    return time.mktime(moments[1]) - time.mktime(moments[0])


def peak_bytes(running: Deployment) -> int:
    """The most memory that any process of the worker ever held; its nursery and limited children have their own bound."""
    peaks = []
    for pid in children(running.worker.pid):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        peaks += [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return max(peaks)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_hostile_file_is_answered_and_the_worker_lives(running: Deployment, part: int) -> None:
    client, waiting, problems, slowest = running.client, [], [], {}
    MARKER.unlink(missing_ok=True)

    def settle() -> None:
        for case, made in waiting:
            job = client.jobs.wait(made["job_id"], timeout_s=PATIENCE_S)
            record = client.get(f"/v1/{case.route}/{made['id']}")
            problems.extend(f"{case.name}: {each}" for each in wrong(case, record, job))
            slowest[case.name] = seconds(job)
            client.request("DELETE", f"/v1/{case.route}/{made['id']}")
        waiting.clear()

    for case in list(cases())[part::PARTS]:
        if (made := sent(running, case.route, case.make())) is not None:
            waiting.append((case, made))
        if len(waiting) == AT_ONCE:
            settle()
    settle()
    worst = max(slowest, key=slowest.get)
    assert not problems, "\n".join(problems)
    assert slowest[worst] < JOB_S, worst
    assert not MARKER.exists()
    assert not list(running.home.rglob("evil.txt"))
    assert [path for path in (running.home / "scratch").rglob("*") if path.is_file()] == []
    assert running.worker.poll() is None
    # a pool's process is renewed after 200 jobs, but none was killed or given up
    for word in ("WorkerLostError", "SIGKILL", "did not stop"):
        assert word not in running.log("worker")
    assert peak_bytes(running) < MEMORY_BYTES + GIB


def test_an_archive_that_wants_all_memory_is_invalid(running: Deployment) -> None:
    """80 MB of short lists, which Python would hold in 1.4 GB."""
    lists = np.tile(np.frombuffer(b"[0],", np.uint8), (20_000_000, 1))
    lists[:, 1] += np.random.default_rng(0).integers(0, 10, len(lists), dtype=np.uint8)
    before = b'{"images":[{"id":1,"file_name":"a.png"}],"annotations":[{"image_id":1,"bbox":['
    content = zip_of({"annotations.json": before + lists.tobytes() + b"0]}]}"})
    made = sent(running, "datasets", content)
    job = running.client.jobs.wait(made["job_id"], timeout_s=PATIENCE_S)
    record = running.client.datasets.get(made["id"])
    assert (record["state"], job["attempt"]) == ("invalid", 1), record
    assert "DETRANK_INGEST_MEMORY_BYTES" in record["error"]["detail"]
