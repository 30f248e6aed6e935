"""One ranking, three workers on hosts of their own that share Postgres, Redis and storage: the numbers of a single worker."""

import io
import json
import os
import signal
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import torchvision

from app.db.engine import Database
from app.queue import leases
from app.settings import Settings
from app.storage.blobs import open_store
from detrank import Client
from tests.deployments import Deployment, comparable, deployment
from worker.attempt import Attempt
from worker.tasks import work_on

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE_S = 120
REQUEST: dict[str, Any] = {
    "metrics": ["logme", "logme_boxes", "tlogme", "h_score", "transrate"],
    "layers": ["backbone.c3"],
    "max_images": None,
    "image_size": 96,
    "seed": 5,
}


def archive(file: Path, images: int = 72) -> Path:
    """COCO: random pictures of three shapes with boxes of three categories."""
    rng = np.random.default_rng(0)
    sizes = [((96, 72), (72, 96), (96, 96))[index % 3] for index in range(images)]
    annotations = []
    with zipfile.ZipFile(file, "w") as packed:
        for index, (width, height) in enumerate(sizes):
            content = io.BytesIO()
            PIL.Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(content, "png")
            packed.writestr(f"set/images/{index}.png", content.getvalue())
            for _ in range(3):
                w, h = rng.integers(16, 40, 2).tolist()
                x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": index,
                        "category_id": int(rng.integers(3)),
                        "bbox": [x, y, w, h],
                        "area": w * h,
                        "iscrowd": 0,
                    }
                )
        document = {
            "images": [
                {"id": i, "file_name": f"{i}.png", "width": w, "height": h} for i, (w, h) in enumerate(sizes)
            ],
            "annotations": annotations,
            "categories": [{"id": i, "name": name} for i, name in enumerate("abc")],
        }
        packed.writestr("set/annotations.json", json.dumps(document))
    return file


def prepare(client: Client, folder: Path) -> tuple[str, list[str]]:
    torch.manual_seed(0)
    added = []
    for number, name in enumerate(("resnet18", "resnet18", "mobilenet_v3_small")):
        file = folder / f"{name}-{number}.pth"
        torch.save(getattr(torchvision.models, name)(weights=None).state_dict(), file)
        added.append(client.checkpoints.add(file, name=file.stem, architecture=f"torchvision/{name}"))
    dataset = client.datasets.add(archive(folder / "set.zip"))
    ready = [client.checkpoints.wait(row["id"], timeout_s=PATIENCE_S) for row in added]
    assert [row["state"] for row in ready] == ["ready"] * 3, ready
    assert client.datasets.wait(dataset["id"], timeout_s=PATIENCE_S)["state"] == "ready"
    return dataset["id"], [row["id"] for row in ready]


@pytest.fixture
def running(tmp_path: Path, postgres_url: str, redis_url: str) -> Iterator[Deployment]:
    """An API, and three workers that share no file but those in storage; the first also takes what needs no GPU."""
    urls = {
        "DATABASE_URL": postgres_url,
        "BROKER_URL": redis_url,
        "STORAGE_URL": f"file://{tmp_path / 'storage'}",
    }
    # features are not shared, or the run that is compared would find them
    with deployment(tmp_path / "host0", workers=0, SHARED_FILE_BYTES=0, **urls) as started:
        yield started


def jobs_of(client: Client, ranking_id: str, kind: str) -> list[dict[str, Any]]:
    return client.get("/v1/jobs", resource_id=ranking_id, kind=kind, limit=100)["items"]


