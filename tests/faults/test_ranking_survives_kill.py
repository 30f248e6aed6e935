"""SIGKILL in the middle of a real ranking: it finishes after a restart, equal to the one nobody disturbed."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detrank import Client
from tests.deployments import Deployment, comparable, deployment, forget_features, zipped

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WEIGHTS = ("mobilenet_v2_imagenet_b", "mobilenet_v2_from_hand_ssd", "mobilenet_v2_skin")
REQUEST: dict[str, Any] = {
    "metrics": ["logme_boxes", "tlogme"],
    "layers": ["backbone.c4", "backbone.c5"],
    "level": "both",
    "max_images": None,
    "image_size": 192,
    "seed": 3,
}
PATIENCE_S = 300


@pytest.fixture(params=["embedded", "servers"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    settings = {}
    if request.param == "servers":
        urls = {"DATABASE_URL": "postgres_url", "BROKER_URL": "redis_url"}
        settings = {name: request.getfixturevalue(fixture) for name, fixture in urls.items()}
    with deployment(tmp_path / "home", **settings) as started:
        yield started


def prepare(client: Client, shared_data: Path, folder: Path) -> tuple[str, list[str]]:
    archive = zipped(shared_data / "datasets" / "pennfudan", folder / "set.zip")
    dataset = client.datasets.add(archive)
    added = [
        client.checkpoints.add(
            shared_data / "weights" / name / "mobilenet_v2_features.fp16.safetensors", name=name
        )
        for name in WEIGHTS
    ]
    ready = [client.checkpoints.wait(row["id"], timeout_s=PATIENCE_S) for row in added]
    assert [row["state"] for row in ready] == ["ready"] * 3, ready
    assert client.datasets.wait(dataset["id"], timeout_s=PATIENCE_S)["state"] == "ready"
    return dataset["id"], [row["id"] for row in ready]


def middle(client: Client, ranking_id: str) -> dict[str, Any]:
    """Waits until one candidate has ended and another is extracting; the job of that one."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        candidates = client.rankings.get(ranking_id)["candidates"]
        assert any(candidate["state"] != "succeeded" for candidate in candidates), (
            "too late to disturb anything"
        )
        if any(candidate["state"] == "succeeded" for candidate in candidates):
            for candidate in candidates:
                if candidate["state"] == "running":
                    job = client.jobs.get(candidate["job_id"])
                    if job["stage"] == "extracting":
                        return job
        time.sleep(0.02)
    raise AssertionError("no candidate was caught at work")


def test_ranking_survives_kill(running: Deployment, shared_data: Path, tmp_path: Path) -> None:
    client = running.client
    assert client is not None
    dataset_id, ids = prepare(client, shared_data, tmp_path)
    undisturbed = client.rankings.wait(
        client.rankings.create(dataset_id, ids, **REQUEST)["id"], timeout_s=PATIENCE_S
    )
    assert undisturbed["state"] == "succeeded"
    assert len(undisturbed["candidates"]) == 3

    for kill in ("child", "group"):
        forget_features(running)
        ranking_id = client.rankings.create(dataset_id, ids, **REQUEST)["id"]
        struck = middle(client, ranking_id)
        if kill == "child":
            running.kill_worker_child("libtorch")
        else:
            running.kill_worker()
            running.start_worker()
        ranking = client.rankings.wait(ranking_id, timeout_s=PATIENCE_S)
        assert ranking["state"] == "succeeded", (kill, (ranking["error"] or {}).get("detail"))
        assert comparable(ranking) == comparable(undisturbed), kill
        job = client.jobs.get(struck["id"])
        # one attempt is lost; on a busy machine there may have been another before
        assert (job["state"], job["attempt"]) == ("succeeded", struck["attempt"] + 1), kill