def strike(running: Deployment, ranking_id: str, workers: dict[int, Any]) -> dict[str, Any]:
    """SIGKILL for one of `workers` with everything it started, while it reads a shard; the job it was working on."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        for job in jobs_of(running.client, ranking_id, "shard"):
            worker = workers.get(int((job["worker"] or ":0").rpartition(":")[2]))
            if job["state"] == "running" and job["stage"] == "extracting" and worker is not None:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
                return job
        time.sleep(0.02)
    raise AssertionError("no shard was caught at work")


def alone(running: Deployment, folder: Path, dataset_id: str, ids: list[str]) -> dict[str, Any]:
    """The same request, worked off by this process, one job after the other."""
    settings = Settings(
        data_dir=folder,
        database_url=running.environment["DETRANK_DATABASE_URL"],
        device="cpu",
        min_free_disk_bytes=0,
        storage_url=running.environment["DETRANK_STORAGE_URL"],
        shared_file_bytes=0,
    )
    database, store = Database(settings.resolved_database_url), open_store(settings)
    ranking = running.client.rankings.create(dataset_id, ids, **REQUEST)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers have
    try:
        while ranking["state"] in ("queued", "running"):
            for kind in ("score", "rank"):
                for job in jobs_of(running.client, ranking["id"], kind):
                    with database.unit_of_work() as session:
                        claim = leases.claim(session, job["id"], "alone", lease_s=60)
                    if claim is not None:
                        with Attempt(claim, database, settings, store) as attempt:
                            work_on(attempt, claim)
            ranking = running.client.rankings.get(ranking["id"])
    finally:
        torch.set_num_threads(threads)
        database.dispose()
    return ranking


def test_three_workers_give_the_numbers_of_one(running: Deployment, tmp_path: Path) -> None:
    client = running.client
    assert client is not None
    queues = ("cpu,gpu", "gpu", "gpu")
    started = [
        running.start_worker("--queues", each, DATA_DIR=tmp_path / f"host{number}")
        for number, each in enumerate(queues, 1)
    ]
    workers = {process.pid: process for process in started}
    dataset_id, ids = prepare(client, tmp_path)
    ranking_id = client.rankings.create(dataset_id, ids, shards=4, **REQUEST)["id"]
    assert len(jobs_of(client, ranking_id, "shard")) == 12
    struck = strike(running, ranking_id, {process.pid: process for process in started[1:]})
    ranking = client.rankings.wait(ranking_id, timeout_s=PATIENCE_S)
    assert ranking["state"] == "succeeded", ranking["error"]

    done = jobs_of(client, ranking_id, "shard") + jobs_of(client, ranking_id, "score")
    assert len(done) == 15
    assert {job["state"] for job in done} == {"succeeded"}
    assert client.jobs.get(struck["id"])["attempt"] == 2
    told = {int(worker["name"].rpartition(":")[2]): worker for worker in client.workers()}
    assert set(told) == set(workers)
    survivors = [worker for pid, worker in told.items() if workers[pid].poll() is None]
    assert len(survivors) == 2
    assert {worker["name"] for worker in survivors} <= {job["worker"] for job in done}
    assert struck["worker"] not in {worker["name"] for worker in survivors}
    for worker in survivors:
        assert "gpu" in worker["queues"]
        assert (worker["details"]["device"], worker["details"]["concurrency"]) == ("cpu", 1)
        assert worker["details"]["memory_total_bytes"] > worker["details"]["memory_free_bytes"] > 0
        assert worker["details"]["models"], "what it has read with is kept loaded"

    # once more from statistics alone, by those who are left
    gathered = client.rankings.create(dataset_id, ids, shards=3, keep_features=False, **REQUEST)
    gathered = client.rankings.wait(gathered["id"], timeout_s=PATIENCE_S)
    assert gathered["state"] == "succeeded", gathered["error"]
    for process in started:
        process.kill()
        process.wait()
    single = alone(running, tmp_path / "alone", dataset_id, ids)
    assert (single["state"], single["request"]["shards"]) == ("succeeded", 1), single["error"]
    assert not any(candidate["timings"]["cached"] for candidate in single["candidates"])
    same(comparable(ranking), comparable(single))
    close(gathered, single)


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """To 1e-9, and of the same shape."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
    else:
        assert found == expected


def close(gathered: dict[str, Any], single: dict[str, Any]) -> None:
    """What statistics can give is that of the features; where there are more dimensions than objects, to fewer digits."""
    expected = comparable(single)["candidates"]
    for id, candidate in comparable(gathered)["candidates"].items():
        for key, (value, undefined, *_) in candidate["scores"].items():
            other, why, *_ = expected[id]["scores"][key]
            if key[0] == "transrate":
                assert "statistics were kept" in undefined
            else:
                assert (value, undefined) == (None if why else pytest.approx(other, rel=1e-7), why), key
